"""An attempt: a job that holds its task, and the lease that lasts as long as it runs."""

import asyncio
from dataclasses import dataclass
from typing import Final

import structlog

from core.client import CoreClient
from core.contract.errors import ContractError, TaskNotFound, TransitionRefused, Unauthorized, Unavailable
from core.contract.task import Task
from gpu_agent import metrics
from gpu_agent.host import Host
from gpu_agent.job import HostFailed, Job
from gpu_agent.pool import Hold, Pool, Unserved

log = structlog.get_logger()

RENEWALS_PER_LEASE: Final = 6
TRIES_PER_LEASE: Final = 3
"""A core that vanished mustn't cost the lease: a try that hangs leaves time for another one, at another core."""


@dataclass
class Attempt:
    """Runs the job, which is claimed, with what the hold has or can be given for it, and renews the lease; whichever
    ends first ends the other.
    """

    job: Job
    lease_seconds: float
    host: Host
    pool: Pool
    hold: Hold
    running: asyncio.Task[None] | None = None
    """The job, where it was staged."""

    async def run(self) -> None:
        """Raises Unauthorized when core refuses the agent's token. Cancelled, it hands the task back."""
        job, host = self.job, self.host
        with job.told(self.hold.slots[0]):
            running = self.running or asyncio.create_task(self._run(), name=job.key)
            renewing = asyncio.create_task(self._renew_until_lost(), name=f"lease {job.key}")
            host.attempts.add(job.key)
            try:
                await asyncio.wait({running, renewing}, return_when=asyncio.FIRST_COMPLETED)
                if not running.done() and not job.is_over:
                    renewing.result()  # raises what it didn't expect
                    log.warning("lease.lost")
                    running.cancel()
                await _note_end(running, host, at=job.exited_at)
            except asyncio.CancelledError:
                running.cancel()
                await asyncio.wait({running})
                if not job.is_over:
                    await self._hand_back()
                raise
            finally:
                renewing.cancel()
                host.attempts.discard(job.key)
                job.freed.set()

    async def _run(self) -> None:
        """As soon as the GPUs are there that the task needs. If they can't be, it is another agent's."""
        need = self.job.task.need
        if not self.hold.has(need) and not await self._exchanged():
            await self._hand_back()
            raise Unserved
        await self.job.run(self.hold.gpus)

    async def _exchanged(self) -> bool:
        """The hold has what is needed, on a host that is well still."""
        try:
            await self.pool.exchange(self.hold, self.job.task.need)
        except Unserved:
            return False
        return not self.host.problems()

    async def _renew_until_lost(self) -> None:
        """Returns when core says that the attempt no longer holds the task. While core is away, the task goes on."""
        task = self.job.task
        while True:
            await asyncio.sleep(self.lease_seconds / RENEWALS_PER_LEASE)
            try:
                seconds = self.lease_seconds / TRIES_PER_LEASE
                await self.host.core.renew(task.uid, task.attempt, self.job.noted, seconds=seconds)
                metrics.RENEWALS.labels("renewed").inc()
            except (Unavailable, Unauthorized) as error:
                metrics.RENEWALS.labels("unanswered").inc()
                log.warning("lease.unrenewed", error=str(error))
            except (TaskNotFound, TransitionRefused):
                metrics.RENEWALS.labels("refused").inc()
                return

    async def _hand_back(self) -> None:
        await hand_back(self.host.core, self.job.task)


async def hand_back(core: CoreClient, task: Task) -> None:
    """A task that was claimed, for another agent to take it at once."""
    try:
        await core.release(task.uid, task.attempt)
        log.info("task.handed_back")
    except ContractError as error:
        log.warning("task.not_handed_back", error=str(error))  # its lease runs out, and it goes to another agent


async def _note_end(job: asyncio.Task[None], host: Host, *, at: float) -> None:
    """Waits for a job's end."""
    await asyncio.wait({job})
    if job.cancelled():  # which says nothing of the host
        return
    error = job.exception()
    match error:
        case None:
            host.worked(at)
        case HostFailed():
            host.failed()
        case TaskNotFound() | TransitionRefused():
            log.warning("attempt.refused", error=str(error))
        case Unserved():
            log.warning("gpus.lost")
        case Unauthorized():
            raise error
        case _:  # a bug, which is no reason to end the tasks of other slots
            log.error("job.broke", exc_info=error)
            host.failed()
