"""The agent: a slot for each GPU, each taking one task at a time, its lease renewed while it runs."""

import asyncio
import math
import secrets
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, cast

import structlog

from core.amqp import Broker, Message
from core.client import CoreClient, patiently
from core.contract.errors import ContractError, TaskNotFound, TransitionRefused, Unauthorized, Unavailable
from core.contract.http import Claim, ClaimRequest
from core.contract.task import UID
from gpu_agent import health
from gpu_agent.disks import Disks
from gpu_agent.engine import ATTEMPT, TASK, Engine, EngineAway, EngineError
from gpu_agent.health import Health
from gpu_agent.images import Images
from gpu_agent.job import HostFailed, Job
from gpu_agent.settings import Settings
from gpu_agent.volumes import Volumes

log = structlog.get_logger()

RENEWALS_PER_LEASE: Final = 6
SWEEP_SECONDS: Final = 60.0
FIRST_PAUSE_SECONDS: Final = 2.0
LAST_PAUSE_SECONDS: Final = 60.0
"""A host that fails one attempt after the other takes the next task later and later: others may be able to run it."""

LATE_CLAIM_SECONDS: Final = 10.0
PROBE_SECONDS: Final = 10.0
ROOM_SECONDS: Final = 2.0
COMPLAINT_SECONDS: Final = 300.0
"""How often a full disk is said to be full."""


@dataclass(frozen=True)
class Slot:
    """A place where one task runs at a time: a GPU, or without GPUs a share of the CPU."""

    name: str
    gpus: tuple[str, ...] = ()


@dataclass
class Agent:
    """`run` works until it is cancelled or drained; `drain` lets what runs end, then hands it back."""

    settings: Settings
    slots: tuple[Slot, ...]
    core: CoreClient
    broker: Broker
    engine: Engine
    volumes: Volumes = field(init=False)
    images: Images = field(init=False)
    disks: Disks = field(init=False)
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """uid-attempt → the job."""
    _slots: set[asyncio.Task[None]] = field(default_factory=set)
    _idle: set[asyncio.Task[None]] = field(default_factory=set)
    """Slots that wait for a message, or for their host to recover."""
    _is_draining: bool = False
    _complained_at: float = -math.inf

    @property
    def name(self) -> str:
        return self.settings.agent_name

    def __post_init__(self) -> None:
        self.disks = Disks(self.settings.work_dir, self.settings.min_free_mb)

    async def run(self) -> None:
        """Raises Unauthorized, in a group, when core refuses the token: it would take messages and drop them."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tell_health(), name="health")
            await self._work_in_slots()

    async def _work_in_slots(self) -> None:
        await patiently(self.core.models)()
        await self._know_host()
        with suppress(EngineError, OSError):
            await self._sweep()  # first: a container that an earlier run of this agent left may hold a slot's GPU
        log.info("agent.started", slots=[slot.name for slot in self.slots])
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep_each_minute(), name="sweeper")
            self._slots = {group.create_task(self._serve(slot), name=slot.name) for slot in self.slots}

    async def _know_host(self) -> None:
        engine, folder = self.engine, self.settings.work_dir
        self.images = Images(engine, folder / "images")
        while True:
            await self._wait_for_engine()
            with suppress(EngineAway):  # again
                self.volumes = await Volumes.of(engine, folder, self.name)
                if self.volumes.is_shared:
                    self.disks = await self.disks.with_engine(engine)
                return

    async def drain(self, seconds: float) -> None:
        """Takes no more tasks and waits for those that run. What runs longer is handed back when `run` is cancelled."""
        log.info("agent.draining", running=list(self._running))
        self._is_draining = True
        for slot in self._idle:
            slot.cancel()
        if self._slots:
            await asyncio.wait(self._slots, timeout=seconds)

    async def _serve(self, slot: Slot) -> None:
        settings = self.broker.settings
        queues = [settings.unfinished_job_queue] + ([settings.gpu_job_queue] if slot.gpus else [])
        this = cast("asyncio.Task[None]", asyncio.current_task())
        failures = 0
        while not self._is_draining:
            self._idle.add(this)
            await self._recover(failures)
            await self._wait_for_room()
            async with self.broker.next_message(queues) as message:
                if self.disks.lack():
                    continue  # the message is another agent's
                self._idle.discard(this)
                claim = await self._claim(slot, message)
            if claim is not None:
                failures = 0 if await self._work(slot, claim) else failures + 1

    async def _recover(self, failures: int) -> None:
        if failures:
            pause = min(FIRST_PAUSE_SECONDS * 2 ** (failures - 1), LAST_PAUSE_SECONDS)
            log.warning("slot.paused", failures=failures, seconds=pause)
            await asyncio.sleep(pause)
            await self._wait_for_engine()
            with suppress(EngineError, OSError):
                await self._sweep()  # what the engine didn't remove when the attempt ended

    async def _wait_for_room(self) -> None:
        while lack := self.disks.lack():
            now = asyncio.get_running_loop().time()
            if now - self._complained_at > COMPLAINT_SECONDS:
                self._complained_at = now
                log.error("disk.full", error=lack)
            await asyncio.sleep(ROOM_SECONDS)

    async def _claim(self, slot: Slot, message: Message) -> Claim | None:
        """The message has rung and is acknowledged, whether there is something to do or not."""
        uid = message.uid
        if not UID.fullmatch(uid):
            log.warning("message.unreadable")
            await message.reject()
            return None
        request = ClaimRequest(
            agent=f"{self.name}/{slot.name}",
            host=self.engine.host,
            gpus=slot.gpus,
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

    async def _work(self, slot: Slot, claim: Claim) -> bool:
        """Runs the task and renews its lease; whichever ends first ends the other. False: this host failed it."""
        task = claim.task
        key = f"{task.uid}-{task.attempt}"
        with structlog.contextvars.bound_contextvars(task=task.uid, attempt=task.attempt, slot=slot.name):
            job = Job(claim, self.name, slot.gpus, self.core, self.engine, self.volumes, self.images, self.disks)
            running = asyncio.create_task(job.run(), name=key)
            renewing = asyncio.create_task(self._renew_until_lost(job), name=f"lease {key}")
            self._running[key] = running
            try:
                await asyncio.wait({running, renewing}, return_when=asyncio.FIRST_COMPLETED)
                if not running.done():
                    log.warning("lease.lost")
                    running.cancel()
                return await _went_well(running)
            except asyncio.CancelledError:
                running.cancel()
                await asyncio.wait({running})
                await self._hand_back(claim)
                raise
            finally:
                renewing.cancel()
                del self._running[key]

    async def _renew_until_lost(self, job: Job) -> None:
        """Returns when core says that the attempt no longer holds the task. While core is away, the task goes on."""
        task = job.claim.task
        while True:
            await asyncio.sleep(job.claim.lease_seconds / RENEWALS_PER_LEASE)
            try:
                await self.core.renew(task.uid, task.attempt, job.noted)
            except Unavailable as error:
                log.warning("lease.unrenewed", error=str(error))
            except (TaskNotFound, TransitionRefused):
                return

    async def _hand_back(self, claim: Claim) -> None:
        try:
            await self.core.release(claim.task.uid, claim.task.attempt)
            log.info("task.handed_back")
        except ContractError as error:
            log.warning("task.not_handed_back", error=str(error))  # its lease runs out, and it goes to another agent

    async def _wait_for_engine(self) -> None:
        while True:
            try:
                return await self.engine.check()
            except EngineError as error:
                log.error("engine.unreachable", error=str(error), retry_seconds=5)
                await asyncio.sleep(5)

    async def _sweep_each_minute(self) -> None:
        while True:
            try:
                await self._sweep()
                await self._prune()
            except (EngineError, ContractError, OSError) as error:
                log.error("sweep.postponed", error=str(error))
            await asyncio.sleep(SWEEP_SECONDS)

    async def _sweep(self) -> None:
        """Removes what attempts left that this agent doesn't run (any more)."""
        for container, labels in (await self.engine.left_containers(self.name)).items():
            await self._sweep_away("container", container, labels, self.engine.remove)
        for volume, labels in (await self.engine.left_volumes(self.name)).items():
            await self._sweep_away("volume", volume, labels, self.engine.remove_volume)
        await self.volumes.remove_leftovers(set(self._running))

    async def _prune(self) -> None:
        """Removes what no model needs any more: their volumes at once, images only when the disk fills up."""
        models = await self.core.models()
        await self.volumes.prune_models({model.zip.id for model in models if model.zip})
        if self._is_fuller_than(self.settings.prune_images_above):
            await self.images.prune(
                {model.container_tag for model in models},
                until=lambda: not self._is_fuller_than(self.settings.prune_images_below),
            )

    def _is_fuller_than(self, percent: float) -> bool:
        is_now = self.disks.engine_percent()
        return is_now is not None and is_now > percent

    async def _tell_health(self) -> None:
        """Writes it into a file every few seconds; the file goes when the agent ends well."""
        file = health.file_of(self.settings)
        try:
            while True:
                running = tuple(self._running)
                problems = await self._problems()
                said = Health(time=datetime.now(UTC), slots=len(self.slots), running=running, problems=problems)
                try:
                    health.write(file, said)
                except OSError as error:
                    log.error("health.unwritten", error=str(error))
                await asyncio.sleep(health.INTERVAL_SECONDS)
        finally:
            file.unlink(missing_ok=True)

    async def _problems(self) -> dict[str, str]:
        engine, core = await asyncio.gather(
            _problem("The Docker engine", self.engine.ping()),
            _problem("Core", self.core.ready()),
        )
        broker = None if self.broker.is_connected else "RabbitMQ isn't connected"
        found = {"engine": engine, "core": core, "broker": broker, "disk": self.disks.lack()}
        return {part: words for part, words in found.items() if words}

    async def _sweep_away(
        self, kind: str, name: str, labels: Mapping[str, str], remove: Callable[[str], Awaitable[None]]
    ) -> None:
        if f"{labels.get(TASK)}-{labels.get(ATTEMPT)}" in self._running:
            return
        try:
            await remove(name)
            log.info("leftover.swept", kind=kind, task=labels.get(TASK))
        except EngineError as error:
            log.error("leftover.stays", kind=kind, name=name, error=str(error))


async def _problem(part: str, probe: Awaitable[object]) -> str | None:
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await probe
    except TimeoutError:
        return f"{part} doesn't answer"
    except (EngineError, ContractError) as error:
        return f"{part}: {error}"
    return None


async def _went_well(job: asyncio.Task[None]) -> bool:
    """Waits for a job's end. False: its host failed; another error than these is a bug, to be seen."""
    await asyncio.wait({job})
    error = None if job.cancelled() else job.exception()
    match error:
        case None:
            return True
        case HostFailed():
            return False
        case TaskNotFound() | TransitionRefused():
            log.warning("attempt.refused", error=str(error))
            return True
        case _:
            raise error
