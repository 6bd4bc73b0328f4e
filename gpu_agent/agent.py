"""The agent: a slot for each GPU, each taking one task at a time, its lease renewed while it runs."""

import asyncio
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

import structlog

from core.amqp import Broker, Message
from core.client import CoreClient, patiently
from core.contract.errors import ContractError, TaskNotFound, TransitionRefused, Unavailable
from core.contract.http import Claim, ClaimRequest
from core.contract.task import UID
from gpu_agent.engine import ATTEMPT, TASK, Engine, EngineError
from gpu_agent.job import Job
from gpu_agent.volumes import Volumes

log = structlog.get_logger()

RENEWALS_PER_LEASE: Final = 6
SWEEP_SECONDS: Final = 60.0
TIDY_SECONDS: Final = 30.0
"""How long a cancelled task has to kill its container and clean up."""


@dataclass(frozen=True)
class Slot:
    """A place where one task runs at a time: a GPU, or without GPUs a share of the CPU."""

    name: str
    gpus: tuple[str, ...] = ()


@dataclass
class Agent:
    """`run` works until it is cancelled or drained; `drain` lets what runs end, then hands it back."""

    name: str
    slots: tuple[Slot, ...]
    core: CoreClient
    broker: Broker
    engine: Engine
    work_dir: Path
    volumes: Volumes = field(init=False)
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    """uid-attempt → the job."""
    _idle: set[asyncio.Task[None]] = field(default_factory=set)
    """Slots that wait for a message."""
    _is_draining: bool = False

    async def run(self) -> None:
        await self._wait_for_engine()
        self.volumes = await Volumes.of(self.engine, self.work_dir, self.name)
        await self._sweep()
        log.info("agent.started", slots=[slot.name for slot in self.slots])
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sweep_each_minute(), name="sweeper")
            for slot in self.slots:
                group.create_task(self._serve(slot), name=slot.name)

    async def drain(self, seconds: float) -> None:
        """Takes no more tasks and waits for those that run. What runs longer is handed back when `run` is cancelled."""
        log.info("agent.draining", running=list(self._running))
        self._is_draining = True
        for slot in self._idle:
            slot.cancel()
        if self._running:
            await asyncio.wait(self._running.values(), timeout=seconds)

    async def _serve(self, slot: Slot) -> None:
        settings = self.broker.settings
        queues = [settings.unfinished_job_queue] + ([settings.gpu_job_queue] if slot.gpus else [])
        this = cast("asyncio.Task[None]", asyncio.current_task())
        while not self._is_draining:
            self._idle.add(this)
            async with self.broker.next_message(queues) as message:
                self._idle.discard(this)
                claim = await self._claim(slot, message)
            if claim is not None:
                await self._work(slot, claim)

    async def _claim(self, slot: Slot, message: Message) -> Claim | None:
        """The message has rung and is acknowledged, whether there is something to do or not."""
        uid = message.uid
        if not UID.fullmatch(uid):
            log.warning("message.unreadable")
            await message.reject()
            return None
        request = ClaimRequest(
            agent=f"{self.name}/{slot.name}",
            claim_id=secrets.token_hex(8),
            has_gpu=bool(slot.gpus),
            redelivered=message.redelivered,
        )
        try:
            claim = await patiently(self.core.claim)(uid, request)
        except (TaskNotFound, TransitionRefused) as refusal:
            log.info("message.dropped", task=uid, why=str(refusal))
            claim = None
        await message.ack()
        return claim

    async def _work(self, slot: Slot, claim: Claim) -> None:
        """Runs the task and renews its lease; whichever ends first ends the other."""
        task = claim.task
        key = f"{task.uid}-{task.attempt}"
        with structlog.contextvars.bound_contextvars(task=task.uid, attempt=task.attempt, slot=slot.name):
            job = Job(claim, self.name, slot.gpus, self.core, self.engine, self.volumes)
            running = asyncio.create_task(job.run(), name=key)
            renewing = asyncio.create_task(self._renew_until_lost(claim), name=f"lease {key}")
            self._running[key] = running
            try:
                await asyncio.wait({running, renewing}, return_when=asyncio.FIRST_COMPLETED)
                if not running.done():
                    log.warning("lease.lost")
                    running.cancel()
                await _ended(running)
            except asyncio.CancelledError:
                running.cancel()
                await _ended(running)
                await self._hand_back(claim)
                raise
            finally:
                renewing.cancel()
                del self._running[key]

    async def _renew_until_lost(self, claim: Claim) -> None:
        """Returns when core says that the attempt no longer holds the task. While core is away, the task goes on."""
        task = claim.task
        while True:
            await asyncio.sleep(claim.lease_seconds / RENEWALS_PER_LEASE)
            try:
                await self.core.renew(task.uid, task.attempt)
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
            await asyncio.sleep(SWEEP_SECONDS)
            try:
                await self._sweep()
            except EngineError as error:
                log.error("sweep.postponed", error=str(error))

    async def _sweep(self) -> None:
        """Removes what attempts left that this agent doesn't run (any more)."""
        for container, labels in (await self.engine.left_containers(self.name)).items():
            if f"{labels.get(TASK)}-{labels.get(ATTEMPT)}" not in self._running:
                await self.engine.remove(container)
                log.info("container.swept", task=labels.get(TASK))
        for volume, labels in (await self.engine.left_volumes(self.name)).items():
            if f"{labels.get(TASK)}-{labels.get(ATTEMPT)}" not in self._running:
                await self.engine.remove_volume(volume)
                log.info("volume.swept", task=labels.get(TASK))
        await self.volumes.remove_leftovers(set(self._running))


async def _ended(job: asyncio.Task[None]) -> None:
    """Waits for a job's end. A job that was cancelled has its failure behind it; any other bug is to be seen."""
    await asyncio.wait({job}, timeout=TIDY_SECONDS if job.cancelling() else None)
    if job.done() and not job.cancelled() and (error := job.exception()):
        if isinstance(error, TaskNotFound | TransitionRefused):
            log.warning("attempt.refused", error=str(error))
        else:
            raise error
