"""Those who report themselves, agents and gateways, in Redis: what each said last."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final, Generic, TypeVar

import structlog
from pydantic import BaseModel

from core.contract import codec
from core.contract.presence import Present
from core.store.connection import Connection

log = structlog.get_logger()

FORGOTTEN_AFTER: Final = timedelta(days=1)

Kind = TypeVar("Kind", bound=Present)


class Reported(Generic[Kind]):
    """A handful under one key, so that reading them all is a small thing."""

    def __init__(self, connection: Connection, key: str, kind: type[Kind]) -> None:
        self._redis = connection
        self._key = key
        self._kind = kind

    async def note(self, report: BaseModel) -> None:
        """Who has said nothing for a day is forgotten."""
        said = self._kind(**report.model_dump(), seen=datetime.now(UTC))
        await self._redis.note("HSET", self._key, said.name, codec.pack(said))
        if gone := [one.name for one in await self._every() if _is_gone(one)]:
            await self._redis.call("HDEL", self._key, *gone)

    async def all(self) -> list[Kind]:
        """By name, those who have said something within a day."""
        return sorted((one for one in await self._every() if not _is_gone(one)), key=lambda one: one.name)

    async def _every(self) -> list[Kind]:
        """A record that can't be read is a later version's: it is there for the cores of that version."""
        packed: Mapping[bytes, bytes] = await self._redis.ask("HGETALL", self._key)
        found = []
        for name, record in packed.items():
            try:
                found.append(codec.unpack(self._kind, record))
            except ValueError as error:
                log.warning("report.unreadable", kind=self._kind.__name__, name=name.decode(), error=repr(error))
        return found


def _is_gone(one: Present) -> bool:
    return one.seen < datetime.now(UTC) - FORGOTTEN_AFTER
