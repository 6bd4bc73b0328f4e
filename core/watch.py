"""RabbitMQ as the sweep sees it: whose message is lost, and when to look again at a task that waits.

A message that was lost shows in its queue, which was found empty since (docs/decisions/0005). So the tasks of a long
queue needn't be looked at soon, if all of them are as soon as it was empty (docs/decisions/0016).
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from core.amqp import Depth
from core.contract.errors import Unavailable
from core.contract.task import Task
from core.dispatch import Dispatch
from core.metrics import repaired
from core.observe import on_behalf_of
from core.store.tasks import LOOK_SECONDS, Look

log = structlog.get_logger()

LOOKS_PER_SECOND: Final = 100.0
LONGEST_SECONDS: Final = 1800.0

RETRY_SECONDS: Final = 2.0
EMPTY_MARGIN_SECONDS: Final = 2.0
"""Between a message and its claim the queue is empty and the task pending still."""


@dataclass(frozen=True)
class _Sign:
    """That a look is due which was put off: the queue was found empty after that epoch second, or, if that is None, the
    broker answers again.
    """

    queue: str
    empty_after: float | None


@dataclass(frozen=True)
class _Ring:
    uid: str
    queue: str
    why: str
    request: str


class Watch:
    """One core's, as long as the sweep is its turn. It doesn't know what others put off, and begins with all of it."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._broker = dispatch.broker
        self._depths: dict[str, Depth] = {}
        self._asked: set[str] = set()
        self._is_silent = False
        main = self._broker.settings.unfinished_job_queue
        self._put_off = {_Sign(main, None): time.time() + LONGEST_SECONDS}
        """Until when, at the latest."""

    async def begin(self) -> None:
        """A sweep: what was put off is due now where there is a sign, for which the queues are asked. Silence lasts for
        a sweep.
        """
        self._asked.clear()
        self._is_silent = False
        try:
            for queue in {sign.queue for sign in self._put_off}:
                await self._depth(queue)
        except Unavailable:
            self._is_silent = True
            return
        seen = [sign for sign in self._put_off if self._is_seen(sign)]
        if seen:
            await self._dispatch.store.tasks.bring_forward(until=max(self._put_off[sign] for sign in seen))
        now = time.time()
        self._put_off = {sign: until for sign, until in self._put_off.items() if until > now and sign not in seen}

    def _is_seen(self, sign: _Sign) -> bool:
        return sign.empty_after is None or self._broker.empty_at(sign.queue) > sign.empty_after

    async def ring_if_silent(self, looks: Sequence[Look]) -> dict[str, float]:
        """The epoch second at which to look again at each of these tasks, which wait. A second message for a task does
        no harm.
        """
        self._asked.clear()
        rings, again = [], {}
        for look in looks:
            uid, queue = look.task.uid, self._queue(look)
            try:
                ring = await self._ring(look, queue)
            except Unavailable:
                self._is_silent = True
                again[uid] = self._next_look(queue, RETRY_SECONDS)
                continue
            if ring:
                rings.append(ring)
            again[uid] = self._next_look(queue, LOOK_SECONDS)
        rung = [ring for ring in await asyncio.gather(*map(self._publish, rings)) if ring]
        await asyncio.gather(*(self._dispatch.store.tasks.ring(ring.uid) for ring in rung))
        for ring in rung:
            repaired(ring.why, task=ring.uid, request=ring.request)
        for ring in set(rings).difference(rung):
            again[ring.uid] = self._next_look(ring.queue, RETRY_SECONDS)
        self._is_silent |= bool(rings) and not rung
        return again

    async def announce(self, task: Task) -> bool:
        """Whether the end of the task is told."""
        told = not self._is_silent and await self._dispatch.announce(task)
        self._is_silent = not told
        if told:
            repaired("end unannounced", task=task.uid)
        return told

    def _queue(self, look: Look) -> str:
        settings = self._broker.settings
        priority = look.task.options.priority
        return settings.gpu_queue_for(priority) if look.is_bounced else settings.queue_for(look.task.need, priority)

    async def _ring(self, look: Look, queue: str) -> _Ring | None:
        """None: the task can be left to its message."""
        uid, main = look.task.uid, self._broker.settings.unfinished_job_queue
        request = look.task.request_id
        depth = await self._depth(queue)
        if look.rung_at is None:
            return _Ring(uid, queue, "unrung", request)
        if look.rung_at < self._broker.empty_at(queue) - EMPTY_MARGIN_SECONDS:
            return _Ring(uid, queue, "message lost", request)
        if look.is_bounced and not depth.consumers and not (await self._depth(main)).messages:
            # A consumer of version 1 may have the GPU that no agent of ours has, and listens on the main queue alone.
            return _Ring(uid, main, "nobody listens", request)
        return None

    async def _publish(self, ring: _Ring) -> _Ring | None:
        with on_behalf_of(ring.request):
            try:
                await self._broker.publish(ring.queue, ring.uid)
            except Unavailable as error:
                log.warning("task.unrung", task=ring.uid, error=str(error))
                return None
        return ring

    def _next_look(self, queue: str, seconds: float) -> float:
        """After so many seconds, or later, which is noted."""
        sign = _Sign(queue, self._broker.empty_at(queue) if self._broker.is_connected else None)
        if sign.empty_after is None:
            seconds = LOOK_SECONDS
        elif queue in self._depths:
            seconds = max(seconds, min(self._depths[queue].messages / LOOKS_PER_SECOND, LONGEST_SECONDS))
        at = time.time() + seconds
        if seconds > LOOK_SECONDS or sign.empty_after is None:
            self._put_off[sign] = max(self._put_off.get(sign, 0), at)
        return at

    async def _depth(self, queue: str) -> Depth:
        if self._is_silent:
            raise Unavailable
        if queue not in self._asked:
            self._depths[queue] = await self._broker.depth(queue)
            self._asked.add(queue)
        return self._depths[queue]
