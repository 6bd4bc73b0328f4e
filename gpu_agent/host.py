"""The machine that an agent's containers run on: whether it may take tasks now, and what is to be removed from it."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Self

import structlog

from core.client import CoreClient
from core.contract.errors import Unauthorized, Unavailable
from core.contract.images import ImageAllowance
from gpu_agent.disks import Disks
from gpu_agent.engine import ATTEMPT, NAME, TASK, Engine, EngineError
from gpu_agent.images import Images
from gpu_agent.settings import Settings
from gpu_agent.volumes import Volumes

log = structlog.get_logger()

FIRST_PAUSE_SECONDS: Final = 8.0
"""Longer than core waits before it rings a failed attempt again: another host may have it first."""

PAUSE_FACTOR: Final = 4
LAST_PAUSE_SECONDS: Final = 300.0
ENGINE_SECONDS: Final = 5.0
ROOM_SECONDS: Final = 2.0
COMPLAINT_SECONDS: Final = 300.0
"""How often a full disk is said to be full."""

SWEEP_SECONDS: Final = 60.0


@dataclass
class Host:
    """One agent's view of its machine. A host that fails one attempt after the other takes the next one later and
    later, in all of its slots: others may be able to run it.
    """

    settings: Settings
    core: CoreClient
    engine: Engine
    volumes: Volumes
    images: Images
    disks: Disks
    attempts: set[str] = field(default_factory=set)
    """Those that run here, as uid-attempt."""
    names: set[str] = field(default_factory=set)
    """Of jobs (gpu_agent/job.py) that have something here: it isn't swept."""
    seconds: dict[str, float] = field(default_factory=dict)
    """How long the last container of a model ran here, by the model's uid."""
    _left: set[str] = field(default_factory=set)
    """Containers of attempts that have ended, which the engine didn't remove. They may hold GPUs."""
    _failures: int = 0
    _failed_at: float = -math.inf
    _paused_until: float = -math.inf
    _complained_at: float = -math.inf

    @classmethod
    async def known(cls, settings: Settings, core: CoreClient, engine: Engine) -> Self:
        """Waits for the engine. What an earlier run of this agent left is gone then: it may hold a slot's GPU."""
        while True:
            await answering(engine)
            try:
                volumes = await Volumes.of(engine, settings.work_dir, settings.agent_name)
                disks = Disks(settings.work_dir, settings.min_free_mb)
                if volumes.is_shared:
                    disks = disks.with_engine(engine)
                break
            except EngineError as error:
                log.error("engine.unusable", error=str(error), retry_seconds=ENGINE_SECONDS)
                await asyncio.sleep(ENGINE_SECONDS)
        images = Images(engine, settings.work_dir / "images", ImageAllowance.of(settings.image_allow))
        host = cls(settings, core, engine, volumes, images, disks)
        with suppress(EngineError, OSError):
            await host.sweep()
        return host

    def failed(self) -> None:
        """An attempt ended for this host's sake. What fails several slots at once counts once."""
        now = self._failed_at = time.monotonic()
        if now >= self._paused_until:
            pause = min(FIRST_PAUSE_SECONDS * PAUSE_FACTOR**self._failures, LAST_PAUSE_SECONDS)
            self._failures += 1
            self._paused_until = now + pause
            log.warning("host.paused", failures=self._failures, seconds=pause)

    def worked(self, at: float = math.inf) -> None:
        """An attempt ended, and this host did its part. What its container showed then is old if another has failed
        since.
        """
        if at < self._failed_at:
            return
        self._failures = 0
        self._paused_until = -math.inf

    def left(self, container: str) -> None:
        """The engine didn't remove it. Until it is gone nobody gets a GPU here, however the attempt ended."""
        self._left.add(container)
        self.failed()

    async def wait_until_well(self) -> None:
        """Returns when a slot may listen for a task."""
        while (self._failures or self._left) and not await self._has_recovered():
            self.failed()
        while lack := self.disks.lack():
            now = time.monotonic()
            if now - self._complained_at > COMPLAINT_SECONDS:
                self._complained_at = now
                log.error("disk.full", error=lack)
            await asyncio.sleep(ROOM_SECONDS)

    async def _has_recovered(self) -> bool:
        """After the pause, when no container is left."""
        while (left := self._pause_seconds()) > 0:  # noqa: ASYNC110 - another slot may end or prolong it
            await asyncio.sleep(min(left, ROOM_SECONDS))
        await answering(self.engine)
        try:
            return await self.sweep()
        except (EngineError, OSError) as error:
            log.error("sweep.postponed", error=str(error))
            return False

    def problems(self) -> dict[str, str]:
        """What keeps it from taking tasks, in words."""
        found = {"disk": lack} if (lack := self.disks.lack()) else {}
        if self._left:
            found["containers"] = f"the engine doesn't remove {', '.join(sorted(self._left))}"
        if (left := self._pause_seconds()) > 0:
            found["host"] = f"takes no tasks for {left:.0f} seconds: {self._failures} failed in a row for its sake"
        return found

    def _pause_seconds(self) -> float:
        return self._paused_until - time.monotonic()

    async def keep_clean(self) -> None:
        """A sweep each minute, for ever."""
        while True:
            try:
                await self.sweep()
                await self._prune()
            except (EngineError, OSError, Unavailable, Unauthorized) as error:
                log.error("sweep.postponed", error=str(error))
            await asyncio.sleep(SWEEP_SECONDS)

    async def sweep(self) -> bool:
        """Removes what was left of jobs that are over. False: a container stays."""
        name = self.settings.agent_name
        over: dict[str, Mapping[str, str]] = {}
        for id, labels in (await self.engine.left_containers(name)).items():
            over[labels.get(NAME, "")] = labels
            if not await self._sweep_away("container", id, labels, self.engine.remove):
                self._left.add(id)
        for volume, labels in (await self.engine.left_volumes(name)).items():
            over[labels.get(NAME, "")] = labels
            await self._sweep_away("volume", volume, labels, self.engine.remove_volume)
        await self.volumes.remove_leftovers(self.names)
        for job in over.keys() - self.names:
            await self.show_erased(job, task=over[job].get(TASK), attempt=over[job].get(ATTEMPT))
        if self._left:
            self._left &= (await self.engine.left_containers(name)).keys()
        return not self._left

    async def show_erased(self, job: str, **about: object) -> None:
        """Says of a job that is over what the engine and the folders have of it still, if anything."""
        agent = self.settings.agent_name
        try:
            kinds = await asyncio.gather(self.engine.left_containers(agent), self.engine.left_volumes(agent))
        except EngineError as error:
            log.warning("attempt.unknown", error=str(error), **about)
            return
        remains = [name for found in kinds for name, labels in found.items() if labels.get(NAME) == job]
        remains += self.volumes.left_of(job)
        if remains:
            log.error("attempt.remains", what=remains, **about)
        else:
            log.info("attempt.erased", **about)

    async def _sweep_away(
        self, kind: str, name: str, labels: Mapping[str, str], remove: Callable[[str], Awaitable[None]]
    ) -> bool:
        if labels.get(NAME) not in self.names:
            try:
                await remove(name)
                log.info("leftover.swept", kind=kind, task=labels.get(TASK))
            except EngineError as error:
                log.error("leftover.stays", kind=kind, name=name, error=str(error))
                return False
        return True

    async def _prune(self) -> None:
        """Removes what no model needs any more: their volumes at once, images only when the disk fills up."""
        models = await self.core.models()
        await self.volumes.prune_models({model.zip.id for model in models if model.zip})
        if self._is_fuller_than(self.settings.prune_images_above):
            await self.images.prune(
                {name for model in models for name in (model.container_tag, model.image)},
                until=lambda: not self._is_fuller_than(self.settings.prune_images_below),
            )

    def _is_fuller_than(self, percent: float) -> bool:
        is_now = self.disks.engine_percent()
        return is_now is not None and is_now > percent


async def answering(engine: Engine) -> None:
    """Waits until the engine has said what it is."""
    while True:
        try:
            return await engine.check()
        except EngineError as error:
            log.error("engine.unreachable", error=str(error), retry_seconds=ENGINE_SECONDS)
            await asyncio.sleep(ENGINE_SECONDS)
