"""The Docker engine: images, volumes, containers. The only importer of aiodocker."""

import asyncio
import base64
import codecs
import json
import math
import re
import secrets
import struct
import tarfile
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import aiodocker
import aiohttp
import structlog
from aiodocker.containers import DockerContainer
from aiodocker.volumes import DockerVolume

from core.contract.images import repository_of
from core.contract.model import Model, Pull
from gpu_agent import devices, sandbox
from gpu_agent.cancellation import to_its_end
from gpu_agent.settings import GpuDevices

log = structlog.get_logger()

CALL_SECONDS: Final = 60.0
LOG_TAIL_LINES: Final = 50
LOG_TAIL_CHARACTERS: Final = 4000
EVENT_SECONDS: Final = 10.0
"""A container's end shows among the engine's events a moment after whoever waits for it hears of it."""

MiB: Final = 2**20

ENGINES_FILES: Final = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
"""Each container has its own, on the engine's disk and beside its root."""

FRAME_HEADER: Final = struct.Struct(">BxxxL")
"""Of what a container prints: on which of its outputs, and how many bytes."""

_NOT_CONNECTED: Final = 900
"""aiodocker's status for an engine that it can't reach."""

_TAGGED: Final = re.compile(r"[:@][^/]*$")
_EMPTY_TAR: Final = bytes(2 * tarfile.BLOCKSIZE)

TASK: Final = "inference-server.task"
ATTEMPT: Final = "inference-server.attempt"
AGENT: Final = "inference-server.agent"
NAME: Final = "inference-server.name"
REQUEST: Final = "inference-server.request"


class EngineError(Exception):
    """The engine refused or is away: not the model's fault."""


class EngineAway(EngineError):
    """The engine doesn't answer at all."""


class EngineDiskFull(EngineError):
    """There is no room on the engine's disk."""


class ImageUnavailable(EngineError):
    """The image is neither here nor to be pulled."""


class NotFound(EngineError):
    """There is no container, volume or image of that name."""


class GpuUnavailable(EngineError):
    """The engine can't give the container its GPU."""


class ContainerInterrupted(EngineError):
    """The container was ended or removed by somebody, or went down with the engine: not by itself."""


class ContainerInvalid(Exception):
    """The image, or how the model is registered, makes no container that starts: the model's fault."""


@dataclass(frozen=True)
class Mount:
    volume: str
    path: str
    is_read_only: bool
    takes_from_image: bool = False
    """While it is empty, what the image has at the path is copied into it."""


@dataclass(frozen=True)
class ContainerSpec:
    """A container of a task: what differs from one to the next."""

    name: str
    model: Model
    mounts: tuple[Mount, ...]
    labels: Mapping[str, str]
    gpus: tuple[str, ...] = ()


@dataclass(frozen=True)
class Image:
    """An image that is here."""

    id: str
    digest: str
    """Its name in the registry that it came from, down to the content; the id when it came from none."""
    is_new: bool = False
    """Pulled just now, and not what was here before under its name."""


@dataclass(frozen=True)
class Exit:
    """How a container ended, and the last lines of its log unless all went well."""

    code: int
    is_out_of_memory: bool
    log_tail: str = field(default="", repr=False)


@dataclass(frozen=True)
class Written:
    """What a container has changed of its image, in bytes, and the volumes that it has."""

    bytes: int
    volumes: frozenset[str]


class Engine:
    """Open with `async with Engine.open(url, slots=n)`.

    What the engine refuses is an EngineError. Every call has a deadline but `put_tar` and `get_tar`, which take as long
    as the bytes take, and a pull, which goes on for as long as it moves.
    """

    def __init__(
        self, docker: aiodocker.Docker, slots: int, pull_stall_seconds: float, gpu_devices: GpuDevices
    ) -> None:
        self._docker = docker
        self._slots = slots
        self._pull_stall_seconds = pull_stall_seconds
        self._gpu_devices = gpu_devices
        self._offer = devices.Offer()
        self._memory_bytes = 0
        self._looking = asyncio.Lock()
        self._looked_at = -math.inf
        self._volumes: Mapping[str, Any] = {}
        # Known once `check` has asked:
        self.host = ""
        """The name of the machine that the containers run on."""
        self.root = Path()
        """Where the engine keeps its images, as its host knows the path."""
        self.gpus: tuple[str, ...] = ()
        """By UUID, where the engine lists them."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, slots: int, pull_stall_seconds: float, gpu_devices: GpuDevices = GpuDevices.AUTO
    ) -> AsyncIterator["Engine"]:
        """`slots` containers at once share the host's memory unless their models say how much they need."""
        docker = aiodocker.Docker(url=url)
        try:
            yield cls(docker, slots, pull_stall_seconds, gpu_devices)
        finally:
            await docker.close()

    async def check(self) -> None:
        """The engine answers, and says what its host is and has."""
        async with _translated():
            info = await self._docker.system.info()
        for lack in sandbox.lacks(info):
            log.warning("engine.lax", why=lack)
        self._memory_bytes = int(info["MemTotal"])
        self._offer = devices.Offer.of(info)
        self.host = str(info["Name"])
        self.root = Path(info["DockerRootDir"])
        self.gpus = self._offer.uuids

    async def ping(self) -> None:
        """The engine answers; `check` makes it start processes for what it says."""
        async with _translated(), self._docker._query("_ping", versioned_api=False) as response:
            await response.read()

    async def ensure_image(self, reference: str, pull: Pull) -> Image:
        """Pulls the image when the host has none, or always if the model says so. Raises ImageUnavailable."""
        here = await self.image(reference)
        if here and pull is Pull.MISSING:
            return here
        try:
            await self._pull(reference)
        except (EngineAway, EngineDiskFull):
            raise
        except EngineError as error:
            raise ImageUnavailable(f"The image {reference} can't be pulled: {error}") from error
        pulled = await self.image(reference)
        if pulled is None:
            raise ImageUnavailable(f"The image {reference} was removed as soon as it was pulled")
        log.info("image.pulled", image=reference, id=pulled.id)
        return replace(pulled, is_new=here is None or here.id != pulled.id)

    async def _pull(self, reference: str) -> None:
        """aiodocker's own call takes a connection that broke for the end, and leaves a stalled pull going."""
        params = {"fromImage": reference}
        if not _TAGGED.search(reference):
            params["tag"] = "latest"  # else the engine pulls all tags that there are
        stall = self._pull_stall_seconds
        last: dict[str | None, object] = {}
        try:
            async with (
                asyncio.timeout(stall) as deadline,
                _translated(seconds=None),
                self._docker._query("images/create", "POST", params=params, timeout=None) as response,
            ):
                with closing(response):
                    async for line in response.content:
                        said = json.loads(line)
                        if "error" in said:
                            raise _refusal(said["error"])
                        # Some engines repeat what they said while nothing moves.
                        if last.get(said.get("id")) != said:
                            last[said.get("id")] = said
                            deadline.reschedule(asyncio.get_running_loop().time() + stall)
        except TimeoutError:
            raise EngineError(f"nothing came from its registry for {stall:g} seconds") from None

    async def image(self, reference: str) -> Image | None:
        """None when there is no image of that name."""
        try:
            async with _translated():
                found = await self._docker.images.inspect(reference)
        except NotFound:
            return None
        digests = found.get("RepoDigests") or []
        named = [digest for digest in digests if repository_of(digest) == repository_of(reference)]
        return Image(found["Id"], digest=[*named, *digests, found["Id"]][0])

    async def is_untagged(self, image_id: str) -> bool:
        """The image is there, and no name leads to it any more."""
        try:
            async with _translated():
                return not (await self._docker.images.inspect(image_id))["RepoTags"]
        except NotFound:
            return False

    async def remove_image(self, reference: str) -> None:
        """By name only the name goes if the image has another one. Refused while a container has it, running or not.
        Nothing to do when there is none.
        """
        async with _translated(missing_is_fine=True):
            await self._docker.images.delete(reference)

    async def create_volume(self, name: str, labels: Mapping[str, str], *, folder: Path | None = None) -> None:
        """A named volume; with `folder` one that is this folder of the host."""
        config: dict[str, Any] = {"Name": name, "Labels": dict(labels)}
        if folder is not None:
            config |= {"Driver": "local", "DriverOpts": {"type": "none", "o": "bind", "device": str(folder)}}
        async with _translated():
            await self._docker.volumes.create(config)

    async def keep_volume(self, name: str, *, folder: Path | None = None) -> None:
        """As `create_volume`, for one that may be there already: the engine leaves such as it is, even if it is of a
        folder that was given up.
        """
        await self.create_volume(name, {}, folder=folder)
        async with _translated():
            volume = DockerVolume(self._docker, name)
            options = (await volume.show())["Options"] or {}
            if options.get("device") == (folder and str(folder)):
                return
            await volume.delete()
        await self.create_volume(name, {}, folder=folder)

    async def remove_volume(self, name: str) -> None:
        """Nothing to do when there is none."""
        async with _translated(missing_is_fine=True):
            await DockerVolume(self._docker, name).delete()

    async def has_volume(self, name: str) -> bool:
        try:
            async with _translated():
                await DockerVolume(self._docker, name).show()
        except NotFound:
            return False
        return True

    async def create(self, spec: ContainerSpec) -> str:
        """The container's id. Raises as `start` does: what is wrong may show at either. Cancelled, it returns when
        the engine has done what it was asked for.
        """
        return await self._create(spec.name, self._config(spec))

    async def create_idle(self, name: str, image: str, mounts: Sequence[Mount], labels: Mapping[str, str]) -> str:
        """A container that never starts: a way to the volumes for tar streams."""
        config = {"Image": image, "Cmd": ["-"], "Labels": dict(labels), "HostConfig": {"Mounts": _mounts(mounts)}}
        return await self._create(name, config)

    async def _create(self, name: str, config: Mapping[str, Any]) -> str:
        try:
            return await to_its_end(self._create_once(name, config))
        except NotFound:  # somebody removed the image since it was ensured
            log.warning("image.vanished", image=config["Image"])
            await self.ensure_image(config["Image"], Pull.MISSING)
        try:
            return await to_its_end(self._create_once(name, config))
        except NotFound as error:
            raise ImageUnavailable(f"The image {config['Image']} is removed again and again") from error

    async def _create_once(self, name: str, config: Mapping[str, Any]) -> str:
        async with _blamed():
            container = await self._docker.containers.create(config, name=name)
        return str(container.id)

    async def put_tar(self, container_id: str, path: str, tar: AsyncIterator[bytes]) -> None:
        """Unpacks a tar stream below the container's `path`. No mount on the way may be read-only."""
        async with _translated(seconds=None):
            await self._container(container_id).put_archive(path, tar)

    async def get_tar(self, container_id: str, path: str) -> AsyncGenerator[bytes, None]:
        """The container's `path` as a tar stream. aiodocker's own call would hold it in memory, and gzipped.

        Close it when it isn't read to its end: until then the engine keeps the container from being removed.
        """
        async with (
            _translated(seconds=None),
            self._docker._query(
                f"containers/{container_id}/archive", params={"path": path}, headers={"Accept-Encoding": "identity"}
            ) as response,
        ):
            with closing(response):
                async for piece in response.content.iter_any():
                    yield piece

    async def sees(self, folder: Path, agent: str) -> bool:
        """Whether this folder of ours is at the same path for the engine: a file put into a volume of it shows."""
        name = f"inference-server-probe-{secrets.token_hex(8)}"
        labels = {AGENT: agent, TASK: "probe"}
        try:
            await self._import_empty_image(name)
            await self.create_volume(name, labels, folder=folder)
            container = await self.create_idle(name, name, [Mount(name, "/probe", is_read_only=False)], labels)
            await self.put_tar(container, "/probe", _tar_of_empty_file(name))
            return (folder / name).exists()
        except (EngineAway, EngineDiskFull):
            raise  # which says nothing about the folder
        except EngineError as error:
            log.info("folder.unshared", folder=str(folder), error=str(error))
            return False
        finally:
            (folder / name).unlink(missing_ok=True)
            await self.remove(name)
            await self.remove_volume(name)
            await self.remove_image(name)

    async def _import_empty_image(self, name: str) -> None:
        async with (
            _translated(),
            self._docker._query(
                "images/create",
                "POST",
                params={"fromSrc": "-", "repo": name},
                data=_EMPTY_TAR,
                headers={"Content-Type": "application/x-tar"},
            ) as response,
        ):
            await response.read()

    async def start(self, container_id: str) -> None:
        """Raises ContainerInvalid or GpuUnavailable, as the engine's words tell them apart."""
        async with _blamed():
            await self._container(container_id).start()

    async def wait(self, container_id: str, *, seconds: float) -> Exit:
        """Raises TimeoutError when it runs longer than that, ContainerInterrupted when it didn't end by itself."""
        container = self._container(container_id)
        try:
            async with asyncio.timeout(seconds), _translated(seconds=None):
                if (await container.wait())["StatusCode"] == 0:
                    return Exit(0, is_out_of_memory=False)
            async with _translated():
                state = (await container.show())["State"]
        except NotFound as error:
            raise ContainerInterrupted("The container was removed while it ran") from error
        code = int(state["ExitCode"])
        if code and not await self._ended_by_itself(container_id):
            raise ContainerInterrupted("The container was ended from outside while it ran")
        is_out_of_memory = bool(state["OOMKilled"]) and code != 0
        return Exit(code, is_out_of_memory, log_tail=await self.log_tail(container_id) if code else "")

    async def _ended_by_itself(self, container_id: str) -> bool:
        """The engine remembers that the container died, and no signal before: not `docker stop`, not its own shutdown,
        and it is the engine that started the container.
        """
        params = {"since": "0", "filters": json.dumps({"container": [container_id], "event": ["die", "kill"]})}
        with suppress(TimeoutError):
            async with (
                asyncio.timeout(EVENT_SECONDS),
                _translated(seconds=None),
                self._docker._query("events", params=params, timeout=None) as response,
            ):
                with closing(response):
                    async for line in response.content:
                        return bool(json.loads(line)["Action"] == "die")
        return False

    async def printed(self, container_id: str) -> AsyncGenerator[tuple[int, str], None]:
        """What the container prints from now on until it has ended, as it comes, with the number of the output. What
        comes first is empty, and says that from there on nothing is missed. Who doesn't read holds the container up.

        The engine's log won't do: it has a line only when its end has come, which that of a progress bar never does.
        """
        params = {"stream": "1", "stdout": "1", "stderr": "1"}
        frames = Frames()
        async with (
            _translated(seconds=None),
            self._docker._query(f"containers/{container_id}/attach", "POST", params=params, timeout=None) as response,
        ):
            with closing(response):
                yield 0, ""
                async for piece in response.content.iter_any():
                    for text in frames.texts(piece):
                        yield text

    async def log_tail(self, container_id: str) -> str:
        async with _translated():
            lines = await self._container(container_id).log(stdout=True, stderr=True, tail=LOG_TAIL_LINES)
        return "".join(lines)[-LOG_TAIL_CHARACTERS:]

    async def written(self, container_id: str) -> Written:
        """To its root, on the engine's disk, and not to what is mounted there."""
        async with _translated():
            shown = await self._container(container_id).show(size="1")
        volumes = frozenset(mount["Name"] for mount in shown.get("Mounts") or () if mount["Type"] == "volume")
        return Written(_told(shown.get("SizeRw")), volumes)

    async def engines_files_bytes(self, container_id: str) -> int:
        """Of those files that the engine makes for each container, which may write them."""
        total = 0
        for path in ENGINES_FILES:
            query = self._docker._query(f"containers/{container_id}/archive", "HEAD", params={"path": path})
            async with _translated(missing_is_fine=True), query as response:
                status = base64.b64decode(response.headers.get("X-Docker-Container-Path-Stat", ""))
                total += _told(json.loads(status or "{}").get("size"))
        return total

    async def volume_bytes(self, names: Set[str]) -> int:
        """Of volumes that aren't folders of ours. The engine, asked for one, looks at all that it has, and 20.10
        refuses to do so twice at a time: all who wait share one look, which began after they asked.
        """
        if not names:
            return 0
        asked_at = time.monotonic()
        async with self._looking:
            if self._looked_at < asked_at:
                began_at = time.monotonic()
                self._volumes = await self._volumes_used()
                self._looked_at = began_at
        return sum(_told((self._volumes.get(name) or {}).get("Size")) for name in names)

    async def _volumes_used(self) -> dict[str, Any]:
        """Of each volume what the engine says of its use, None from some."""
        async with _translated(), self._docker._query("system/df", params={"type": "volume"}) as response:
            volumes = (await response.json()).get("Volumes") or ()
        return {volume["Name"]: volume.get("UsageData") for volume in volumes}

    async def kill(self, container_id: str) -> None:
        """Refused when it has ended."""
        async with _translated(missing_is_fine=True):
            await self._container(container_id).kill()

    async def remove(self, container_id: str) -> None:
        """Kills it if it runs. Nothing to do when it is gone."""
        async with _translated(missing_is_fine=True):
            await self._container(container_id).delete(force=True, v=True)

    async def left_containers(self, agent: str) -> dict[str, Mapping[str, str]]:
        """Containers that carry the agent's name: each by its own name, with its labels."""
        async with _translated():
            filters = json.dumps({"label": [f"{AGENT}={agent}"]})
            found = await self._docker.containers.list(all="true", filters=filters)
        return {container["Names"][0].removeprefix("/"): container["Labels"] for container in found}

    async def left_volumes(self, agent: str) -> dict[str, Mapping[str, str]]:
        """Volumes of tasks that carry the agent's name: name → labels."""
        async with _translated():
            found = await self._docker.volumes.list(filters={"label": [f"{AGENT}={agent}", TASK]})
        return {volume["Name"]: volume["Labels"] for volume in found["Volumes"] or []}

    def _container(self, container_id: str) -> DockerContainer:
        return self._docker.containers.container(container_id)

    def _config(self, spec: ContainerSpec) -> dict[str, Any]:
        model = spec.model
        slots = max(1, len(spec.gpus))
        memory = model.memory_mb * MiB if model.memory_mb else self._memory_bytes * 9 // 10 * slots // self._slots
        config = sandbox.config(model, memory_bytes=memory)
        config["HostConfig"]["Mounts"] = _mounts(spec.mounts)
        if spec.gpus:
            way = self._offer.way(spec.gpus) if self._gpu_devices is GpuDevices.AUTO else self._gpu_devices
            config["HostConfig"]["DeviceRequests"] = devices.requests(way, spec.gpus)
        return config | {"Image": model.image, "Labels": dict(spec.labels)}


class Frames:
    """What comes of a container in pieces that are cut anywhere: on which of its outputs, and the text."""

    def __init__(self) -> None:
        self._rest = b""
        self._decoders = defaultdict[int, codecs.IncrementalDecoder](_utf_8)

    def texts(self, piece: bytes) -> Iterator[tuple[int, str]]:
        came, at = self._rest + piece, 0
        while len(came) >= (begin := at + FRAME_HEADER.size):
            output, length = FRAME_HEADER.unpack_from(came, at)
            if len(came) < begin + length:
                break
            at = begin + length
            if text := self._decoders[output].decode(came[begin:at]):
                yield output, text
        self._rest = came[at:]


def _told(size: object) -> int:
    """Raises EngineError when the engine told none."""
    if not isinstance(size, int):
        raise EngineError("The engine doesn't tell how much containers write")
    return max(0, size)


def _utf_8() -> codecs.IncrementalDecoder:
    """A character may be cut in two, and a container may print what is none."""
    return codecs.getincrementaldecoder("utf-8")(errors="replace")


def _mounts(mounts: Sequence[Mount]) -> list[dict[str, Any]]:
    return [
        {
            "Type": "volume",
            "Source": mount.volume,
            "Target": mount.path,
            "ReadOnly": mount.is_read_only,
            "VolumeOptions": {"NoCopy": not mount.takes_from_image},
        }
        for mount in mounts
    ]


async def _tar_of_empty_file(name: str) -> AsyncIterator[bytes]:
    yield tarfile.TarInfo(name).tobuf() + _EMPTY_TAR


_BLAME: Final[tuple[tuple[str, type[EngineError | ContainerInvalid]], ...]] = (
    # The host's, though they read like the image's below.
    (r"docker-init|mounting volume|mount local volume", EngineError),
    # The image's user, command and folders.
    (r"unable to find (?:user|group) |uids and gids must be in range", ContainerInvalid),
    (r"no command specified", ContainerInvalid),
    (r"start(?:ing)? container process(?: caused)?:? (?:error during container init: )?\"?exec: ", ContainerInvalid),
    (r"not (?:a )?directory|volume over existing file|chdir to cwd", ContainerInvalid),
    # The model's limits.
    (r"range of CPUs is from|/(?:cpu\.cfs_quota_us|cpu\.max|pids\.max): invalid argument", ContainerInvalid),
    (r"could not select device driver|nvidia|\bCDI\b|/libcuda\.so", GpuUnavailable),
)
"""By the engine's words, whose fault it is that a container isn't created or doesn't start: the first that fits."""


def at_fault(words: str) -> type[EngineError | ContainerInvalid]:
    """The engine's own refusal where nothing else is known: that is tried again."""
    return next((kind for pattern, kind in _BLAME if re.search(pattern, words, re.IGNORECASE)), EngineError)


@asynccontextmanager
async def _blamed() -> AsyncIterator[None]:
    """As `_translated`, for what makes or starts a container."""
    try:
        async with _translated():
            yield
    except EngineError as error:
        if type(error) is not EngineError:
            raise
        raise at_fault(str(error))(str(error)) from error


def _refusal(words: str) -> EngineError:
    return EngineDiskFull(words) if "no space left on device" in words else EngineError(words)


@asynccontextmanager
async def _translated(*, seconds: float | None = CALL_SECONDS, missing_is_fine: bool = False) -> AsyncIterator[None]:
    """aiodocker's exceptions, and an engine that doesn't answer, as EngineError."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except aiodocker.DockerError as error:
        if error.status == 404:
            if missing_is_fine:
                return
            raise NotFound(error.message) from error
        if error.status == _NOT_CONNECTED:
            raise EngineAway(error.message) from error
        raise _refusal(error.message) from error
    except (aiohttp.ClientError, OSError) as error:
        raise EngineAway(f"The Docker engine did not answer: {error!r}") from error
