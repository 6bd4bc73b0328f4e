"""What an operator may set of an agent. Each field is an environment variable of the same name, in capitals."""

import socket
from enum import StrEnum
from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from core.amqp import BrokerSettings
from core.client import CoreAccess
from core.contract.images import ListedRepositories
from core.exposition import MetricsPort


class GpuDevices(StrEnum):
    AUTO = "auto"
    """What the engine offers."""
    NVIDIA = "nvidia"
    """The hook of the NVIDIA container toolkit."""
    CDI = "cdi"
    """The Container Device Interface: devices that the toolkit has described in files that the engine reads."""


class Settings(BrokerSettings, CoreAccess, MetricsPort):
    model_config = SettingsConfigDict(frozen=True, hide_input_in_errors=True)

    agent_name: str = Field(default_factory=socket.gethostname, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")
    """One name, one running agent: what carries the name of an agent that isn't running is removed."""

    work_dir: Path = Path("/var/lib/inference-server")
    """Where the volumes' directories are; the agent and the engine must see it at the same path."""

    docker_host: str = "unix:///var/run/docker.sock"

    gpu_uuid: str = ""
    """The GPUs of this agent, by UUID, separated by commas; empty: all that the host has; `none`: none of them."""

    gpu_devices: GpuDevices = GpuDevices.AUTO
    """How a container is given its GPUs."""

    gpu_foreign_mb: int = Field(default=1024, ge=0)
    """More than this, taken on a GPU that runs no task of the agent's, is somebody's work; less may be a desktop's."""

    cpu_slots: int = Field(default=1, ge=1)
    """How many tasks run at once on a host without GPUs."""

    image_allow: ListedRepositories = ""
    """Repositories, with commas between, whose images may be pulled and run here, whatever core says; empty: all."""

    pull_stall_seconds: float = Field(default=120.0, gt=0)
    """A pull of an image may take as long as it takes, but not stand still for longer than this."""

    min_free_mb: int = Field(default=1024, ge=0)
    """With less room on its disks the agent takes no tasks, and blames no model for what fails."""

    prune_images_above: float = Field(default=85.0, ge=0, le=100)
    prune_images_below: float = Field(default=75.0, ge=0, le=100)
    """Percent of the engine's disk: fuller than the first, images that agents pulled and no model names go until it is
    down to the second.
    """

    drain_seconds: float = Field(default=30.0, ge=0)
    """After SIGTERM running tasks have this long to end, then they are handed back."""
