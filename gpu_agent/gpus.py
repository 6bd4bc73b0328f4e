"""The GPUs of an agent, and which of them are fit for a task.

Which there are stands in files of the NVIDIA driver that any container sees. What they don't say, how much memory a
GPU has and who takes it, NVML says where its library is visible (nvml.py).
"""

import asyncio
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self, TypeVar

import structlog

from gpu_agent.nvml import Nvml, NvmlError, NvmlMissing, Reading
from gpu_agent.settings import Settings

log = structlog.get_logger()

DRIVER: Final = Path("/proc/driver/nvidia")
FIRST_SECONDS: Final = 60.0
"""Without persistence mode the driver wakes up one GPU after the other for whoever asks first."""

SECONDS: Final = 3.0

_UUID: Final = re.compile(r"^GPU UUID:[ \t]*(\S+)", re.MULTILINE)
_NAME: Final = re.compile(r"^Model:[ \t]*(\S.*?)[ \t]*$", re.MULTILINE)
_VERSION: Final = re.compile(r"Kernel Module(?: for \S+)?\s+(\d[\d.]*)")
_ASLEEP: Final = "GPU-?"
"""How the UUID begins of a GPU that nobody has used since the driver was loaded."""

_MIG: Final = "MIG-"
_NONE: Final = "none"

Value = TypeVar("Value")


class DriverHangs(Exception):
    """The NVIDIA driver is there and doesn't answer, so nobody knows which GPUs there are."""


@dataclass(frozen=True)
class Gpu:
    uuid: str
    name: str = ""
    memory_mb: int | None = None


@dataclass(frozen=True)
class _Look:
    """What driver and NVML said at one time."""

    names: Mapping[str, str]
    """Of the GPUs that the driver has, by UUID, in the order of their PCI addresses."""
    readings: Mapping[str, Reading]
    nvml: NvmlError | None
    """Why there are no readings."""

    @property
    def awake(self) -> list[str]:
        return [uuid for uuid in self.names if not uuid.startswith(_ASLEEP)]


class Gpus:
    """`all` are the agent's own: those that GPU_UUID names, else all of the host's.

    A MIG device can be named, `MIG-…`; nothing is known of it and it is never found unfit. The same goes for GPUs of
    an engine on another host.
    """

    def __init__(self, settings: Settings, driver: Path) -> None:
        self._foreign_mb = settings.gpu_foreign_mb
        self._folder = driver
        self._has_driver = driver.is_dir()
        self._nvml = Nvml()
        self._looking: asyncio.Future[_Look] | None = None
        self._taken: set[str] = set()
        self._unfit: set[str] = set()
        self.driver = _version(driver)
        """Its version; empty where there is none."""
        self.all: tuple[Gpu, ...] = ()
        self.readings: Mapping[str, Reading] = {}
        """What NVML said last, by UUID."""

    @classmethod
    async def of(cls, settings: Settings, *, discovered: Iterable[str] = (), driver: Path = DRIVER) -> Self:
        """`discovered` are those that the engine lists, of which an agent on another host sees nothing itself.
        Raises DriverHangs.
        """
        gpus = cls(settings, driver)
        if settings.gpu_uuid.strip() == _NONE:
            return gpus
        look = _Look({}, {}, None)
        if gpus._has_driver:
            try:
                look = await gpus._look(FIRST_SECONDS)
            except TimeoutError:
                raise DriverHangs("The NVIDIA driver doesn't answer: see dmesg, or reboot") from None
        named = [name.strip() for name in settings.gpu_uuid.split(",") if name.strip()]
        gpus.all = tuple(
            Gpu(uuid, look.names.get(uuid, ""), look.readings.get(uuid, Reading()).memory_mb)
            for uuid in dict.fromkeys(named or look.awake or discovered)
        )
        if len(look.awake) < len(look.names):
            log.warning("gpu.asleep", hint="a GPU shows no UUID before its first use: run nvidia-smi -pm 1 on the host")
        if gpus.all and isinstance(look.nvml, NvmlMissing):
            log.warning(
                "nvml.missing",
                hint="memory, other processes and errors of the GPUs go unchecked: give the agent's container the GPUs"
                " (--gpus all) with the driver capability utility",
            )
        return gpus

    async def problems(self, in_use: Collection[str]) -> Mapping[str, str]:
        """Why a GPU should get no task now: UUID → words for people. Those `in_use` run a task of this agent.

        It doesn't raise, and returns within seconds.
        """
        checked = self._checked if self._has_driver else []
        found = {}
        self.readings = {}
        if checked:
            try:
                look = await self._look(SECONDS)
            except TimeoutError:
                words = f"the NVIDIA driver hasn't answered for {SECONDS:g} seconds: see dmesg, or reboot"
                found = dict.fromkeys(checked, words)
            else:
                self.readings = look.readings
                judged = {uuid: self._judged(uuid, look, is_ours=uuid in in_use) for uuid in checked}
                found = {uuid: words for uuid, words in judged.items() if words}
        self._note(found)
        return found

    def _judged(self, uuid: str, look: _Look, *, is_ours: bool) -> str:
        if uuid not in look.names and len(look.awake) == len(look.names):
            return gone(uuid, look.names)
        if look.nvml:
            return "" if isinstance(look.nvml, NvmlMissing) else f"NVML: {look.nvml}: see dmesg, or reboot"
        reading = look.readings[uuid]
        if reading.trouble:
            return f"{reading.trouble}: see nvidia-smi -q and dmesg"
        taken = "" if is_ours else foreign(reading, self._foreign_mb)
        if taken and uuid in self._taken:
            return taken
        # Once says nothing: a container that has just ended may still be giving its memory back.
        self._taken = self._taken | {uuid} if taken else self._taken - {uuid}
        return ""

    def _note(self, found: Mapping[str, str]) -> None:
        for uuid in found.keys() - self._unfit:
            log.error("gpu.drained", gpu=uuid, why=found[uuid])
        for uuid in self._unfit - found.keys():
            log.info("gpu.back", gpu=uuid)
        self._unfit = set(found)

    async def _look(self, seconds: float) -> _Look:
        """Raises TimeoutError while the driver doesn't answer; whoever asks again waits for the same answer."""
        looking = self._looking = self._looking or _in_thread(self._look_now)
        await asyncio.wait({looking}, timeout=seconds)
        if not looking.done():
            raise TimeoutError
        self._looking = None
        return looking.result()

    def _look_now(self) -> _Look:
        try:
            self._nvml.read(())  # the driver's files name no GPU that sleeps
            look = _Look(_names(self._folder), {}, None)
            return replace(look, readings=self._nvml.read(self._checked or look.awake))
        except NvmlError as error:
            return _Look(_names(self._folder), {}, error)

    @property
    def _checked(self) -> list[str]:
        return [gpu.uuid for gpu in self.all if not gpu.uuid.startswith(_MIG)]


def gone(uuid: str, there: Collection[str]) -> str:
    """What to say of a GPU that the driver doesn't have."""
    return f"the NVIDIA driver has no {uuid} (any more), but {', '.join(there) or 'none'}: see dmesg, or reboot"


def foreign(reading: Reading, limit_mb: int) -> str:
    """What to say of a GPU that runs no task of ours; nothing if others leave it alone."""
    if reading.taken_mb is None or reading.taken_mb <= limit_mb:
        return ""
    pids = f": pids {', '.join(map(str, reading.pids))}" if reading.pids else ""
    return f"{reading.taken_mb} MB of its memory are taken by processes that aren't InferenceServer's{pids}"


def _names(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.glob("gpus/*/information")):
        with suppress(OSError):  # it goes this moment
            text = path.read_text()
            if uuid := _UUID.search(text):
                found[uuid[1]] = name[1] if (name := _NAME.search(text)) else ""
    return found


def _version(folder: Path) -> str:
    file = folder / "version"
    found = _VERSION.search(file.read_text()) if file.exists() else None
    return found[1] if found else ""


def _in_thread(call: Callable[[], Value]) -> asyncio.Future[Value]:
    """One that never returns doesn't keep the process from ending, as one in the loop's own executor would."""
    future: Future[Value] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - it is whoever waits who handles it
            future.set_exception(error)

    threading.Thread(target=run, name="gpus", daemon=True).start()
    return asyncio.wrap_future(future)
