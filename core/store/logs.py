"""What the containers of a task have printed: the last of it, as long as the task is kept."""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Final, cast

from core.contract import codec
from core.contract.errors import ContractError, StoreFull, Unavailable
from core.contract.live import Printed, Said
from core.store import keys
from core.store.connection import Connection, script

BEGINNING: Final = "0-0"
AT_ONCE: Final = 16
"""So many entries are read in one trip."""

CHARACTERS_AT_ONCE: Final = 2**16
"""When there are so many, no further entry is taken: whoever reads slowly holds them."""

ENTRY_BYTES: Final = 64
"""What one takes beside its text, about: else very many small ones would take any memory."""

LATE_SECONDS: Final = 60.0
"""An attempt is heard for so long after its end: its last lines may come behind its output."""


@dataclass(frozen=True)
class Entry:
    id: str
    """Those that come later compare as greater, in Redis's order."""
    printed: Printed


def may_have_more(entries: Sequence[Entry]) -> bool:
    """Behind these, which came at once."""
    characters = sum(len(entry.printed.text) for entry in entries)
    return len(entries) == AT_ONCE or characters >= CHARACTERS_AT_ONCE


class Logs:
    """One stream a task, for all of its attempts. Who is told `news` asks for what comes after what it has."""

    def __init__(self, connection: Connection, reserve_percent: float) -> None:
        self._redis = connection
        self._reserve_percent = reserve_percent
        self._tell = script(connection, "room", "tell", fills=True)

    async def append(self, uid: str, attempt: int, said: Said, *, kept_bytes: int) -> bool:
        """False: the attempt isn't heard (any more). Raises StoreFull when only what is held back for results
        is left; progress is taken also then, while there is any memory.
        """
        progress = codec.pack(said.progress) if said.progress else ""
        args: list[str | bytes | float] = [
            attempt,
            said.batch,
            said.text,
            progress,
            kept_bytes,
            ENTRY_BYTES,
            LATE_SECONDS,
            self._reserve_percent,
        ]
        answer = await self._tell(keys=[keys.task(uid), keys.log(uid)], args=args)
        if answer < 0:
            raise StoreFull
        return bool(answer)

    async def after(self, places: Sequence[tuple[str, str]]) -> list[list[Entry] | ContractError]:
        """Of each task's uid and entry those that come next, a few at once; none when there are no more."""
        commands = (("XRANGE", keys.log(uid), f"({entry}", "+", "COUNT", AT_ONCE) for uid, entry in places)
        return [_entries(answer) for answer in await self._redis.call_each(commands)]

    async def length(self, uid: str) -> int:
        """How many entries are kept of it."""
        return int(await self._redis.call("XLEN", keys.log(uid)))

    async def of_attempt(self, uid: str, attempt: int) -> AsyncGenerator[str, None]:
        """What is kept of its log."""
        if await self._is_cut(uid, attempt):
            yield "[What came before is no longer kept.]\n"
        entry = BEGINNING
        while True:
            [entries] = await self.after([(uid, entry)])
            if isinstance(entries, ContractError):
                raise entries
            if not entries:
                return
            entry = entries[-1].id
            if text := "".join(entry.printed.text for entry in entries if entry.printed.attempt == attempt):
                yield text

    async def _is_cut(self, uid: str, attempt: int) -> bool:
        cut: bytes | None = await self._redis.ask("HGET", keys.task(uid), "log_cut")
        return cut is not None and attempt <= int(cut)

    def news(self) -> AsyncIterator[str]:
        """The uid of each task of which there is something new, from now on; as `Connection.heard`."""
        return self._redis.heard(keys.NEWS)


def _entries(answer: object) -> list[Entry] | ContractError:
    if isinstance(answer, Exception):
        return answer if isinstance(answer, ContractError) else Unavailable()
    entries: list[Entry] = []
    for id, fields in cast(list[tuple[bytes, dict[bytes, bytes]]], answer):
        if may_have_more(entries):
            break
        [(attempt, text)] = fields.items()
        entries.append(Entry(id.decode(), Printed(attempt=int(attempt), text=text.decode())))
    return entries
