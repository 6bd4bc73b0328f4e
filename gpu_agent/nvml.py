"""What NVML, the NVIDIA driver's library, says of GPUs. The only importer of pynvml, which is plain Python and loads
libnvidia-ml.so.1 where that is visible: on a host, or in a container with the driver capability `utility`.

The first call takes seconds, the others milliseconds. On a sick driver a call may never return.
"""

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import pynvml

_MiB: Final = 2**20

_OF_THE_DRIVER: Final = frozenset(
    {
        pynvml.NVML_ERROR_UNINITIALIZED,
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED,
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH,
    }
)
"""Errors that say nothing of the GPU that was asked for."""

_RECOVERY: Final = {
    pynvml.NVML_GPU_RECOVERY_ACTION_GPU_RESET: "a reset of the GPU",
    pynvml.NVML_GPU_RECOVERY_ACTION_NODE_REBOOT: "a reboot",
    pynvml.NVML_GPU_RECOVERY_ACTION_DRAIN_AND_RESET: "a reset of the GPU",
    pynvml.NVML_GPU_RECOVERY_ACTION_BUS_RESET: "a reset of the GPU",
    pynvml.NVML_GPU_RECOVERY_ACTION_SYSTEM_REBOOT: "a reboot",
}
"""What the driver may ask for after an error of the hardware, but for what concerns links between GPUs only."""


class NvmlError(Exception):
    """NVML says nothing of any GPU; why, in words."""


class NvmlMissing(NvmlError):
    """Its library isn't visible here."""


@dataclass(frozen=True)
class Reading:
    """One GPU now. What the driver doesn't say is None or empty."""

    memory_mb: int | None = None
    taken_mb: int | None = None
    """By processes: without what the driver keeps for itself."""
    pids: tuple[int, ...] = ()
    """As the host counts them; none are seen from a container that has its own."""
    trouble: str = ""
    """Why it can't compute, in words."""
    busy_percent: int | None = None
    """Of the last moment, in which something ran on it."""


class Nvml:
    """A session, kept open: without persistence mode the driver wakes all GPUs up for each. After an error the next
    call begins another one, which sees what has changed.
    """

    def __init__(self) -> None:
        self._is_open = False

    def read(self, uuids: Collection[str]) -> dict[str, Reading]:
        """Raises NvmlError."""
        try:
            if not self._is_open:
                pynvml.nvmlInit()
                self._is_open = True
            readings = {uuid: _reading(uuid) for uuid in uuids}
        except pynvml.NVMLError as error:
            self._close()
            if error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND:
                raise NvmlMissing("libnvidia-ml.so.1 isn't visible") from error
            raise NvmlError(str(error)) from error
        if any(reading.trouble for reading in readings.values()):
            self._close()
        return readings

    def _close(self) -> None:
        if self._is_open:
            self._is_open = False
            with suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()


def _reading(uuid: str) -> Reading:
    try:
        gpu = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        memory = _said(pynvml.nvmlDeviceGetMemoryInfo, gpu, pynvml.nvmlMemory_v2)
        rates = _said(pynvml.nvmlDeviceGetUtilizationRates, gpu)
        processes = _said(pynvml.nvmlDeviceGetComputeRunningProcesses, gpu) or ()
        return Reading(
            memory_mb=memory and memory.total // _MiB,
            taken_mb=memory and memory.used // _MiB,
            busy_percent=rates and rates.gpu,
            pids=tuple(sorted(process.pid for process in processes)),
            trouble=_asked_recovery(gpu),
        )
    except pynvml.NVMLError as error:
        if error.value in _OF_THE_DRIVER:
            raise
        return Reading(trouble=f"NVML: {error}")


def _asked_recovery(gpu: object) -> str:
    values = _said(pynvml.nvmlDeviceGetFieldValues, gpu, [pynvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION])
    if not values or values[0].nvmlReturn != pynvml.NVML_SUCCESS:
        return ""
    action = _RECOVERY.get(values[0].value.uiVal)
    return f"the driver asks for {action}" if action else ""


def _said(call: Any, *arguments: object) -> Any:
    """None where this driver or this GPU doesn't know the question."""
    try:
        return call(*arguments)
    except pynvml.NVMLError as error:
        if error.value in (
            pynvml.NVML_ERROR_NOT_SUPPORTED,
            pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
            pynvml.NVML_ERROR_NO_PERMISSION,
        ):
            return None
        raise
