"""The outbox of webhooks in Redis: which tasks' ends are to be told, and when to try next."""

import time
from dataclasses import dataclass

from core.contract.task import Task
from core.store import keys
from core.store.connection import Connection, script
from core.store.tasks import Tasks


@dataclass(frozen=True)
class Leased:
    """An entry that is the caller's, until that epoch second or until the task ends anew."""

    uid: str
    until: float


@dataclass(frozen=True)
class Entry:
    leased: Leased
    task: Task
    end: str
    """Which of the task's ends, if it was tried again."""
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
        self._settle_lease = script(connection, "settle")
        self._note = script(connection, "webhook")

    async def add(self, uid: str, *, has_just_ended: bool = False) -> None:
        """Of a task that has ended. Twice is as once; one that has just ended, or got its output, is told now, whatever
        came of an end before.
        """
        how = "LT" if has_just_ended else "NX"
        await self._redis.note("ZADD", keys.WEBHOOKS, how, time.time(), uid, kept=True)

    async def due(self, *, limit: int, lease_seconds: float) -> list[Leased]:
        now = time.time()
        until = now + lease_seconds
        uids = await self._lease(keys=[keys.WEBHOOKS], args=[now, until, limit])
        return [Leased(uid.decode(), until) for uid in uids]

    async def entry(self, leased: Leased) -> Entry | None:
        fields = ("finished", "webhook_tries", "webhook_told")
        end, tries, told = await self._redis.call("HMGET", keys.task(leased.uid), *fields)
        task = await self._tasks.get(leased.uid)  # after: of an end that came between the two, the older is noted
        if task is None:
            return None
        return Entry(leased, task, end.decode() if end else "", int(tries or 0), told is not None)

    async def told(self, entry: Entry) -> None:
        if await self._note(keys=[keys.task(entry.leased.uid)], args=["told", entry.end]):
            await self.remove(entry.leased)

    async def again(self, entry: Entry, *, after_seconds: float) -> None:
        if await self._note(keys=[keys.task(entry.leased.uid)], args=["failed", entry.end]):
            await self.postpone(entry.leased, seconds=after_seconds)

    async def postpone(self, leased: Leased, *, seconds: float) -> None:
        await self._settle(leased, time.time() + seconds)

    async def remove(self, leased: Leased) -> None:
        await self._settle(leased, "")

    async def _settle(self, leased: Leased, again_at: float | str) -> None:
        """Unless the task has ended anew, which is due by then."""
        await self._settle_lease(keys=[keys.WEBHOOKS], args=[leased.uid, leased.until, again_at])
