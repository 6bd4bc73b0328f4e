"""A small zip and its task in one step: all of it is there, or nothing."""

import time
from typing import Final

from core.store import keys
from core.store.connection import Connection, script
from core.store.models import Seen
from core.store.room import Room
from core.store.tasks import FIRST_LOOK_SECONDS, Created, NewTask, fields_of
from core.store.waiting import waiting_key

SMALL_BYTES: Final = 64 * 1024
"""Core holds it, and Redis stands still for it. A larger zip comes in chunks (core/store/blobs.py)."""


class Submissions:
    def __init__(self, connection: Connection, room: Room) -> None:
        self._redis = connection
        self._room = room
        self._submit = script(connection, "room", "submit", kept=True)

    def takes(self, size: int | None) -> bool:
        """Whether a request's body of that size may go this way. In a cluster no server has all the keys."""
        return size is not None and size <= SMALL_BYTES and not self._redis.is_spread

    async def submit(self, new: NewTask, zip: bytes, model: Seen) -> Created | None:
        """None: the model is another one now, and nothing was done. Raises StoreFull and TooLarge."""
        names = [keys.task(new.uid), keys.blob(new.input.id), keys.chunk(new.input.id, 0)]
        names += [keys.DUE, keys.TASKS, keys.INCOMING, keys.MODELS]
        names.append(waiting_key(new.options.priority, new.need))
        now = time.time()
        args: list[str | bytes | float] = [
            new.fingerprint,
            new.input.id,
            zip,
            self._room.reserve_percent,
            now + FIRST_LOOK_SECONDS,
            now,
        ]
        args += [new.model_human_readable_id, model.packed, *fields_of(new)]
        answer = await self._submit(keys=names, args=args)
        if not isinstance(answer, bytes):
            raise self._room.refusal(answer)
        return None if answer == b"changed" else Created(answer.decode())
