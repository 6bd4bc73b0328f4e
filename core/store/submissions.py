"""A small zip and its task in one step: all of it is there, or nothing."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from core.gathering import Gathering
from core.store import keys
from core.store.connection import Connection, script, soon
from core.store.models import Seen
from core.store.room import Room
from core.store.tasks import FIRST_LOOK_SECONDS, Created, NewTask, fields_of
from core.store.waiting import waiting_key

SMALL_BYTES: Final = 64 * 1024
"""Core holds it, and Redis stands still for it. A larger zip comes in chunks (core/store/blobs.py)."""

AT_ONCE: Final = 16
"""So many go to Redis together, which stands still for all of them."""

SUBMIT_SECONDS: Final = 1.1
"""Less than others have, so that what can't be known can still be withdrawn soon."""


@dataclass(frozen=True)
class _Submission:
    new: NewTask
    zip: bytes
    model: Seen


class Submissions:
    """Those that come at the same time make one trip: of a small post, trips are what costs most."""

    def __init__(self, connection: Connection, room: Room) -> None:
        self._redis = connection
        self._room = room
        self._submit = script(connection, "room", "submit", kept=True)
        self._gathered = Gathering(self._submit_all, at_once=AT_ONCE)

    def takes(self, size: int | None) -> bool:
        """Whether a request's body of that size may go this way. In a cluster no server has all the keys."""
        return size is not None and size <= SMALL_BYTES and not self._redis.is_spread

    async def submit(self, new: NewTask, zip: bytes, model: Seen) -> Created | None:
        """None: the model is another one now, and nothing was done. Raises StoreFull and TooLarge, and Unavailable soon
        if it isn't known whether it was done.
        """
        answer = await self._gathered.ask(_Submission(new, zip, model))
        if isinstance(answer, Exception):
            raise answer
        if not isinstance(answer, bytes):
            raise self._room.refusal(answer)
        return None if answer == b"changed" else Created(answer.decode())

    async def _submit_all(self, submissions: Sequence[_Submission]) -> Sequence[Any]:
        now = time.time()
        names = [keys.DUE, keys.TASKS, keys.INCOMING, keys.MODELS]
        args: list[str | bytes | float] = [self._room.reserve_percent, now + FIRST_LOOK_SECONDS, now]
        for its in submissions:
            new, fields = its.new, fields_of(its.new)
            names += [keys.task(new.uid), keys.blob(new.input.id), keys.chunk(new.input.id, 0)]
            names.append(waiting_key(new.options.priority, new.need))
            args += [new.fingerprint, new.input.id, its.zip, new.model_human_readable_id, its.model.packed]
            args += [len(fields), *fields]
        async with soon(SUBMIT_SECONDS):
            answers: Sequence[Any] = await self._submit(keys=names, args=args)
        return answers
