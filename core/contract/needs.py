"""What a task needs of an agent: nothing, one of its GPUs, or more than that."""

import re
from typing import Final, Self

from pydantic import BaseModel, ConfigDict

MAX_GPUS: Final = 16
"""The most that a model may ask for: no machine that we know of has more."""

_NAME: Final = re.compile(r"([0-9]+)(?:x([0-9]+)mb)?")


class Need(BaseModel):
    """GPUs that one container gets together; without any, any agent will do."""

    model_config = ConfigDict(frozen=True)

    gpu_count: int = 0
    gpu_memory_mb: int | None = None
    """That each has; None: no matter how much."""

    @property
    def name(self) -> str:
        """Of a need that not just any GPU meets: queues and Redis know it by this. Empty for the others."""
        if self.gpu_memory_mb is not None:
            return f"{self.gpu_count}x{self.gpu_memory_mb}mb"
        return str(self.gpu_count) if self.gpu_count > 1 else ""

    @classmethod
    def named(cls, name: str) -> Self:
        """The need behind a name."""
        found = _NAME.fullmatch(name)
        if found is None:
            raise ValueError(f"{name!r} is no need's name")
        count, memory = found.groups()
        return cls(gpu_count=int(count), gpu_memory_mb=int(memory) if memory else None)

    def fits(self, memory_mb: int | None) -> bool:
        """Whether a GPU with so much memory can be one of those; None: it isn't known how much it has."""
        return self.gpu_memory_mb is None or (memory_mb or 0) >= self.gpu_memory_mb

    def __str__(self) -> str:
        gpus = "a GPU" if self.gpu_count == 1 else f"{self.gpu_count} GPUs"
        if self.gpu_memory_mb is None:
            return gpus
        return f"{gpus} with {self.gpu_memory_mb} MB" + (" each" if self.gpu_count > 1 else "")


ANY: Final = Need()
"""Any agent will do."""
