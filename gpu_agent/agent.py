"""The agent: a slot for each GPU, each taking one task at a time, its lease renewed while it runs."""

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Final, cast

import structlog

from core.amqp import Broker, Message
from core.client import CoreClient, patiently
from core.contract import VERSION
from core.contract.agent import REPORT_SECONDS, AgentReport, Gpu
from core.contract.errors import ContractError, TaskNotFound, TransitionRefused, Unauthorized, Unavailable
from core.contract.http import Claim, ClaimRequest
from core.contract.needs import ANY, Need
from core.contract.task import UID, attempt_key
from gpu_agent import health
from gpu_agent.engine import Engine, EngineError
from gpu_agent.gpus import Gpus
from gpu_agent.host import Host
from gpu_agent.job import HostFailed, Job
from gpu_agent.pool import Hold, Pool, Slot, Unserved
from gpu_agent.settings import Settings

log = structlog.get_logger()

RENEWALS_PER_LEASE: Final = 6
TRIES_PER_LEASE: Final = 3
"""A core that vanished mustn't cost the lease: a try that hangs leaves time for another one, at another core."""

LATE_CLAIM_SECONDS: Final = 10.0
PROBE_SECONDS: Final = 10.0
GPU_SECONDS: Final = 5.0


@dataclass
class Agent:
    """`run` works until it is cancelled or drained; `drain` lets what runs end, then hands it back."""

    settings: Settings
    gpus: Gpus
    pool: Pool
    core: CoreClient
    broker: Broker
    engine: Engine
    _host: Host | None = None
    """Once its engine has answered."""
    _needs: tuple[Need, ...] = ()
    """Those of registered models that not just any GPU meets."""
    _workers: set[asyncio.Task[None]] = field(default_factory=set)
    """One for each slot."""
    _idle: set[asyncio.Task[None]] = field(default_factory=set)
    """Workers that wait for a slot, for a message, or for their host to be well."""
    _is_draining: bool = False

    async def run(self) -> None:
        """Raises Unauthorized, in a group, when core refuses the token: it would take messages and drop them."""
        async with asyncio.TaskGroup() as group:
            group.create_task(health.tell(self.settings, self._all_problems, self._attempts), name="health")
            await patiently(self.core.models)()
            host = self._host = await Host.known(self.settings, self.core, self.engine)
            await self._check_gpus()
            await self._report()
            log.info("agent.started", slots=[slot.name for slot in self.pool.slots])
            group.create_task(host.keep_clean(), name="sweeper")
            group.create_task(_each(GPU_SECONDS, self._check_gpus), name="gpus")
            group.create_task(_each(REPORT_SECONDS, self._report), name="report")
            self._workers = {group.create_task(self._serve(host), name=slot.name) for slot in self.pool.slots}

    async def drain(self, seconds: float) -> None:
        """Takes no more tasks and waits for those that run. What runs longer is handed back when `run` is cancelled."""
        log.info("agent.draining", running=sorted(self._attempts()))
        self._is_draining = True
        self.pool.close()
        for worker in self._idle:
            worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers, timeout=seconds)

    async def _serve(self, host: Host) -> None:
        this = cast("asyncio.Task[None]", asyncio.current_task())
        while not self._is_draining:
            self._idle.add(this)
            async with self.pool.one() as hold:
                [slot] = hold.slots
                claim = None
                async with self.pool.idle(hold):
                    await host.wait_until_well()
                    queues = self._queues(slot)
                    async with self.broker.next_message(random.sample(list(queues), len(queues))) as message:
                        if host.problems():
                            await message.give_back()  # it is another host's
                            continue
                        self.pool.busy(hold)
                        self._idle.discard(this)
                        claim = await self._claim(slot, message, queues.get(message.queue, ANY))
                if claim is not None:
                    await self._work(hold, host, claim)

    def _queues(self, slot: Slot) -> dict[str, Need]:
        """Where a worker that has this slot listens, and what the tasks there need. None comes first: of a long queue
        it would always take the next message.
        """
        settings = self.broker.settings
        served = [need for need in self._needs if slot.fits(need) and self.pool.serves(need)]
        queues = {settings.unfinished_job_queue: ANY} | {settings.queue_for(need): need for need in served}
        return queues | ({settings.gpu_job_queue: ANY} if slot.gpu else {})

    async def _claim(self, slot: Slot, message: Message, serves: Need) -> Claim | None:
        """The message has rung and is acknowledged, whether there is something to do or not."""
        uid = message.uid
        if not UID.fullmatch(uid):
            log.warning("message.unreadable")
            await message.reject()
            return None
        request = ClaimRequest(
            agent=f"{self.settings.agent_name}/{slot.name}",
            host=self.engine.host,
            gpus=(slot.gpu.uuid,) if slot.gpu else (),
            driver=self.gpus.driver,
            serves=serves,
            claim_id=secrets.token_hex(8),
            redelivered=message.redelivered,
        )
        claiming = asyncio.create_task(patiently(self.core.claim)(uid, request), name=f"claim {uid}")
        claim = None
        try:
            claim = await asyncio.shield(claiming)
        except asyncio.CancelledError:
            await self._give_up(claiming)
            raise
        except Unauthorized:
            raise
        except ContractError as refusal:
            log.info("message.dropped", task=uid, why=str(refusal))
        await message.ack()
        return claim

    async def _give_up(self, claiming: asyncio.Task[Claim]) -> None:
        """Core may have made the claim already: one whose answer comes late is handed back."""
        with suppress(TimeoutError, ContractError):
            await self._hand_back(await asyncio.wait_for(claiming, LATE_CLAIM_SECONDS))

    async def _work(self, hold: Hold, host: Host, claim: Claim) -> None:
        """Runs the task and renews its lease; whichever ends first ends the other."""
        task = claim.task
        key = attempt_key(task.uid, task.attempt)
        with structlog.contextvars.bound_contextvars(task=task.uid, attempt=task.attempt, slot=hold.slots[0].name):
            job = Job(claim, host)
            running = asyncio.create_task(self._run(job, hold, host), name=key)
            renewing = asyncio.create_task(self._renew_until_lost(job), name=f"lease {key}")
            host.attempts.add(key)
            try:
                await asyncio.wait({running, renewing}, return_when=asyncio.FIRST_COMPLETED)
                if not running.done() and not job.is_over:
                    renewing.result()  # raises what it didn't expect
                    log.warning("lease.lost")
                    running.cancel()
                await _note_end(running, host)
            except asyncio.CancelledError:
                running.cancel()
                await asyncio.wait({running})
                if not job.is_over:
                    await self._hand_back(claim)
                raise
            finally:
                renewing.cancel()
                host.attempts.discard(key)

    async def _run(self, job: Job, hold: Hold, host: Host) -> None:
        """As soon as the GPUs are there that the task needs. If they can't be, it is another agent's."""
        need = job.claim.task.need
        if not hold.has(need) and not await self._exchanged(hold, need, host):
            await self._hand_back(job.claim)
            raise Unserved
        await job.run(hold.gpus)

    async def _exchanged(self, hold: Hold, need: Need, host: Host) -> bool:
        """The hold has what is needed, on a host that is well still."""
        try:
            await self.pool.exchange(hold, need)
        except Unserved:
            return False
        return not host.problems()

    async def _renew_until_lost(self, job: Job) -> None:
        """Returns when core says that the attempt no longer holds the task. While core is away, the task goes on."""
        task = job.claim.task
        lease_seconds = job.claim.lease_seconds
        while True:
            await asyncio.sleep(lease_seconds / RENEWALS_PER_LEASE)
            try:
                await self.core.renew(task.uid, task.attempt, job.noted, seconds=lease_seconds / TRIES_PER_LEASE)
            except (Unavailable, Unauthorized) as error:
                log.warning("lease.unrenewed", error=str(error))
            except (TaskNotFound, TransitionRefused):
                return

    async def _hand_back(self, claim: Claim) -> None:
        try:
            await self.core.release(claim.task.uid, claim.task.attempt)
            log.info("task.handed_back")
        except ContractError as error:
            log.warning("task.not_handed_back", error=str(error))  # its lease runs out, and it goes to another agent

    def _attempts(self) -> set[str]:
        """Those that run, as uid-attempt."""
        return self._host.attempts if self._host else set()

    async def _check_gpus(self) -> None:
        self.pool.note(await self.gpus.problems(in_use=self.pool.in_use))

    async def _report(self) -> None:
        """Tells core who this agent is, and learns for what it may listen. A core of an older version doesn't ask."""
        problems = self.pool.problems
        report = AgentReport(
            name=self.settings.agent_name,
            host=self.engine.host,
            version=VERSION,
            driver=self.gpus.driver,
            gpus=tuple(Gpu(**asdict(gpu), problem=problems.get(gpu.uuid)) for gpu in self.gpus.all),
            slots=len(self.pool.slots),
            running=tuple(sorted(self._attempts())),
            problems=await self._problems(),
        )
        try:
            wanted = await self.core.report(report)
        except ContractError as error:
            log.info("agent.unheard", error=str(error))
            return
        if wanted.needs != self._needs:
            self._needs = wanted.needs
            self.pool.recall()

    async def _all_problems(self) -> dict[str, str]:
        return await self._problems() | {gpu: f"{gpu}: {words}" for gpu, words in self.pool.problems.items()}

    async def _problems(self) -> dict[str, str]:
        """What keeps the agent from taking tasks, in words."""
        engine, core = await asyncio.gather(
            _problem("The Docker engine", self.engine.ping()),
            _problem("Core", self.core.ready()),
        )
        broker = None if self.broker.is_connected else "RabbitMQ isn't connected"
        found = {part: words for part, words in (("engine", engine), ("core", core), ("broker", broker)) if words}
        return found | (self._host.problems() if self._host else {})


async def _note_end(job: asyncio.Task[None], host: Host) -> None:
    """Waits for a job's end."""
    await asyncio.wait({job})
    if job.cancelled():  # which says nothing of the host
        return
    error = job.exception()
    match error:
        case None:
            host.worked()
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


async def _each(seconds: float, call: Callable[[], Awaitable[None]]) -> None:
    """For ever, the first time after so many seconds."""
    while True:
        await asyncio.sleep(seconds)
        await call()


async def _problem(part: str, probe: Awaitable[object]) -> str | None:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await probe
    except TimeoutError:
        return f"{part} doesn't answer"
    except (EngineError, ContractError) as error:
        return f"{part}: {error}"
    return None
