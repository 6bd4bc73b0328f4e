"""Which GPUs this host has, by UUID, from the NVIDIA driver's files: the agent's image needs none of its libraries."""

import re
from pathlib import Path
from typing import Final

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
