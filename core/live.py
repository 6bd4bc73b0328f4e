"""What goes on with a task, told to whoever listens: how it stands, how far it is, and what its container prints.

Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html). An event's id is the last entry of
the log that was told, so a listener that comes back goes on from there; how the task stands is told anew.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from pydantic import BaseModel

from core.bells import Bells
from core.contract.errors import ContractError, TaskNotFound, Unavailable
from core.contract.status import TaskStatus
from core.contract.task import State, Task
from core.dispatch import Dispatch
from core.gathering import Gathering
from core.store.logs import BEGINNING, Entry, may_have_more

HEARTBEAT_SECONDS: Final = 15.0
"""A listener that hears nothing for so long hears that somebody is there; who has gone is noticed then."""

POSITION_SECONDS: Final = 5.0
LOOKS_PER_SECOND: Final = 100.0
"""How often a task that waits is asked for, whose position changes without a word; of very many each less often."""

ASKED_AT_ONCE: Final = 50
PIECE_BYTES: Final = 2**16
"""A listener that doesn't read has at most so many on their way."""

HEARTBEAT: Final = b":\n\n"

_ID: Final = re.compile(r"(\d{1,19}-\d{1,19})(?:\.(\d{1,19}))?")


@dataclass(frozen=True)
class Place:
    """How far a listener has come: what the id of its last event says."""

    entry: str = BEGINNING
    """Of the log."""
    end: str | None = None
    """That of the task which it was told: one that is tried again has another one."""

    @classmethod
    def of(cls, id: str) -> "Place":
        """One that isn't ours is the beginning."""
        return cls(found[1], found[2]) if (found := _ID.fullmatch(id)) else cls()

    def __str__(self) -> str:
        return f"{self.entry}.{self.end}" if self.end else self.entry


@dataclass(frozen=True)
class _Look:
    status: TaskStatus
    entries: Sequence[Entry]
    """Of the log, as it was a moment later: what was printed before an end is here when the end is."""


class Live:
    """Any number may listen to any task; while nothing happens they cost next to nothing."""

    def __init__(self, dispatch: Dispatch) -> None:
        self.news = Bells()
        """Rung when there is anything new of a task. Whoever makes this lets them listen."""
        self._dispatch = dispatch
        self._looks = Gathering(self._look_at, at_once=ASKED_AT_ONCE)

    async def has_told_all(self, uid: str, place: Place) -> bool:
        """Whoever has come so far knows how the task has ended. Raises TaskNotFound."""
        status = (await self._look(uid, place.entry)).status
        return status.state.is_terminal and place.end == _end_of(status)

    async def events(self, uid: str, place: Place) -> AsyncGenerator[bytes, None]:
        """From there on until the task has ended, which is told last, or was deleted. Or until the server ends: then
        who has heard of no end may listen again.
        """
        now = asyncio.get_running_loop().time
        said_at = now()
        teller = _Teller(place.entry)
        with self.news.bell(uid) as rung:
            while not teller.is_done and not self.news.is_closed:
                try:
                    with suppress(Unavailable):  # for a moment, or it is told by heartbeats that somebody is here
                        for piece in _pieces(teller.events(await self._look(uid, teller.entry))):
                            yield piece
                            said_at = now()
                except TaskNotFound:
                    return
                if now() - said_at >= HEARTBEAT_SECONDS:
                    yield HEARTBEAT
                    said_at = now()
                await rung(self._patience_seconds(teller))

    def _patience_seconds(self, teller: "_Teller") -> float:
        """After so long there may be more to tell, though nothing rings."""
        if teller.is_done or teller.has_more:
            return 0
        if teller.is_pending:
            return max(POSITION_SECONDS, self.news.tasks / LOOKS_PER_SECOND)
        return HEARTBEAT_SECONDS

    async def _look(self, uid: str, entry: str) -> _Look:
        look = await self._looks.ask((uid, entry))
        if isinstance(look, ContractError):
            raise look
        return look

    async def _look_at(self, places: Sequence[tuple[str, str]]) -> list[_Look | ContractError]:
        """Many listen to the same: each task and each entry is asked for once."""
        store = self._dispatch.store
        uids, distinct = list(dict.fromkeys(uid for uid, _ in places)), list(dict.fromkeys(places))
        tasks = dict(zip(uids, await store.tasks.each(uids), strict=True))
        entries = dict(zip(distinct, await store.logs.after(distinct), strict=True))
        found = await self._dispatch.statuses([task for task in tasks.values() if isinstance(task, Task)])
        statuses = {status.uid: status for status in found}
        errors = {uid: task or TaskNotFound() for uid, task in tasks.items() if not isinstance(task, Task)}
        return [_look(statuses.get(uid) or errors[uid], entries[uid, entry]) for uid, entry in places]


@dataclass
class _Teller:
    """What one listener hasn't been told yet, as events."""

    entry: str
    """Of the log, the last one that was told."""
    has_more: bool = False
    """There may be more in the log than was read at once."""
    is_done: bool = False
    _shown: TaskStatus | None = None

    @property
    def is_pending(self) -> bool:
        return self._shown is not None and self._shown.state is State.PENDING

    def events(self, look: _Look) -> Iterator[bytes]:
        status, before = look.status, self._shown
        is_over = status.state.is_terminal
        if not is_over and (before is None or _standing(before) != _standing(status)):
            yield _event("state", self.entry, status)
        if status.progress and (before is None or before.progress != status.progress):
            yield _event("progress", self.entry, status.progress)
        for entry in look.entries:
            self.entry = entry.id
            yield _event("log", self.entry, entry.printed)
        self._shown, self.has_more = status, may_have_more(look.entries)
        if is_over and not self.has_more:
            yield _event("state", str(Place(self.entry, _end_of(status))), status)
            self.is_done = True


def _look(status: TaskStatus | ContractError, entries: Sequence[Entry] | ContractError) -> _Look | ContractError:
    if isinstance(status, ContractError):
        return status
    return entries if isinstance(entries, ContractError) else _Look(status, entries)


def _standing(status: TaskStatus) -> TaskStatus:
    """Progress has events of its own."""
    return status.model_copy(update={"progress": None})


def _end_of(status: TaskStatus) -> str:
    """Microseconds: a task that is tried again ends another time."""
    return str(int((status.finished or status.created).timestamp() * 1e6))


def _event(name: str, id: str, data: BaseModel) -> bytes:
    return f"event: {name}\nid: {id}\ndata: {data.model_dump_json()}\n\n".encode()


def _pieces(events: Iterable[bytes]) -> Iterator[bytes]:
    """Small events together, a large one in parts. The next is made when the ones before it are taken."""
    piece = b""
    for event in events:
        piece += event
        while len(piece) > PIECE_BYTES:
            yield piece[:PIECE_BYTES]
            piece = piece[PIECE_BYTES:]
    if piece:
        yield piece
