"""What a task is, the states it goes through, and why an attempt ended."""

import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict, computed_field

UID: Final = re.compile(r"[A-Za-z0-9_-]{16,64}")
"""What a uid can look like; what doesn't is nobody's, and never becomes part of a path."""


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
        return not TRANSITIONS[self]


_STATUS: Final = {State.PENDING: -1, State.RUNNING: 2, State.FINISHED: 1, State.FAILED: 0}

TRANSITIONS: Final[Mapping[State, frozenset[State]]] = {
    # Straight to an end: a consumer of version 1 may set the status without having claimed.
    State.PENDING: frozenset({State.RUNNING, State.FINISHED, State.FAILED}),
    # Back to pending: handed back, lost by its agent, or failed through no fault of the model's.
    State.RUNNING: frozenset({State.PENDING, State.FINISHED, State.FAILED}),
    State.FINISHED: frozenset(),
    State.FAILED: frozenset(),
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
    INPUT_INVALID = "input_invalid"
    GPU_UNAVAILABLE = "gpu_unavailable"
    DISK_FULL = "disk_full"
    AGENT_LOST = "agent_lost"
    ENGINE_ERROR = "engine_error"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def is_retried(self) -> bool:
        """The infrastructure's fault is tried again, the model's or the user's is final."""
        return self in _RETRIED


_RETRIED: Final = frozenset(
    {Reason.IMAGE_UNAVAILABLE, Reason.GPU_UNAVAILABLE, Reason.DISK_FULL, Reason.AGENT_LOST, Reason.ENGINE_ERROR}
)


class Failure(BaseModel):
    """Why and how: `message` is for the user and may end in the last lines of the container's log."""

    model_config = ConfigDict(frozen=True)

    reason: Reason
    message: str
    exit_code: int | None = None


class Blob(BaseModel):
    """A zip in the store: `size` in bytes. The id is of this content and no other, ever."""

    model_config = ConfigDict(frozen=True)

    id: str
    size: int


class Task(BaseModel):
    """A task as core stores it and shows it to agents and operators. Times are UTC."""

    model_config = ConfigDict(frozen=True)

    uid: str
    model_human_readable_id: str
    datetime_created: datetime
    datetime_dispatched: datetime | None = None
    datetime_finished: datetime | None = None
    input: Blob | None = None
    output: Blob | None = None
    state: State = State.PENDING
    attempt: int = 0
    failure: Failure | None = None
    waits_for: str | None = None

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
