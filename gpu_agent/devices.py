"""How a container gets its GPUs: what an engine offers, and what it is asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

from gpu_agent.settings import GpuDevices

_KIND: Final = "nvidia.com/gpu="
"""The kind of device that the NVIDIA container toolkit describes."""


@dataclass(frozen=True)
class Offer:
    """What an engine says of its ways."""

    has_runtime: bool = False
    """The toolkit was registered with this engine (`nvidia-ctk runtime configure`)."""
    has_cdi: bool = False
    """It reads CDI files: from 25 on if the operator says so, from 28.3 on unless he says not."""
    cdi_gpus: frozenset[str] = frozenset()
    """By UUID or number. Engines before 28.2 don't list them, whatever they have."""

    @classmethod
    def of(cls, info: Mapping[str, Any]) -> Self:
        """From the answer of the engine's /info."""
        devices = [device["ID"] for device in info.get("DiscoveredDevices") or []]
        return cls(
            has_runtime="nvidia" in info["Runtimes"],
            has_cdi=bool(info.get("CDISpecDirs")),
            cdi_gpus=frozenset(id.removeprefix(_KIND) for id in devices if id.startswith(_KIND)),
        )

    @property
    def uuids(self) -> tuple[str, ...]:
        return tuple(sorted(gpu for gpu in self.cdi_gpus if gpu.startswith("GPU-")))

    def way(self, gpus: Sequence[str]) -> GpuDevices:
        """CDI where the engine is known to have these GPUs so, or knows nothing else; the toolkit's hook otherwise.

        Of both CDI is better: what the hook gives behind the engine's back systemd takes away when it reloads its
        units, from a container that has run for hours
        (https://github.com/NVIDIA/nvidia-container-toolkit/issues/48). The hook works without a registered runtime
        too, so it is what's left.
        """
        is_cdi = self.cdi_gpus.issuperset(gpus) or (self.has_cdi and not self.has_runtime)
        return GpuDevices.CDI if is_cdi else GpuDevices.NVIDIA


def requests(way: GpuDevices, gpus: Sequence[str]) -> list[dict[str, Any]]:
    """The engine's DeviceRequests. What of the driver the hook mounts is the image's to say
    (NVIDIA_DRIVER_CAPABILITIES), else `compute,utility`; naming capabilities here would override the image.
    """
    if way is GpuDevices.CDI:
        return [{"Driver": "cdi", "DeviceIDs": [_KIND + gpu for gpu in gpus]}]
    return [{"Driver": "nvidia", "DeviceIDs": list(gpus), "Capabilities": [["gpu"]]}]
