"""Who an agent is, as it tells core every few seconds, and what core answers."""

from pydantic import BaseModel, ConfigDict, Field

from core.contract.needs import Need
from core.contract.presence import Present


class Gpu(BaseModel):
    """A GPU that an agent has. What the agent can't learn of it stays empty."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    uuid: str = Field(max_length=256)
    name: str = Field(default="", max_length=256)
    memory_mb: int | None = Field(default=None, ge=0, le=2**62)
    problem: str | None = None
    """Why it is given no task, in words."""


class Disk(BaseModel):
    """Room on a disk."""

    model_config = ConfigDict(frozen=True)

    free_mb: int = Field(ge=0, le=2**62)
    total_mb: int = Field(ge=0, le=2**62)


class AgentReport(BaseModel):
    """What an agent says of itself."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    name: str = Field(min_length=1, max_length=256)
    host: str = ""
    version: str = ""
    driver: str = ""
    """The NVIDIA driver's version."""
    gpus: tuple[Gpu, ...] = ()
    slots: int = Field(default=0, ge=0, le=2**62)
    running: tuple[str, ...] = ()
    """Its attempts, as uid-attempt."""
    disks: dict[str, Disk] = {}
    """Those that it writes to, each by a folder on it."""
    problems: dict[str, str] = {}
    """What keeps it from taking tasks, in words."""

    def has(self, need: Need, *, well: bool = False) -> bool:
        """Whether its GPUs are what a task needs, all of them or those that are well."""
        fitting = [gpu for gpu in self.gpus if need.fits(gpu.memory_mb) and not (well and gpu.problem)]
        return len(fitting) >= need.gpu_count


class Agent(AgentReport, Present):
    """An agent as core knows it."""


class Wanted(BaseModel):
    """What agents may listen for: each need of a registered model that not just any GPU meets."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    needs: tuple[Need, ...] = ()
