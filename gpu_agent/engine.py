"""The Docker engine: images, volumes, containers. The only importer of aiodocker."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiodocker
import aiohttp
import structlog
from aiodocker.containers import DockerContainer

from core.contract.model import Model, Pull

log = structlog.get_logger()

CALL_SECONDS: Final = 60.0
PULL_SECONDS: Final = 3600.0
LOG_TAIL_LINES: Final = 50
LOG_TAIL_CHARACTERS: Final = 4000
LOG_FILE_SIZE: Final = "16m"
MiB: Final = 2**20

TASK: Final = "inference-server.task"
ATTEMPT: Final = "inference-server.attempt"
AGENT: Final = "inference-server.agent"


class EngineError(Exception):
    """The engine refused or is away: not the model's fault."""


class ImageUnavailable(EngineError):
    """The image is neither here nor to be pulled."""


class GpuUnavailable(EngineError):
    """The engine can't give the container its GPU."""


class CommandInvalid(Exception):
    """The image's own command can't be started: the model's fault."""


@dataclass(frozen=True)
class Mount:
    volume: str
    path: str
    is_read_only: bool


@dataclass(frozen=True)
class ContainerSpec:
    """A container of a task: what differs from one to the next."""

    name: str
    model: Model
    mounts: tuple[Mount, ...]
    labels: Mapping[str, str]
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exit:
    """How a container ended, and the last lines of its log unless all went well."""

    code: int
    is_out_of_memory: bool
    log_tail: str = field(default="", repr=False)


class Engine:
    """Open with `async with Engine.open(url)`. Every call has a deadline; what the engine refuses is an EngineError."""

    def __init__(self, docker: aiodocker.Docker) -> None:
        self._docker = docker
        self._memory_bytes = 0

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str) -> AsyncIterator["Engine"]:
        docker = aiodocker.Docker(url=url)
        try:
            yield cls(docker)
        finally:
            await docker.close()

    async def check(self) -> None:
        """The engine answers, and says how much memory its host has."""
        async with _translated():
            info = await self._docker.system.info()
        self._memory_bytes = int(info["MemTotal"])

    async def ensure_image(self, reference: str, pull: Pull) -> None:
        """Pulls the image when the host has none, or always if the model says so. Raises ImageUnavailable."""
        try:
            if pull is Pull.MISSING and await self._has_image(reference):
                return
            async with asyncio.timeout(PULL_SECONDS):
                await self._docker.images.pull(reference)
            log.info("image.pulled", image=reference)
        except (aiodocker.DockerError, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ImageUnavailable(f"The image {reference} can't be pulled: {_said(error)}") from error

    async def create_volume(self, name: str, labels: Mapping[str, str], *, folder: Path | None = None) -> None:
        """A named volume; with `folder` one that is this folder of the host."""
        config: dict[str, Any] = {"Name": name, "Labels": dict(labels)}
        if folder is not None:
            config |= {"Driver": "local", "DriverOpts": {"type": "none", "o": "bind", "device": str(folder)}}
        async with _translated():
            await self._docker.volumes.create(config)

    async def remove_volume(self, name: str) -> None:
        """Nothing to do when there is none."""
        async with _translated(missing_is_fine=True):
            await (await self._docker.volumes.get(name)).delete()

    async def create(self, spec: ContainerSpec) -> str:
        """The container's id."""
        async with _translated():
            container = await self._docker.containers.create(self._config(spec), name=spec.name)
        return str(container.id)

    async def start(self, container_id: str) -> None:
        """Raises CommandInvalid or GpuUnavailable, as the engine's words tell them apart."""
        try:
            async with _translated():
                await self._container(container_id).start()
        except EngineError as error:
            words = str(error)
            if "could not select device driver" in words or "nvidia" in words.lower() or "CDI" in words:
                raise GpuUnavailable(words) from error
            if "exec:" in words or "No command specified" in words or "permission denied" in words:
                raise CommandInvalid(words) from error
            raise

    async def wait(self, container_id: str, *, seconds: float) -> Exit:
        """Raises TimeoutError when it runs longer than that."""
        container = self._container(container_id)
        async with asyncio.timeout(seconds), _translated(seconds=None):
            await container.wait()
        async with _translated():
            state = (await container.show())["State"]
        code = int(state["ExitCode"])
        is_out_of_memory = bool(state["OOMKilled"]) and code != 0
        return Exit(code, is_out_of_memory, log_tail=await self.log_tail(container_id) if code else "")

    async def log_tail(self, container_id: str) -> str:
        async with _translated():
            lines = await self._container(container_id).log(stdout=True, stderr=True, tail=LOG_TAIL_LINES)
        return "".join(lines)[-LOG_TAIL_CHARACTERS:]

    async def remove(self, container_id: str) -> None:
        """Kills it if it runs. Nothing to do when it is gone."""
        async with _translated(missing_is_fine=True):
            await self._container(container_id).delete(force=True, v=True)

    async def left_containers(self, agent: str) -> dict[str, Mapping[str, str]]:
        """Containers that carry the agent's name: id → labels."""
        async with _translated():
            filters = json.dumps({"label": [f"{AGENT}={agent}"]})
            found = await self._docker.containers.list(all="true", filters=filters)
        return {container.id: container["Labels"] for container in found}

    async def left_volumes(self, agent: str) -> dict[str, Mapping[str, str]]:
        """Volumes of tasks that carry the agent's name: name → labels."""
        async with _translated():
            found = await self._docker.volumes.list(filters={"label": [f"{AGENT}={agent}", TASK]})
        return {volume["Name"]: volume["Labels"] for volume in found["Volumes"] or []}

    def _container(self, container_id: str) -> DockerContainer:
        return self._docker.containers.container(container_id)

    async def _has_image(self, reference: str) -> bool:
        try:
            async with asyncio.timeout(CALL_SECONDS):
                await self._docker.images.inspect(reference)
        except aiodocker.DockerError as error:
            if error.status != 404:
                raise
            return False
        return True

    def _config(self, spec: ContainerSpec) -> dict[str, Any]:
        """The sandbox: what a container may do beyond this, only an operator can register."""
        model = spec.model
        memory = model.memory_mb * MiB if model.memory_mb else self._memory_bytes * 9 // 10
        host: dict[str, Any] = {
            "Mounts": [
                {"Type": "volume", "Source": mount.volume, "Target": mount.path, "ReadOnly": mount.is_read_only}
                for mount in spec.mounts
            ],
            "NetworkMode": "bridge" if model.network else "none",
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Init": True,
            "IpcMode": "private",
            "PidsLimit": model.pids,
            "Memory": memory,
            "MemorySwap": memory,
            "NanoCpus": int((model.cpus or 0) * 1e9),
            "ShmSize": model.shm_mb * MiB,
            "LogConfig": {"Type": "json-file", "Config": {"max-size": LOG_FILE_SIZE, "max-file": "1"}},
        }
        if spec.gpus:
            host["DeviceRequests"] = [{"DeviceIDs": list(spec.gpus), "Capabilities": [["gpu"]]}]
        return {"Image": model.container_tag, "Labels": dict(spec.labels), "HostConfig": host}


@asynccontextmanager
async def _translated(*, seconds: float | None = CALL_SECONDS, missing_is_fine: bool = False) -> AsyncIterator[None]:
    """aiodocker's exceptions, and an engine that doesn't answer, as EngineError."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except aiodocker.DockerError as error:
        if not (missing_is_fine and error.status == 404):
            raise EngineError(_said(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise EngineError(f"The Docker engine did not answer: {error!r}") from error


def _said(error: Exception) -> str:
    return str(error.message) if isinstance(error, aiodocker.DockerError) else repr(error)
