"""What a task is, the states it goes through, and why an attempt ended."""

import re
import secrets
from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, computed_field, field_validator

from core.contract.needs import ANY, Need
from core.contract.options import PLAIN, Options

UID: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")
"""What a uid can look like; what doesn't is nobody's, and never becomes part of a path."""


def new_uid() -> str:
    """256 random bits, 43 characters: to know a uid is to be allowed to read its task. None begins with a hyphen: on a
    command line it would be an option.
    """
    while (uid := secrets.token_urlsafe(32)).startswith("-"):
        pass
    return uid


class State(StrEnum):
    PENDING = "pending"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"

    @property
    def status(self) -> int:
        """The number that version 1 has on the wire."""
        return _STATUS[self]

    @classmethod
    def of_status(cls, status: int) -> "State":
        """The state behind version 1's number; ValueError when there is none."""
        for state, number in _STATUS.items():
            if number == status:
                return state
        raise ValueError(f"status must be one of {sorted(_STATUS.values())}")

    @property
    def is_terminal(self) -> bool:
        """An end, unless somebody asks for another try."""
        return self in (State.FINISHED, State.FAILED)


_STATUS: Final = {State.PENDING: -1, State.RUNNING: 2, State.FINISHED: 1, State.FAILED: 0}

TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    # Straight to an end: a consumer of version 1 may set the status without having claimed.
    State.PENDING: frozenset({State.RUNNING, State.FINISHED, State.FAILED}),
    # Back to pending: handed back, lost by its agent, or failed through no fault of the model's.
    State.RUNNING: frozenset({State.PENDING, State.FINISHED, State.FAILED}),
    State.FINISHED: frozenset(),
    # Somebody asks for it to be tried again, as long as its input is kept.
    State.FAILED: frozenset({State.PENDING}),
}
"""Which state may follow which. The scripts in core/store/lua mirror it; a test walks every pair through both."""


class Reason(StrEnum):
    """Why an attempt did not finish."""

    EXIT_NONZERO = "exit_nonzero"
    OUT_OF_MEMORY = "out_of_memory"
    TIMEOUT = "timeout"
    IMAGE_UNAVAILABLE = "image_unavailable"
    NO_OUTPUT = "no_output"
    OUTPUT_INVALID = "output_invalid"
    OUTPUT_TOO_LARGE = "output_too_large"
    DISK_LIMIT = "disk_limit"
    INPUT_INVALID = "input_invalid"
    GPU_UNAVAILABLE = "gpu_unavailable"
    DISK_FULL = "disk_full"
    AGENT_LOST = "agent_lost"
    ENGINE_ERROR = "engine_error"
    HANDED_BACK = "handed_back"
    """Its agent was stopped. That is nobody's failure, and no try is used up."""
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    MODEL_DELETED = "model_deleted"

    @property
    def retries(self) -> int:
        """How often a task is tried again for this reason: the model's or the user's fault is final."""
        return _RETRIES.get(self, 0)


MAX_ATTEMPTS: Final = 20
"""The most that a model may ask for."""

_RETRIES: Final[Mapping[Reason, int]] = {
    Reason.IMAGE_UNAVAILABLE: MAX_ATTEMPTS,
    Reason.GPU_UNAVAILABLE: MAX_ATTEMPTS,
    Reason.DISK_FULL: MAX_ATTEMPTS,
    Reason.AGENT_LOST: MAX_ATTEMPTS,
    Reason.ENGINE_ERROR: MAX_ATTEMPTS,
    # Its neighbours on the host may have had the memory; a second time it is the model's own need.
    Reason.OUT_OF_MEMORY: 1,
}


def attempt_key(uid: str, attempt: int | str) -> str:
    """Names an attempt where one word must do: in folders, containers, lists of what runs."""
    return f"{uid}-{attempt}"


class Failure(BaseModel):
    """Why and how: `message` is for the user and may end in the last lines of the container's log."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    reason: Reason
    message: str
    exit_code: int | None = None

    @field_validator("message")
    @classmethod
    def _encodable(cls, message: str) -> str:
        """Names of files and engines' words may hold bytes that are not UTF-8: the failure is told all the same."""
        return message.encode(errors="backslashreplace").decode()


class Blob(BaseModel):
    """A zip in the store: `size` in bytes. The id is of this content and no other, ever."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    id: str
    size: int


class Runner(BaseModel):
    """Who runs an attempt. Empty: a consumer of version 1, which doesn't say."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    agent: str = Field(default="", max_length=256)
    """The agent's name and its slot's."""
    host: str = Field(default="", max_length=256)
    gpus: tuple[str, ...] = ()
    """By UUID: those of the slot that claims, then those that the attempt has got."""
    driver: str = Field(default="", max_length=256)
    """The version of the NVIDIA driver on that host."""


class Attempt(Runner):
    """One try at a task. It runs while it has not `ended`; it ended well if it has no `failure`."""

    number: int
    started: datetime
    ended: datetime | None = None
    image: str | None = None
    """What the image's name stood for: its digest in the registry, or its id when it came from none."""
    revision: int | None = None
    """Of the model, as the agent had it."""
    failure: Failure | None = None


class Progress(BaseModel):
    """How far an attempt is, as its model says."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    fraction: float | None = Field(default=None, ge=0, le=1)
    message: str = Field(default="", max_length=1024)
    at: datetime


class Task(BaseModel):
    """A task as core stores it and shows it to agents and operators. Times are UTC."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    uid: str
    model_human_readable_id: str
    model_uid: str = ""
    """Empty: it was posted to an older core."""
    datetime_created: datetime
    datetime_dispatched: datetime | None = None
    datetime_finished: datetime | None = None
    input: Blob | None = None
    output: Blob | None = None
    state: State = State.PENDING
    attempt: int = 0
    """The number of the latest one."""
    attempts: tuple[Attempt, ...] = ()
    """Oldest first; of very many only the latest."""
    failure: Failure | None = None
    """Of the latest attempt that failed."""
    need: Need = ANY
    """What its model asked for when the task was posted."""
    request_id: str = ""
    """Of the request that posted it."""
    owner: str = ""
    """Id of the API key that it was posted with; empty: with none."""
    options: Options = PLAIN
    progress: Progress | None = None
    """Of the attempt that runs."""
    datetime_queued: datetime | None = None
    """When somebody asked for it to be tried again."""
    waits_for: str | None = None
    """What no agent has that a pending task needs, in words, when core is asked for the task. None: it waits its turn.
    """
    position: int | None = None
    """How many are before a pending task of those that need the same, when core is asked for the task."""

    @property
    def expires(self) -> datetime | None:
        """When it has waited for long enough, if it still waits then."""
        ttl = self.options.ttl_seconds
        return None if ttl is None else (self.datetime_queued or self.datetime_created) + timedelta(seconds=ttl)

    @property
    def can_retry(self) -> bool:
        return self.state is State.FAILED and self.input is not None

    # What version 1 called these.

    @computed_field  # type: ignore[prop-decorator]
    @property
    def status(self) -> int:
        return self.state.status

    @computed_field  # type: ignore[prop-decorator]
    @property
    def input_zip(self) -> str | None:
        return self.input.id if self.input else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def output_zip(self) -> str | None:
        return self.output.id if self.output else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def input_volume_id(self) -> str:
        return f"inference-server-input-{self.uid}"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def output_volume_id(self) -> str:
        return f"inference-server-output-{self.uid}"

    @computed_field  # type: ignore[prop-decorator]
    @property
    def is_deleted(self) -> bool:
        """A deleted task leaves nothing behind, so whatever is shown is not deleted."""
        return False
