"""What a model is: an image, perhaps a zip that comes with it, and how its containers may run."""

import re
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, computed_field

from core.contract.needs import ANY, MAX_GPUS, Need
from core.contract.task import MAX_ATTEMPTS, Blob

MODEL_VOLUME: Final = "inference-server-model-{}"
"""Of the zip's id."""

IMAGE_REFERENCE: Final = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]+)?/)?"  # registry host
    r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*"  # repository
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"  # tag
    r"(?:@sha256:[0-9a-f]{64})?",  # digest
)
"""An image's reference after the OCI distribution specification's grammar."""


def without_tag(reference: str) -> str:
    """And without a digest."""
    name, _, _ = reference.partition("@")
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(":")[0]


ModelName = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]
ImageReference = Annotated[str, StringConstraints(max_length=512, pattern=f"^{IMAGE_REFERENCE.pattern}$")]


MAX_MB: Final = 2**30
MAX_HOURS: Final = 10**7
MAX_TIMEOUT_SECONDS: Final = 10**9

Megabytes = Annotated[int, Field(ge=1, le=MAX_MB)]
Hours = Annotated[float, Field(ge=0, le=MAX_HOURS)]


class Pull(StrEnum):
    """When an agent pulls the image: if its host has none, or before each run."""

    MISSING = "missing"
    ALWAYS = "always"


class ModelSpec(BaseModel):
    """What its owner says of a model; the names of version 1's parameters."""

    model_config = ConfigDict(frozen=True, protected_namespaces=(), use_attribute_docstrings=True)

    human_readable_id: ModelName
    container_tag: ImageReference
    description: str = Field(default="", max_length=10_000)
    use_gpu: bool = True
    model_available: bool = False
    """Whether a zip comes with the model, mounted at /model."""


class Limits(BaseModel):
    """How a model's containers may run, and its tasks be kept. Only an operator sets these: the public call ignores
    them.
    """

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    pull: Pull = Pull.MISSING
    pin: bool = False
    """The content that the image's name stands for when a task first ends well is the revision's for good, on every
    host; without a registry that tells its digest, it is as without.
    """
    network: bool = False
    gpu_count: int = Field(default=1, ge=1, le=MAX_GPUS)
    gpu_memory_mb: Megabytes | None = None
    """Of each GPU; None: any will do. Both only count for models that use GPUs."""
    timeout_seconds: int = Field(default=24 * 3600, ge=1, le=MAX_TIMEOUT_SECONDS)
    memory_mb: int | None = Field(default=None, ge=16, le=MAX_MB)
    """None: its slots' share of nine tenths of the host's, so that runaway containers can't take the host along."""
    cpus: float | None = Field(default=None, gt=0, le=10_000)
    pids: int = Field(default=4096, ge=1, le=2**22)
    shm_mb: Megabytes = 1024
    """PyTorch's data loaders share tensors through /dev/shm; the engine's 64 MB are too few for them."""
    read_only: bool = False
    """Its own root can't be written, but /tmp, which is memory then."""
    tmp_mb: Megabytes | None = None
    """Of a /tmp in memory, counted as its own; None: on the host's disk, or 1024 if `read_only`."""
    disk_mb: Megabytes = 10 * 1024
    """What it may have written at a time to its own root, /tmp on the disk among it."""
    output_mb: Megabytes = 8192
    """The same of /output, and how large the result may be."""
    max_attempts: int = Field(default=3, ge=1, le=MAX_ATTEMPTS)
    """How many attempts may fail before the task does."""
    keep_outputs_hours: Hours | None = None
    """After a task's end; None: as long as core's setting of the same name says."""
    keep_tasks_hours: Hours | None = None


class Model(ModelSpec, Limits):
    """A registered model."""

    id: int
    uid: str
    zip: Blob | None = None
    revision: int = 1
    """Goes up with each change of the model. What runs goes on as it was, what waits gets the latest."""
    digest: str | None = None
    """Of its image, once it is pinned."""
    enabled: bool = True
    """Whether it takes new tasks."""

    @property
    def need(self) -> Need:
        return Need(gpu_count=self.gpu_count, gpu_memory_mb=self.gpu_memory_mb) if self.use_gpu else ANY

    @property
    def image(self) -> str:
        """What its containers are made of."""
        return f"{without_tag(self.container_tag)}@{self.digest}" if self.digest else self.container_tag

    @computed_field  # type: ignore[prop-decorator]
    @property
    def model_zip(self) -> str | None:
        return self.zip.id if self.zip else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def model_volume_id(self) -> str | None:
        """Named after the zip's content, so that a host fills it once for each content."""
        return MODEL_VOLUME.format(self.zip.id) if self.zip else None
