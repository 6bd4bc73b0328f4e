"""A slot's next task, made ready while the container of the one before runs (docs/decisions/0015)."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from core.amqp import Broker, Message
from core.contract.errors import ContractError, TaskNotFound, TransitionRefused
from core.contract.http import STAGED_SECONDS, Claim
from core.contract.needs import ANY, Need
from core.contract.task import UID
from core.observe import on_behalf_of
from gpu_agent import metrics
from gpu_agent.cancellation import ended, to_its_end, unless
from gpu_agent.host import Host
from gpu_agent.job import Job
from gpu_agent.pool import Hold, Pool, Slot

log = structlog.get_logger()

BUSY: Final = -1
"""The priority with which a busy slot listens: an idle one anywhere comes first, version 1's consumers too."""


@dataclass(frozen=True)
class Staged:
    """A job that isn't claimed yet, and the message that rang for it."""

    message: Message
    serves: Need
    """That of the tasks in the message's queue."""
    job: Job
    running: asyncio.Task[None]

    def is_as(self, claim: Claim) -> bool:
        """What was made ready is what was claimed, and was not in vain."""
        return not self.running.done() and (self.job.task.attempt, self.job.model) == (claim.task.attempt, claim.model)


@dataclass(frozen=True)
class Stage:
    """Of one slot, which the hold has."""

    host: Host
    broker: Broker
    pool: Pool
    hold: Hold
    queues: Callable[[Slot], Mapping[str, Need]]
    """Where a slot listens, and what the tasks there need."""
    stop: asyncio.Event
    """The agent takes no more tasks."""

    @asynccontextmanager
    async def after(self, job: Job, *, earlier: asyncio.Task[None] | None) -> AsyncIterator[Staged | None]:
        """Waits until the job's GPUs are free; what is staged then is to be claimed. What isn't, or waits for longer
        than it may, goes back, and nothing of it stays.

        Nothing is staged while an `earlier` attempt isn't over: outputs that core takes slowly mustn't pile up here.
        """
        stops = (job.freed, self.stop)
        async with AsyncExitStack() as stack:
            staged = await unless(stops, self._next(stack, job, earlier))
            if staged:
                await unless(stops, asyncio.sleep(STAGED_SECONDS))
            if not job.freed.is_set():
                await stack.aclose()
                staged = None
                await job.freed.wait()
            yield staged if self._may_go_on() else None

    def _may_go_on(self) -> bool:
        """With this slot, to another task."""
        return not self.stop.is_set() and self.pool.spares(self.hold) and not self.host.problems()

    async def _next(self, stack: AsyncExitStack, job: Job, earlier: asyncio.Task[None] | None) -> Staged | None:
        """Once for each job, and of a model that is known to run for long only when the end is near: what goes back is
        redelivered first, so whoever took it again at once would never stop.
        """
        await job.ready.wait()
        near_end = time.monotonic() + self.host.seconds.get(job.model.uid, 0.0) - STAGED_SECONDS / 2
        if earlier:
            await asyncio.wait({earlier})
        await asyncio.sleep(max(0.0, near_end - time.monotonic()))
        if len(self.hold.slots) > 1 or not self._may_go_on():
            return None
        [slot] = self.hold.slots
        queues = self.queues(slot)
        message = await stack.enter_async_context(self.broker.next_message(list(queues), priority=BUSY))
        with on_behalf_of(message.request, task=message.uid):
            following = await self._job(message)
        if following is None:
            return None
        with following.told(slot):
            log.info("task.staged")
            running = asyncio.create_task(following.run(self.hold.gpus), name=f"staged {following.key}")
        stack.push_async_callback(_dropped, following, running)
        stack.push_async_callback(_returned, following, message)
        return Staged(message, queues.get(message.queue, ANY), following, running)

    async def _job(self, message: Message) -> Job | None:
        """None: the message is settled. What can't be staged is met again by a slot that has nothing else to do."""
        if not await is_readable(message):
            return None
        try:
            shown = await self.host.core.stage(message.uid)
        except ContractError as refusal:
            log.info("task.unstageable", why=str(refusal))
            # Of a redelivered one only the claim can tell (ClaimRequest.redelivered).
            is_over = isinstance(refusal, TaskNotFound | TransitionRefused) and not message.redelivered
            await (message.ack() if is_over else message.give_back())
            return None
        if not self.hold.has(shown.task.need) or not self._may_go_on():
            await message.give_back()
            return None
        next_attempt = shown.task.model_copy(update={"attempt": shown.task.attempt + 1})
        return Job(next_attempt, shown.model, self.host)


async def is_readable(message: Message) -> bool:
    """False: it can't be a task's, and was rejected."""
    if UID.fullmatch(message.uid):
        return True
    metrics.UNREADABLE.inc()
    log.warning("message.unreadable", queue=message.queue)
    await message.reject()
    return False


async def _returned(job: Job, message: Message) -> None:
    """At once, and not when what was made ready is gone: the sweep would take the message for lost."""
    if not job.claimed.is_set() and not message.is_settled:
        await message.give_back()


async def _dropped(job: Job, running: asyncio.Task[None]) -> None:
    if not job.claimed.is_set():
        running.cancel()
        await to_its_end(ended(running))
        error = None if running.cancelled() else running.exception()
        with on_behalf_of(job.task.request_id, task=job.task.uid):
            log.info("task.unstaged", error=error and str(error))
