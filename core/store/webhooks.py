"""The outbox of webhooks in Redis: which tasks' ends are to be told, and when to try next."""

import time
from dataclasses import dataclass

from core.contract.task import Task
from core.store import keys
from core.store.connection import Connection, script
from core.store.tasks import Tasks


@dataclass(frozen=True)
class Entry:
    task: Task
    tries: int
    """That failed."""
    is_told: bool
    """It was told, or given up."""


class Webhooks:
    """An entry without a task, or of one that was told, does no harm: whoever meets it removes it."""

    def __init__(self, connection: Connection, tasks: Tasks) -> None:
        self._redis = connection
        self._tasks = tasks
        self._lease = script(connection, "lease")
        self._note = script(connection, "webhook")

    async def add(self, uid: str) -> None:
        """Of a task that has ended. Twice is as once."""
        await self._redis.note("ZADD", keys.WEBHOOKS, "NX", time.time(), uid, kept=True)

    async def due(self, *, limit: int, lease_seconds: float) -> list[str]:
        """The caller has them for so long."""
        now = time.time()
        uids = await self._lease(keys=[keys.WEBHOOKS], args=[now, now + lease_seconds, limit])
        return [uid.decode() for uid in uids]

    async def entry(self, uid: str) -> Entry | None:
        task = await self._tasks.get(uid)
        if task is None:
            return None
        tries, told = await self._redis.call("HMGET", keys.task(uid), "webhook_tries", "webhook_told")
        return Entry(task, int(tries or 0), told is not None)

    async def told(self, uid: str) -> None:
        await self._note(keys=[keys.task(uid)], args=["told"])
        await self.remove(uid)

    async def again(self, uid: str, *, after_seconds: float) -> None:
        await self._note(keys=[keys.task(uid)], args=["failed"])
        await self._redis.note("ZADD", keys.WEBHOOKS, "XX", time.time() + after_seconds, uid)

    async def remove(self, uid: str) -> None:
        await self._redis.call("ZREM", keys.WEBHOOKS, uid)
