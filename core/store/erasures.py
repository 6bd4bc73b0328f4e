"""What is being deleted, noted before it goes: whatever comes between, its end can be shown."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Self

import structlog
from pydantic import BaseModel, ConfigDict

from core.contract import codec
from core.contract.model import Model
from core.contract.task import Blob, Task
from core.store import keys
from core.store.blobs import REMOVED_AT_ONCE, chunk_keys
from core.store.connection import Command, Connection
from core.store.waiting import waiting_key

log = structlog.get_logger()

ALIVE_SECONDS: Final = 5.0
"""Whoever deletes something has done so by then, or most likely died over it."""

GIVEN_UP_SECONDS: Final = 300.0
"""What is there still after so long is taken for something that stays: a core that stood still meanwhile is dead."""

LOOKED_AT_ONCE: Final = 1000


class Erasure(BaseModel):
    """A task or a model on its way out, and how much there was of it."""

    model_config = ConfigDict(frozen=True)

    uid: str
    of: str
    """`task` or `model`."""
    blobs: tuple[Blob, ...]
    log_entries: int = 0
    listed: tuple[str, ...] = ()
    """Indexes that may have a task, beside those of all tasks."""
    created: datetime | None = None
    """When the task was."""
    begun: float
    """Epoch second."""

    @classmethod
    def of_task(cls, task: Task, *, log_entries: int) -> Self:
        return cls(
            uid=task.uid,
            of="task",
            blobs=tuple(blob for blob in (task.input, task.output) if blob),
            log_entries=log_entries,
            listed=(
                waiting_key(task.options.priority, task.need),
                *([keys.living(task.owner)] if task.owner else []),
            ),
            created=task.datetime_created,
            begun=time.time(),
        )

    @classmethod
    def of_model(cls, model: Model) -> Self:
        return cls(uid=model.uid, of="model", blobs=(model.zip,) if model.zip else (), begun=time.time())

    def is_of(self, task: Task) -> bool:
        """It is the very task, and not one that was posted anew under its uid."""
        return task.datetime_created == self.created

    @property
    def is_given_up(self) -> bool:
        return self.begun < time.time() - GIVEN_UP_SECONDS

    @property
    def chunk_keys(self) -> Sequence[str]:
        return [key for blob in self.blobs for key in chunk_keys(blob)]

    @property
    def bytes(self) -> int:
        return sum(blob.size for blob in self.blobs)


class Erasures:
    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self._unreadable: set[bytes] = set()

    async def begin(self, erasure: Erasure) -> None:
        """Of one uid the last counts."""
        await self._redis.note("HSET", keys.ERASURES, erasure.uid, codec.pack(erasure), kept=True)

    async def unlist(self, erasure: Erasure) -> None:
        """Takes a task that is gone off the indexes that others than the sweep read."""
        await self._redis.call_all(("ZREM", index, erasure.uid) for index in (keys.WEBHOOKS, *erasure.listed))

    async def end(self, erasure: Erasure) -> None:
        """It is shown, or wasn't to be."""
        await self._redis.call("HDEL", keys.ERASURES, erasure.uid)

    async def unshown(self) -> list[Erasure]:
        """Those whose beginner is done, one way or the other. One that can't be read is a later version's to show."""
        erasures = []
        for uid, packed in (await self._redis.call("HGETALL", keys.ERASURES)).items():
            try:
                erasures.append(codec.unpack(Erasure, packed))
            except ValueError as error:
                if uid not in self._unreadable:
                    self._unreadable.add(uid)
                    log.error("erasure.unreadable", uid=uid.decode(errors="replace"), error=repr(error))
        return [erasure for erasure in erasures if erasure.begun < time.time() - ALIVE_SECONDS]

    async def left(self, erasure: Erasure) -> list[str]:
        """The keys that have something of it still, chunks last, and those of zips that the task doesn't name: an
        input that has served, an output on its way. A task that was posted anew under its uid has what it has by
        right: then only the zips are looked for that the former one named.
        """
        uid = erasure.uid
        of_task: dict[str, Command] = {}
        if erasure.of == "task":
            of_task = {key: ("EXISTS", key) for key in (keys.task(uid), keys.log(uid), keys.upload(uid))}
            of_task |= {key: ("ZSCORE", key, uid) for key in (keys.TASKS, keys.DUE, keys.WEBHOOKS, *erasure.listed)}
        zips: dict[str, Command] = {key: ("EXISTS", key) for key in (keys.blob(blob.id) for blob in erasure.blobs)}
        left = await self._there(of_task | zips)
        if keys.task(uid) in left:
            left = [key for key in left if key in zips]
        elif not left:
            left = await self._loose_of(uid)
        chunks = erasure.chunk_keys
        for first in range(0, 0 if left else len(chunks), REMOVED_AT_ONCE):
            left += await self._there({key: ("EXISTS", key) for key in chunks[first : first + REMOVED_AT_ONCE]})
        return left

    async def _loose_of(self, owner: str) -> list[str]:
        """Zips that are written for it just now, or removed: each is in that index before its first byte is stored."""
        found: list[str] = []
        cursor = None
        while cursor != 0:
            cursor, entries = await self._redis.call("ZSCAN", keys.LOOSE, cursor or 0, "COUNT", LOOKED_AT_ONCE)
            names = [keys.blob(blob_id.decode()) for blob_id, _ in entries]
            owners = await self._redis.call_all(("HGET", name, "owner") for name in names)
            found += [name for name, its in zip(names, owners, strict=True) if its == owner.encode()]
        return found

    async def _there(self, questions: dict[str, Command]) -> list[str]:
        answers = await self._redis.call_all(questions.values())
        return [key for key, answer in zip(questions, answers, strict=True) if answer]
