"""The audit log in Redis: the youngest entries, as many as an operator wants kept."""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

import structlog

from core.contract import codec
from core.contract.audit import AuditEntry
from core.store import keys
from core.store.connection import Connection, script

log = structlog.get_logger()

FIELD: Final = b"entry"
READ_AT_ONCE: Final = 1000
"""At most; no fewer than a page of them, most of which may not be wanted."""


class AuditTrail:
    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self._append = script(connection, "audit", fills=True)

    async def append(self, entries: Iterable[AuditEntry], *, kept: int) -> None:
        """Oldest first. About so many are kept."""
        await self._append(keys=[keys.AUDIT], args=[kept, *map(codec.pack, entries)])

    async def page(
        self, *, since: datetime | None, limit: int, wanted: Callable[[AuditEntry], bool]
    ) -> list[AuditEntry]:
        """Newest first, of those that were entered since then."""
        oldest = "-" if since is None else str(max(int(since.timestamp() * 1000), 0))
        found: list[AuditEntry] = []
        youngest, at_once = "+", min(max(limit, READ_AT_ONCE // 10), READ_AT_ONCE)
        while len(found) < limit:
            records = await self._redis.call("XREVRANGE", keys.AUDIT, youngest, oldest, "COUNT", at_once)
            found += [entry for _, fields in records if (entry := _read(fields[FIELD])) and wanted(entry)]
            if len(records) < at_once:
                break
            youngest = f"({records[-1][0].decode()}"
        return found[:limit]


def _read(packed: bytes) -> AuditEntry | None:
    try:
        return codec.unpack(AuditEntry, packed)
    except ValueError as error:  # of a newer core, say
        log.warning("audit.unreadable", error=repr(error))
        return None
