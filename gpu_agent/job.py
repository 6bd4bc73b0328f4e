"""One task on a GPU, from top to bottom."""

import asyncio
import errno
import math
import secrets
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

import structlog

from core.client import patiently
from core.contract.errors import InputGone, InvalidZip, OutputGone, TaskNotFound, TooLarge, TransitionRefused
from core.contract.http import Noted
from core.contract.model import Model
from core.contract.task import Failure, Reason, Task, attempt_key
from core.observe import on_behalf_of
from gpu_agent import metrics
from gpu_agent.cancellation import beside, to_its_end
from gpu_agent.disks import DiskFull
from gpu_agent.engine import (
    AGENT,
    ATTEMPT,
    NAME,
    REQUEST,
    TASK,
    ContainerInterrupted,
    ContainerInvalid,
    ContainerSpec,
    EngineDiskFull,
    EngineError,
    Exit,
    GpuUnavailable,
    ImageUnavailable,
)
from gpu_agent.folders import OutputRefused, OutputTooLarge
from gpu_agent.host import Host
from gpu_agent.pool import Slot
from gpu_agent.quota import Quota
from gpu_agent.sandbox import largest_file_mb
from gpu_agent.telling import Telling
from gpu_agent.volumes import AttemptVolumes

log = structlog.get_logger()

FILE_TOO_LARGE: Final = 128 + signal.SIGXFSZ
"""A container's exit code when the kernel ended its command for the size of a file."""


class AttemptFailed(Exception):
    """The attempt ended without an output; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class HostFailed(Exception):
    """The attempt ended for this host's sake, and core knows: look after the host before the next one."""


class NotClaimed(Exception):
    """A job failed before it held its task. Nobody is told: whoever claims the task meets the fault again."""


@dataclass
class Job:
    """One attempt at a task, which has its number, and the host that runs it."""

    task: Task
    model: Model
    host: Host
    claimed: asyncio.Event = field(default_factory=asyncio.Event)
    """This agent holds the task: the container may start, and core is told how it ends."""
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    """All that can be done before the container starts."""
    freed: asyncio.Event = field(default_factory=asyncio.Event)
    """The GPUs can be given to the next: the container has ended by itself, or the attempt is over."""
    noted: Noted = field(default_factory=lambda: Noted(gpus=()))
    """What core is told with each call for the attempt."""
    exited_at: float = math.inf
    """When the container ended by itself, by this process's clock."""
    is_over: bool = False
    """Core knows how it ended; only what is left here has to go."""

    def __post_init__(self) -> None:
        # No two ever meet, whatever is known of the task: the engine would hand out a volume that is there already.
        self.name = f"{self.key}-{secrets.token_hex(4)}"
        self._container = f"inference-server-{self.name}"
        self._telling = Telling(self.host.engine, self._container, self.host.core, self.task)
        self._labels = {
            TASK: self.task.uid,
            ATTEMPT: str(self.task.attempt),
            AGENT: self.host.settings.agent_name,
            NAME: self.name,
        } | ({REQUEST: self.task.request_id} if self.task.request_id else {})

    def told(self, slot: Slot) -> AbstractContextManager[None]:
        """Lines that are logged in it say which attempt they are about, and whose request."""
        task = self.task
        return on_behalf_of(task.request_id, task=task.uid, attempt=task.attempt, slot=slot.name)

    @property
    def key(self) -> str:
        return attempt_key(self.task.uid, self.task.attempt)

    async def run(self, gpus: tuple[str, ...]) -> None:
        """Ends with the task finished or failed at core, and nothing of the attempt left on the host.

        Cancelled, it kills the container, cleans up and reports nothing: whoever cancels knows why. Until it is claimed
        it makes everything ready and waits; what fails meanwhile is NotClaimed.
        """
        self.noted = Noted(gpus=gpus if self.model.use_gpu else (), revision=self.model.revision)
        began = time.monotonic()
        self.host.names.add(self.name)
        try:
            async with self._prepared() as volumes:
                self.ready.set()
                self._note_phase("ready", time.monotonic() - began)
                await self.claimed.wait()
                await self._run_container(volumes)
                await self._deliver(volumes)
                await self._telling.last()  # what core didn't take before
        except (TaskNotFound, TransitionRefused):
            raise  # core gave the task to somebody else, or to nobody
        except Exception as error:
            if not self.claimed.is_set():
                raise NotClaimed(str(error)) from error
            await self._report(error)
        finally:
            self.host.names.discard(self.name)
            await to_its_end(self.host.show_erased(self.name, task=self.task.uid, attempt=self.task.attempt))

    @asynccontextmanager
    async def _prepared(self) -> AsyncIterator[AttemptVolumes]:
        """The container, ready to start, and its volumes, filled. What doesn't depend on each other happens at once."""
        model, core, images, volumes = self.model, self.host.core, self.host.images, self.host.volumes
        async with (
            images.ready(model.image, model.pull) as image,
            volumes.fresh(self.name, self.task, model, self._labels) as fresh,
            beside(fresh.fetch_input(core)) as fetching,
            beside(fresh.make()) as making,
        ):
            self.noted = self.noted.model_copy(update={"image": image.digest})
            await making
            with _input_blamed():
                await volumes.keep_model(model, core, self._labels)
            async with self._created(fresh):
                with _input_blamed():
                    await fetching
                await fresh.copy_in()
                yield fresh

    @asynccontextmanager
    async def _created(self, volumes: AttemptVolumes) -> AsyncIterator[None]:
        """The container, until the context ends."""
        spec = ContainerSpec(self._container, self.model, volumes.mounts, self._labels, self.noted.gpus or ())
        try:
            await self.host.engine.create(spec)
            async with self._telling:
                yield
        finally:
            await to_its_end(self._remove())

    async def _run_container(self, volumes: AttemptVolumes) -> None:
        """Returns when the container has ended well."""
        model = self.model
        engine = self.host.engine
        await self._telling.listens()
        try:
            await engine.start(self._container)
            started = time.monotonic()
            log.info("container.started", image=model.image, gpus=self.noted.gpus)
            ended = await self._ended(volumes)
        except TimeoutError:
            self._note_phase("running", model.timeout_seconds)
            self.host.seconds[model.uid] = model.timeout_seconds
            message = f"The model ran longer than its limit of {model.timeout_seconds} seconds"
            raise await self._stopped(Reason.TIMEOUT, message) from None
        self.exited_at = time.monotonic()
        self.host.seconds[model.uid] = self.exited_at - started
        self._note_phase("running", self.exited_at - started)
        self.freed.set()
        log.info("container.exited", exit_code=ended.code)
        await self._telling.last()
        if ended.code not in (0, FILE_TOO_LARGE) and not ended.is_out_of_memory and (lack := self.host.disks.lack()):
            await self._check_size(volumes, ended)
            raise DiskFull(lack)
        _judge(ended, model)

    async def _ended(self, volumes: AttemptVolumes) -> Exit:
        """By itself. Raises TimeoutError, and AttemptFailed as soon as it has written more than it may."""
        engine = self.host.engine
        quota = Quota(engine, self._container, volumes, self.host.disks)
        async with (
            beside(engine.wait(self._container, seconds=self.model.timeout_seconds)) as waiting,
            beside(quota.exceeded()) as watching,
        ):
            await asyncio.wait({waiting, watching}, return_when=asyncio.FIRST_COMPLETED)
            if waiting.done():
                return waiting.result()
            excess = watching.result()
        raise await self._stopped(excess.reason, excess.message)

    async def _stopped(self, reason: Reason, message: str) -> AttemptFailed:
        """The container is killed before anything else is waited for."""
        tail = ""
        with suppress(EngineError):  # it may have ended, and is removed in any case
            await self.host.engine.kill(self._container)
        with suppress(EngineError):
            tail = await self.host.engine.log_tail(self._container)
        await self._telling.last()
        return _failed(reason, _with_log(message, tail))

    async def _check_size(self, volumes: AttemptVolumes, ended: Exit) -> None:
        """A model that filled the disk with more than it may leave is at fault itself."""
        try:
            await volumes.output_zip()
        except OutputTooLarge as error:
            raise _failed(Reason.OUTPUT_TOO_LARGE, str(error), ended.code) from error
        except OutputRefused:
            return

    async def _deliver(self, volumes: AttemptVolumes) -> None:
        """Streams /output to core, again from the start if core went away meanwhile."""
        task = self.task

        async def deliver() -> None:
            zip = await volumes.output_zip()
            if zip is None:
                raise _failed(Reason.NO_OUTPUT, "The model exited with code 0 but left nothing in /output", 0)
            await self.host.core.finish(task.uid, task.attempt, zip, self.noted)
            self.is_over = True

        try:
            await patiently(deliver)()
        except (OutputTooLarge, TooLarge) as error:
            raise _failed(Reason.OUTPUT_TOO_LARGE, str(error), 0) from error
        except OutputRefused as error:
            raise _failed(Reason.OUTPUT_INVALID, str(error), 0) from error
        self._note_phase("output", time.monotonic() - self.exited_at)
        log.info("output.delivered")

    def _note_phase(self, phase: str, seconds: float) -> None:
        metrics.PHASES.labels(phase, self.model.human_readable_id).observe(seconds)

    async def _report(self, error: Exception) -> None:
        """Tells core why the attempt failed. Raises HostFailed when it did for this host's sake."""
        failure = _failure(error)
        log.warning("attempt.failed", **failure.model_dump(exclude={"message"}))
        await patiently(self.host.core.fail)(self.task.uid, self.task.attempt, failure, self.noted)
        self.is_over = True
        if not isinstance(error, AttemptFailed | ContainerInvalid | ImageUnavailable):  # which say nothing of the host
            raise HostFailed from error

    async def _remove(self) -> None:
        """How the container ended stands. One that the engine doesn't remove is the host's sweep's, before another task
        gets the GPU.
        """
        try:
            await self.host.engine.remove(self._container)
        except EngineError as error:
            self.host.left(self._container)
            log.error("container.left", error=str(error))


@contextmanager
def _input_blamed() -> Iterator[None]:
    """A zip that can't be used, be it the model's, is no reason to try again."""
    try:
        yield
    except (InvalidZip, InputGone, OutputGone) as error:
        raise _failed(Reason.INPUT_INVALID, f"The input can't be used: {error}") from error


def _failure(error: Exception) -> Failure:
    match error:
        case AttemptFailed():
            return error.failure
        case ContainerInvalid():
            return Failure(reason=Reason.EXIT_NONZERO, message=f"The model's container can't be started: {error}")
        case _:
            log.error("job.broke", error=str(error), exc_info=not isinstance(error, EngineError | DiskFull | OSError))
            return _failure_of_host(error)


def _failure_of_host(error: Exception) -> Failure:
    """For the user only what is the user's business; the agent's log has the rest."""
    match error:
        case ImageUnavailable():
            return Failure(reason=Reason.IMAGE_UNAVAILABLE, message=str(error))
        case GpuUnavailable():
            return Failure(reason=Reason.GPU_UNAVAILABLE, message="The container could not be given its GPU")
        case EngineDiskFull() | DiskFull() | OSError(errno=errno.ENOSPC | errno.EDQUOT):
            return Failure(reason=Reason.DISK_FULL, message="The disk of the host that ran the task is full")
        case ContainerInterrupted():
            return Failure(reason=Reason.ENGINE_ERROR, message=str(error))
        case _:
            return Failure(reason=Reason.ENGINE_ERROR, message="The host that ran the task failed")


def _judge(ended: Exit, model: Model) -> None:
    """Raises AttemptFailed unless all went well."""
    if ended.is_out_of_memory:
        message = "The model needed more memory than it may have"
        raise _failed(Reason.OUT_OF_MEMORY, _with_log(message, ended.log_tail), ended.code)
    if ended.code == FILE_TOO_LARGE:
        message = (
            f"The model wrote more than {largest_file_mb(model)} MB to one file (its holes count). It can write less, "
            "or be registered with a larger disk_mb or output_mb"
        )
        raise _failed(Reason.DISK_LIMIT, _with_log(message, ended.log_tail), ended.code)
    if ended.code:
        message = f"The model's container exited with code {ended.code}"
        raise _failed(Reason.EXIT_NONZERO, _with_log(message, ended.log_tail), ended.code)


def _failed(reason: Reason, message: str, exit_code: int | None = None) -> AttemptFailed:
    return AttemptFailed(Failure(reason=reason, message=message, exit_code=exit_code))


def _with_log(message: str, log_tail: str) -> str:
    return f"{message}. The last lines of its log:\n{log_tail}" if log_tail.strip() else message
