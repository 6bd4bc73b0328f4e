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
from core.contract.agent import AgentReport, Gpu
from core.contract.errors import ContractError, Unauthorized
from core.contract.http import Claim, ClaimRequest
from core.contract.needs import ANY, Need
from core.contract.presence import REPORT_SECONDS
from core.contract.queues import IN_TURN
from core.observe import on_behalf_of
from gpu_agent import health, metrics
from gpu_agent.attempt import Attempt, hand_back
from gpu_agent.engine import Engine, EngineError
from gpu_agent.gpus import Gpus
from gpu_agent.host import Host
from gpu_agent.job import Job
from gpu_agent.pool import Hold, Pool, Slot
from gpu_agent.settings import Settings
from gpu_agent.staging import Stage, Staged, is_readable

log = structlog.get_logger()

LATE_CLAIM_SECONDS: Final = 10.0
PROBE_SECONDS: Final = 10.0
GPU_SECONDS: Final = 5.0

Begun = tuple[Job, "asyncio.Task[None]"]
"""A job, and the attempt that is over when it has ended and core knows."""


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
    _group: asyncio.TaskGroup = field(default_factory=asyncio.TaskGroup)
    """Of all that goes on as long as the agent runs."""
    _workers: set[asyncio.Task[None]] = field(default_factory=set)
    """One for each slot."""
    _ends: set[asyncio.Task[None]] = field(default_factory=set)
    """Attempts that aren't over: a worker doesn't wait for what its last one delivers."""
    _idle: set[asyncio.Task[None]] = field(default_factory=set)
    """Workers that wait for a slot, for a message, or for their host to be well."""
    _draining: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Raises Unauthorized, in a group, when core refuses the token: it would take messages and drop them."""
        async with self._group as group:
            group.create_task(health.tell(self.settings, self._all_problems, self._running), name="health")
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
        log.info("agent.draining", running=sorted(self._running()))
        self._draining.set()
        self.pool.close()
        for worker in self._idle:
            worker.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for tasks in (self._workers, self._ends):
                    if tasks:
                        await asyncio.wait(tasks)

    async def _serve(self, host: Host) -> None:
        """One slot after the other; of a slot that can be kept, one task after the other. While a container runs or is
        listened for, at most one attempt before it still delivers.
        """
        this = cast("asyncio.Task[None]", asyncio.current_task())
        earlier: asyncio.Task[None] | None = None
        while not self._draining.is_set():
            self._idle.add(this)
            before = None
            async with self.pool.one() as hold:
                begun = await self._first(hold, host)
                self._idle.discard(this)
                while begun is not None:
                    job, end = begun
                    begun = await self._next(hold, host, job, earlier)
                    before, earlier = earlier, end
            if before:  # the slot is anybody's meanwhile
                await asyncio.wait({before})

    async def _first(self, hold: Hold, host: Host) -> Begun | None:
        """An idle slot's task. None: there is nothing to do, or the slot is wanted elsewhere."""
        [slot] = hold.slots
        async with self.pool.idle(hold):
            await host.wait_until_well()
            queues = self._queues(slot)
            async with self.broker.next_message(list(queues)) as message:
                if host.problems():
                    await message.give_back()  # it is another host's
                    return None
                self.pool.busy(hold)
                self._idle.discard(cast("asyncio.Task[None]", asyncio.current_task()))
                return await self._take(hold, host, message, queues.get(message.queue, ANY))
        return None

    async def _next(self, hold: Hold, host: Host, job: Job, earlier: asyncio.Task[None] | None) -> Begun | None:
        """Waits until the job's GPUs are free. The slot's next task then, if one is staged and may have them."""
        stage = Stage(host, self.broker, self.pool, hold, self._queues, self._draining)
        async with stage.after(job, earlier=earlier) as staged:
            return await self._take(hold, host, staged.message, staged.serves, staged) if staged else None

    async def _take(
        self, hold: Hold, host: Host, message: Message, serves: Need, staged: Staged | None = None
    ) -> Begun | None:
        """Claims the task and begins. The message has rung and is acknowledged, whether there is something to do or
        not.
        """
        if not await is_readable(message):
            return None
        with on_behalf_of(message.request, task=message.uid):
            claim = await self._claim(hold.slots[0], message, serves)
        begun = self._begin(claim, hold, host, staged) if claim else None
        await message.ack()
        return begun

    def _begin(self, claim: Claim, hold: Hold, host: Host, staged: Staged | None) -> Begun:
        job, running = Job(claim.task, claim.model, host), None
        if staged and staged.is_as(claim):
            job, running = staged.job, staged.running
        job.claimed.set()
        attempt = Attempt(job, claim.lease_seconds, host, self.pool, hold, running)
        end = self._group.create_task(attempt.run(), name=f"attempt {job.key}")
        self._ends.add(end)
        end.add_done_callback(self._ends.discard)
        if running:
            end.add_done_callback(lambda _: running.cancel())  # of an attempt that was cancelled before its first step
        return job, end

    def _queues(self, slot: Slot) -> dict[str, Need]:
        """Where a worker that has this slot looks for messages, in this order, and what the tasks there need. Of one
        priority no queue always comes first: of a long one it would take all messages.
        """
        settings = self.broker.settings
        served = [need for need in self._needs if slot.fits(need) and self.pool.serves(need)]
        queues: dict[str, Need] = {}
        for priority in IN_TURN:
            equal = {settings.queue_for(need, priority): need for need in (ANY, *served)}
            equal |= {settings.gpu_queue_for(priority): ANY} if slot.gpu else {}
            queues |= {name: equal[name] for name in random.sample(list(equal), len(equal))}
        return queues

    async def _claim(self, slot: Slot, message: Message, serves: Need) -> Claim | None:
        """None: core refuses, there is nothing to do."""
        uid = message.uid
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
        try:
            return await asyncio.shield(claiming)
        except asyncio.CancelledError:
            await self._give_up(claiming)
            raise
        except Unauthorized:
            raise
        except ContractError as refusal:
            log.info("message.dropped", why=str(refusal))
            return None

    async def _give_up(self, claiming: asyncio.Task[Claim]) -> None:
        """Core may have made the claim already: one whose answer comes late is handed back."""
        with suppress(TimeoutError, ContractError):
            claim = await asyncio.wait_for(claiming, LATE_CLAIM_SECONDS)
            await hand_back(self.core, claim.task)

    def _running(self) -> set[str]:
        """Those that run, as uid-attempt."""
        return self._host.attempts if self._host else set()

    async def _check_gpus(self) -> None:
        self.pool.note(await self.gpus.problems(in_use=self.pool.in_use))
        metrics.note_gpus(self.gpus.all, self.gpus.readings, self.pool.problems)

    async def _report(self) -> None:
        """Tells core who this agent is, and learns for what it may listen. A core of an older version doesn't ask."""
        problems, own = self.pool.problems, await self._problems()
        metrics.PROBLEMS.set(len(own))
        report = AgentReport(
            name=self.settings.agent_name,
            host=self.engine.host,
            version=VERSION,
            driver=self.gpus.driver,
            gpus=tuple(Gpu(**asdict(gpu), problem=problems.get(gpu.uuid)) for gpu in self.gpus.all),
            slots=len(self.pool.slots),
            running=tuple(sorted(self._running())),
            disks=self._host.disks.room() if self._host else {},
            problems=own,
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
