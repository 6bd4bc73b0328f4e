"""A task as those who use it see it: how it stands, without who runs it where."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from core.contract.options import Priority
from core.contract.task import Attempt, Progress, Reason, State, Task


class AttemptStatus(BaseModel):
    """One try. It runs while it has not `ended`; it ended well if it has no `reason`."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    number: int
    started: datetime
    ended: datetime | None = None
    reason: Reason | None = None
    message: str | None = None
    exit_code: int | None = None

    @classmethod
    def of(cls, attempt: Attempt) -> Self:
        why = attempt.failure.model_dump() if attempt.failure else {}
        return cls(number=attempt.number, started=attempt.started, ended=attempt.ended, **why)


class TaskStatus(BaseModel):
    """How a task stands. Times are UTC."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    uid: str
    model: str
    """Its human_readable_id."""
    state: State
    reason: Reason | None = None
    """Why it failed, or its latest attempt did; `message` says it in words, and may end in the container's last lines.
    """
    message: str | None = None
    exit_code: int | None = None
    position: int | None = None
    """How many tasks are before it, of those that wait for the same agents. Only of one that is pending."""
    waits_for: str | None = None
    """What no agent has that it needs, in words. None: it waits its turn."""
    progress: Progress | None = None
    attempt: int
    """The number of the latest one."""
    attempts: tuple[AttemptStatus, ...] = ()
    """Oldest first; of very many only the latest."""
    created: datetime
    started: datetime | None = None
    """When the latest attempt began."""
    finished: datetime | None = None
    input_bytes: int | None = None
    """None: the input is no longer kept."""
    output_bytes: int | None = None
    """None: there is no output, or no longer."""
    can_retry: bool
    priority: Priority
    labels: dict[str, str] = {}
    ttl_seconds: float | None = Field(default=None)
    timeout_seconds: int | None = None
    webhook: str | None = None

    @classmethod
    def of(cls, task: Task) -> Self:
        why = task.failure.model_dump() if task.failure else {}
        return cls(
            uid=task.uid,
            model=task.model_human_readable_id,
            state=task.state,
            **why,
            position=task.position,
            waits_for=task.waits_for,
            progress=task.progress,
            attempt=task.attempt,
            attempts=tuple(map(AttemptStatus.of, task.attempts)),
            created=task.datetime_created,
            started=task.datetime_dispatched,
            finished=task.datetime_finished,
            input_bytes=task.input.size if task.input else None,
            output_bytes=task.output.size if task.output else None,
            can_retry=task.can_retry,
            priority=task.options.priority,
            labels=task.options.label,
            ttl_seconds=task.options.ttl_seconds,
            timeout_seconds=task.options.timeout_seconds,
            webhook=task.options.webhook,
        )
