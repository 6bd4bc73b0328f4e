"""Which GPUs this host has, by UUID, from the NVIDIA driver's files: the agent's image needs none of its libraries."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from gpu_agent.settings import Settings

DRIVER: Final = Path("/proc/driver/nvidia/gpus")
_UUID: Final = re.compile(r"^GPU UUID:\s*(GPU-[0-9a-fA-F-]+)\s*$", re.MULTILINE)


def found(driver: Path = DRIVER) -> list[str]:
    """In the order of their PCI addresses; empty without a driver."""
    texts = [path.read_text() for path in sorted(driver.glob("*/information"))]
    return [match[1] for text in texts if (match := _UUID.search(text))]


def chosen(gpu_uuid: str, *, driver: Path = DRIVER) -> list[str]:
    """The GPUs of an agent: those named in the setting, or all. The engine says if a named one isn't there."""
    named = [name.strip() for name in gpu_uuid.split(",") if name.strip()]
    return named or found(driver)


@dataclass(frozen=True)
class Gpu:
    uuid: str
    name: str = ""
    memory_mb: int | None = None


class Gpus:
    def __init__(self, settings: Settings, driver: Path) -> None:
        self.all = tuple(Gpu(uuid) for uuid in chosen(settings.gpu_uuid, driver=driver))
        self.driver = ""

    @classmethod
    async def of(cls, settings: Settings, *, driver: Path = DRIVER) -> Self:
        return cls(settings, driver)

    async def problems(self, in_use: Collection[str]) -> Mapping[str, str]:
        return {}
