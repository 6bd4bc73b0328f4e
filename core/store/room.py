"""Room in Redis's memory: given to a zip before its bytes are read, and counted for all cores in one place.

Memory is the disk. A part of it is held back (`reserve_percent`) for the outputs of tasks that run and for bookkeeping:
what wants to come in is refused before it takes from that, so that a task which was accepted can also end.
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, cast

from core import metrics
from core.contract.errors import ContractError, StoreFull, TooLarge, Unavailable
from core.store import keys
from core.store.connection import Connection, script, soon

TICKET_SECONDS: Final = 10.0
"""How long room is held for an upload to begin. One that begins later finds what there is then."""

ALIVE_SECONDS: Final = 120.0
"""An upload that didn't say for so long how far it is counts no more: its core died."""

TOLD_BYTES: Final = 8 * 2**20
"""An upload says how far it is in these steps; one of unknown length asks for room in these steps."""


@dataclass(frozen=True)
class Announced:
    """What a request says of its body: the `size` in bytes, if it knows, and the admission it got, if it asked."""

    size: int | None = None
    ticket: str | None = None


class Reservation:
    """Room that an upload was given and hasn't filled yet."""

    def __init__(self, room: "Room", announced: Announced, *, seconds: float = ALIVE_SECONDS) -> None:
        """`seconds`: how long it counts after each word of the upload."""
        self.ticket = announced.ticket or secrets.token_hex(16)
        self._room = room
        self._seconds = seconds
        self._is_known = announced.size is not None
        self._left = TOLD_BYTES if announced.size is None else announced.size
        self._told = self._left
        self._told_at = time.monotonic()
        self._is_kept = False

    async def begin(self) -> None:
        async with soon():
            await self._room.admit(self.ticket, self._left, seconds=self._seconds, may_hold=True)

    async def keep(self) -> None:
        """Before the first whole chunk is stored: until then it was only announced, and more may have been than there
        is room for. Raises StoreFull; who was let in has its room to the end.
        """
        if not self._is_kept:
            await self._room.begin(self.ticket, self._left, seconds=self._seconds)
            self._is_kept = True

    async def arrived(self, size: int) -> None:
        """So many bytes more are stored. StoreFull: for the next ones of an unknown length, or for those that
        were announced, there is no room any more.
        """
        self._left = max(self._left - size, 0)
        if not self._left and not self._is_known:
            self._left = self._told = TOLD_BYTES
            await self._room.admit(self.ticket, self._left, seconds=self._seconds, may_hold=False)
        elif self._told - self._left >= TOLD_BYTES or time.monotonic() - self._told_at >= self._seconds / 4:
            await self.tell()

    async def tell(self) -> None:
        """Says how far the upload is, and that it lives. Raises as `Room.arrive`."""
        await self._room.arrive(self.ticket, self._left, seconds=self._seconds)
        self._told, self._told_at = self._left, time.monotonic()


@dataclass(frozen=True)
class Memory:
    """Of Redis, in bytes. Without a maxmemory the limit is what its host has."""

    used: int
    limit: int

    @classmethod
    def of(cls, shards: Sequence[Mapping[str, Any]]) -> "Memory":
        """From each shard's INFO: as if all were as full as the fullest and as small as the smallest, for zips spread
        evenly.
        """
        used = max(shard["used_memory"] - shard.get("mem_not_counted_for_evict", 0) for shard in shards)
        limit = min(shard["maxmemory"] or shard["total_system_memory"] for shard in shards)
        return cls(used=len(shards) * used, limit=len(shards) * limit)

    @property
    def share(self) -> float:
        return self.used / self.limit


class Room:
    """The figures are those of the very moment: one Redis's are asked for by the script, a cluster's before it."""

    def __init__(self, connection: Connection, reserve_percent: float) -> None:
        self._redis = connection
        self.reserve_percent = reserve_percent
        self._admit = script(connection, "room", "admit")
        self._begin = script(connection, "room", "begin")
        self._arrive = script(connection, "room", "arrive")
        self._overdue = script(connection, "overdue")

    async def ticket(self, size: int | None) -> str:
        """Holds room for an upload that is about to come. Raises StoreFull."""
        ticket = secrets.token_hex(16)
        async with soon():
            await self.admit(ticket, TOLD_BYTES if size is None else size, seconds=TICKET_SECONDS, may_hold=False)
        return ticket

    @asynccontextmanager
    async def reserved(self, announced: Announced) -> AsyncIterator[Reservation]:
        """Raises StoreFull at once, for an unknown length also later; gives back what wasn't filled."""
        reservation = Reservation(self, announced)
        try:
            await reservation.begin()
            yield reservation
        finally:
            with suppress(Unavailable):  # it runs out by itself
                await asyncio.shield(self.give_back(reservation.ticket))

    async def give_back(self, ticket: str) -> None:
        async with soon():
            await self._redis.call("HDEL", keys.INCOMING, ticket)

    async def admit(self, ticket: str, size: int, *, seconds: float, may_hold: bool) -> None:
        """Room for `size` bytes in place of what the ticket has; `may_hold`: unless that is as much already. Raises
        StoreFull or, when it would never fit, TooLarge.
        """
        args: list[str | float] = [ticket, size, seconds, self.reserve_percent, int(may_hold), *await self._memory()]
        answer = await self._admit(keys=[keys.INCOMING], args=args)
        if answer != 1:
            raise self.refusal(answer)

    def refusal(self, answer: int) -> ContractError:
        """Of a script that asked whether there is room: there was none."""
        metrics.UPLOADS_REFUSED.inc()
        return StoreFull() if answer == 0 else TooLarge("The zip is larger than all the memory that there is for zips")

    async def _memory(self) -> Sequence[int]:
        """What is used and may be of a cluster, which no script can ask for."""
        if not self._redis.is_spread:
            return ()
        answers = await self._redis.everywhere(("INFO", "memory"))
        for answer in answers:
            if isinstance(answer, ContractError):
                raise answer
        memory = Memory.of([info for [info] in cast(list[list[dict[str, Any]]], answers)])
        return memory.used, memory.limit

    async def begin(self, ticket: str, left: int, *, seconds: float) -> None:
        """What an admitted upload has still to send has its room from now on. Raises as `admit`."""
        args: list[str | float] = [ticket, left, seconds, self.reserve_percent, *await self._memory()]
        answer = await self._begin(keys=[keys.INCOMING], args=args)
        if answer != 1:
            raise self.refusal(answer)

    async def arrive(self, ticket: str, left: int, *, seconds: float) -> None:
        """An admitted upload has so many bytes still to send, and counts for so long from now. Raises StoreFull when
        others have taken what it had fitted into.
        """
        args: list[str | float] = [ticket, left, seconds, self.reserve_percent, *await self._memory()]
        answer = await self._arrive(keys=[keys.INCOMING], args=args)
        if left and answer != 1:
            raise self.refusal(answer)

    async def take_back(self) -> int:
        """From uploads that didn't come, or whose core died; they count no more already. How many there were."""
        return int(await self._overdue(keys=[keys.INCOMING]))
