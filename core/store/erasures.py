"""What is being deleted, noted before it goes: whatever comes between, its end can be shown."""

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Self

from pydantic import BaseModel, ConfigDict

from core.contract import codec
from core.contract.model import Model
from core.contract.task import Blob, Task
from core.store import keys
from core.store.blobs import REMOVED_AT_ONCE, chunk_keys
from core.store.connection import Command, Connection
from core.store.waiting import waiting_key

ALIVE_SECONDS: Final = 5.0
"""Whoever deletes something has done so by then, or died over it."""


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
    def chunk_keys(self) -> Sequence[str]:
        return [key for blob in self.blobs for key in chunk_keys(blob)]

    @property
    def bytes(self) -> int:
        return sum(blob.size for blob in self.blobs)


class Erasures:
    def __init__(self, connection: Connection) -> None:
        self._redis = connection

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
        """Those whose beginner is done, one way or the other."""
        records = await self._redis.call("HVALS", keys.ERASURES)
        erasures = [codec.unpack(Erasure, packed) for packed in records]
        return [erasure for erasure in erasures if erasure.begun < time.time() - ALIVE_SECONDS]

    async def left(self, erasure: Erasure) -> list[str]:
        """The keys that have something of it still, chunks last. A task that was posted anew under its uid has what it
        has by right: then only the zips are looked for.
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
        chunks = erasure.chunk_keys
        for first in range(0, 0 if left else len(chunks), REMOVED_AT_ONCE):
            left += await self._there({key: ("EXISTS", key) for key in chunks[first : first + REMOVED_AT_ONCE]})
        return left

    async def _there(self, questions: dict[str, Command]) -> list[str]:
        answers = await self._redis.call_all(questions.values())
        return [key for key, answer in zip(questions, answers, strict=True) if answer]
