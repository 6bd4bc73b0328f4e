"""The audit log's entries: who did what, and when."""

from datetime import UTC, datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field


class Action(StrEnum):
    TASK_SUBMITTED = "task.submitted"
    TASK_READ = "task.read"
    TASK_CANCELLED = "task.cancelled"
    TASK_RETRIED = "task.retried"
    TASK_DELETED = "task.deleted"
    UPLOAD_OPENED = "upload.opened"
    UPLOAD_DELETED = "upload.deleted"
    MODEL_ADDED = "model.added"
    MODEL_READ = "model.read"
    MODEL_CHANGED = "model.changed"
    MODEL_SWITCHED = "model.switched"
    MODEL_DELETED = "model.deleted"
    KEY_MADE = "key.made"
    KEY_REVOKED = "key.revoked"
    ACCESS_REFUSED = "access.refused"


class AuditEntry(BaseModel):
    """No data of users, and no names of files."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    time: datetime = Field(default_factory=lambda: datetime.now(UTC))
    action: Action
    about: str = ""
    """The uid of a task, an upload or a model, or the id of a key."""
    what: str = ""
    """Which part of it was read, or the call that was refused."""
    status: int
    """Of the answer: 400 and more for what was tried and not done, 499 for whoever didn't wait for the answer."""
    who: str
    """The key's name, of one that is over as well; `operator` for whoever has core's token, agents among them;
    `anybody` without either.
    """
    key: str = ""
    """Its id."""
    address: str = ""
    """Whence the call came, as the gateway saw it."""
    request: str = ""
    """Under this id it is in all logs."""
