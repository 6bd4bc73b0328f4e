"""Which tasks wait, in the order in which they are rung: to say how many are before one, and for how long they wait.

They only follow what the tasks themselves say: what a crash left in them, or out of them, the sweep puts right.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

from core.contract.needs import ANY, Need
from core.contract.options import Priority
from core.contract.queues import IN_TURN
from core.contract.task import State, Task
from core.store import keys
from core.store.connection import Command, Connection

MEND_SECONDS: Final = 10.0
HEAD: Final = 20
"""So many of those that have waited for the longest are looked at, whether they wait still."""


def waiting_key(priority: Priority, need: Need) -> str:
    return keys.waiting(priority, need.name)


def _of(task: Task) -> str:
    return waiting_key(task.options.priority, task.need)


class Waiting:
    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self._mended = 0.0

    async def enter(self, tasks: Iterable[Task]) -> None:
        """Tasks that are pending. One that is there keeps its place."""
        await self._redis.note_all(
            ("ZADD", _of(task), "NX", (task.datetime_queued or task.datetime_created).timestamp(), task.uid)
            for task in tasks
        )

    async def leave(self, task: Task) -> None:
        await self._redis.call("ZREM", _of(task), task.uid)

    async def positions(self, tasks: Sequence[Task]) -> list[int | None]:
        """How many are before each of them; None where it isn't known."""
        commands: list[Command] = []
        for task in tasks:
            commands.append(("ZRANK", _of(task), task.uid))
            before = IN_TURN[: IN_TURN.index(task.options.priority)]
            commands += [("ZCARD", waiting_key(priority, task.need)) for priority in before]
        answers = iter(await self._redis.call_each(commands))
        positions: list[int | None] = []
        for task in tasks:
            counts = [next(answers) for _ in range(IN_TURN.index(task.options.priority) + 1)]
            positions.append(sum(counts) if all(isinstance(count, int) for count in counts) else None)
        return positions

    async def figures(self, needs: Iterable[Need]) -> tuple[int, float]:
        """How many tasks wait, of these needs, and for how many seconds the first of them has."""
        names = _keys(needs)
        counts = await self._redis.call_all(("ZCARD", name) for name in names)
        firsts = await self._redis.call_all(("ZRANGE", name, 0, 0, "WITHSCORES") for name in names)
        since = min((float(since) for first in firsts for _, since in first), default=None)
        return sum(counts), 0.0 if since is None else max(0.0, time.time() - since)

    async def mend(self, needs: Callable[[], Awaitable[Iterable[Need]]]) -> None:
        """Takes out what stands at the head and waits no more, every now and then."""
        if time.monotonic() < self._mended + MEND_SECONDS:
            return
        self._mended = time.monotonic()
        names = _keys(await needs())
        heads = await self._redis.call_all(("ZRANGE", name, 0, HEAD - 1) for name in names)
        entries = [(name, uid.decode()) for name, head in zip(names, heads, strict=True) for uid in head]
        states = await self._redis.call_all(("HGET", keys.task(uid), "state") for _, uid in entries)
        gone: list[Command] = [
            ("ZREM", name, uid)
            for (name, uid), state in zip(entries, states, strict=True)
            if state != State.PENDING.encode()
        ]
        await self._redis.call_all(gone)


def _keys(needs: Iterable[Need]) -> list[str]:
    return [
        keys.waiting(priority, name) for name in sorted({ANY.name, *(n.name for n in needs)}) for priority in Priority
    ]
