"""One task on a GPU, from top to bottom."""

import asyncio
import errno
from dataclasses import dataclass, field

import structlog

from core.client import patiently
from core.contract.errors import InputGone, InvalidZip, OutputGone, TaskNotFound, TooLarge, TransitionRefused
from core.contract.http import Claim, Noted
from core.contract.task import Failure, Reason, attempt_key
from gpu_agent.cancellation import to_its_end
from gpu_agent.disks import DiskFull
from gpu_agent.engine import (
    AGENT,
    ATTEMPT,
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
from gpu_agent.volumes import AttemptVolumes

log = structlog.get_logger()


class AttemptFailed(Exception):
    """The attempt ended without an output; `failure` says why."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class HostFailed(Exception):
    """The attempt ended for this host's sake, and core knows: look after the host before the next one."""


@dataclass
class Job:
    """An attempt that this agent holds, and the host that runs it."""

    claim: Claim
    host: Host
    noted: Noted = field(default_factory=lambda: Noted(gpus=()))
    """What core is told with each call for the attempt."""

    async def run(self, gpus: tuple[str, ...]) -> None:
        """Ends with the task finished or failed at core, and nothing of the attempt left on the host.

        Cancelled, it kills the container, cleans up and reports nothing: whoever cancels knows why.
        """
        model = self.claim.model
        self.noted = Noted(gpus=gpus if model.use_gpu else ())
        try:
            async with (
                self.host.images.ready(model.container_tag, model.pull) as image,
                self.host.volumes.fresh(self.claim, self._labels) as volumes,
            ):
                self.noted = Noted(image=image.digest, gpus=self.noted.gpus)
                await self._fill(volumes)
                await self._run_container(volumes)
                await self._deliver(volumes)
        except AttemptFailed as failed:
            await self._report(failed.failure)
        except ContainerInvalid as error:
            await self._report(
                Failure(reason=Reason.EXIT_NONZERO, message=f"The model's container can't be started: {error}")
            )
        except (TaskNotFound, TransitionRefused):
            raise  # core gave the task to somebody else, or to nobody
        except Exception as error:
            log.error("job.broke", error=str(error), exc_info=not isinstance(error, EngineError | DiskFull | OSError))
            await self._report(_failure_of_host(error))
            if not isinstance(error, ImageUnavailable):  # which says more of the image than of the host
                raise HostFailed from error

    async def _fill(self, volumes: AttemptVolumes) -> None:
        """The input and the model's zip, at once."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(volumes.fill_input(self.host.core), name="input")
                keeping = self.host.volumes.keep_model(self.claim.model, self.host.core, self._labels)
                group.create_task(keeping, name="model")
        except ExceptionGroup as errors:
            error = errors.exceptions[0]
            if isinstance(error, InvalidZip | InputGone | OutputGone):
                raise _failed(Reason.INPUT_INVALID, f"The input can't be used: {error}") from error
            raise error from None

    async def _run_container(self, volumes: AttemptVolumes) -> None:
        """Returns when the container has ended well and is gone."""
        model = self.claim.model
        engine = self.host.engine
        spec = ContainerSpec(self._name, model, volumes.mounts, self._labels, self.noted.gpus or ())
        container = await engine.create(spec)
        try:
            await engine.start(container)
            log.info("container.started", image=model.container_tag, gpus=spec.gpus)
            ended = await engine.wait(container, seconds=model.timeout_seconds)
            lack = self.host.disks.lack() if ended.code else None  # the container's own files are about to go
        except TimeoutError:
            tail = await engine.log_tail(container)
            message = f"The model ran longer than its limit of {model.timeout_seconds} seconds"
            raise _failed(Reason.TIMEOUT, _with_log(message, tail)) from None
        finally:
            await to_its_end(self._remove(container))
        log.info("container.exited", exit_code=ended.code)
        if lack and not ended.is_out_of_memory:
            await self._check_size(volumes, ended)
            raise DiskFull(lack)
        _judge(ended)

    async def _check_size(self, volumes: AttemptVolumes, ended: Exit) -> None:
        """A model that filled the disk with more than it may leave is at fault itself."""
        try:
            await volumes.output_zip()
        except OutputTooLarge as error:
            raise _failed(Reason.OUTPUT_TOO_LARGE, str(error), ended.code) from error
        except OutputRefused:
            return

    async def _remove(self, container: str) -> None:
        """How the container ended stands. One that the engine doesn't remove is the host's sweep's, before another task
        gets the GPU.
        """
        try:
            await self.host.engine.remove(container)
        except EngineError as error:
            self.host.left(container)
            log.error("container.left", error=str(error))

    async def _deliver(self, volumes: AttemptVolumes) -> None:
        """Streams /output to core, again from the start if core went away meanwhile."""
        task = self.claim.task

        async def deliver() -> None:
            zip = await volumes.output_zip()
            if zip is None:
                raise _failed(Reason.NO_OUTPUT, "The model exited with code 0 but left nothing in /output", 0)
            await self.host.core.finish(task.uid, task.attempt, zip, self.noted)

        try:
            await patiently(deliver)()
        except (OutputTooLarge, TooLarge) as error:
            raise _failed(Reason.OUTPUT_TOO_LARGE, str(error), 0) from error
        except OutputRefused as error:
            raise _failed(Reason.OUTPUT_INVALID, str(error), 0) from error
        log.info("output.delivered")

    async def _report(self, failure: Failure) -> None:
        log.warning("attempt.failed", **failure.model_dump(exclude={"message"}))
        task = self.claim.task
        await patiently(self.host.core.fail)(task.uid, task.attempt, failure, self.noted)

    @property
    def _name(self) -> str:
        return f"inference-server-{attempt_key(self.claim.task.uid, self.claim.task.attempt)}"

    @property
    def _labels(self) -> dict[str, str]:
        """Leftovers are found by these (gpu_agent/agent.py)."""
        task = self.claim.task
        return {TASK: task.uid, ATTEMPT: str(task.attempt), AGENT: self.host.settings.agent_name}


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


def _judge(ended: Exit) -> None:
    """Raises AttemptFailed unless all went well."""
    if ended.is_out_of_memory:
        message = "The model needed more memory than it may have"
        raise _failed(Reason.OUT_OF_MEMORY, _with_log(message, ended.log_tail), ended.code)
    if ended.code:
        message = f"The model's container exited with code {ended.code}"
        raise _failed(Reason.EXIT_NONZERO, _with_log(message, ended.log_tail), ended.code)


def _failed(reason: Reason, message: str, exit_code: int | None = None) -> AttemptFailed:
    return AttemptFailed(Failure(reason=reason, message=message, exit_code=exit_code))


def _with_log(message: str, log_tail: str) -> str:
    return f"{message}. The last lines of its log:\n{log_tail}" if log_tail.strip() else message
