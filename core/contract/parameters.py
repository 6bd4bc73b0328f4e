"""The queries of calls, as far as they aren't types of their own."""

from typing import Final

from pydantic import AliasChoices, AwareDatetime, BaseModel, ConfigDict, Field, field_validator

from core.contract.audit import AuditEntry
from core.contract.task import State, Task


class Submission(BaseModel):
    """Version 1 documents both names."""

    model_config = ConfigDict(protected_namespaces=())

    model_human_readable_id: str = Field(
        validation_alias=AliasChoices("model_human_readable_id", "human_readable_id"),
    )


class StatusChange(BaseModel):
    uid: str
    status: int = Field(json_schema_extra={"enum": [state.status for state in State]})

    @field_validator("status")
    @classmethod
    def _exists(cls, status: int) -> int:
        State.of_status(status)
        return status


class Page(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    offset: int = Field(default=0, ge=0, le=2**31)
    limit: int = Field(default=1000, ge=1, le=10_000)
    state: State | None = None
    model: str | None = None
    """Its human_readable_id."""
    label: str | None = Field(default=None, examples=["study=7"])
    """As it was posted."""
    search: str | None = None
    """How the uid begins."""

    @property
    def filters(self) -> bool:
        return any((self.state, self.model, self.label, self.search))

    def is_wanted(self, task: Task) -> bool:
        labels = {f"{name}={value}" for name, value in task.options.label.items()}
        return (
            self.state in (None, task.state)
            and self.model in (None, task.model_human_readable_id)
            and (self.label is None or self.label in labels)
            and task.uid.startswith(self.search or "")
        )


class Listening(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    last_event_id: str | None = Field(default=None, examples=["1795392502785-0"])
    """As the header Last-Event-ID, for clients that can't send one."""


class WhichAttempt(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    attempt: int | None = Field(default=None, ge=1, le=2**31)
    """None: the latest."""


class AdmissionRequest(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    model: str | None = None
    """That a task is for."""
    size: int | None = Field(default=None, ge=0, le=2**62)
    """Of the body, in bytes."""


class Continuation(BaseModel):
    """Of an upload that can be resumed."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    offset: int = Field(ge=0, le=2**62)
    """Of the first byte that would be sent."""
    size: int | None = Field(default=None, ge=0, le=2**62)
    """How many, if that is known."""


MOST_ENTRIES: Final = 100_000
"""Of the audit log, in one answer."""


class AuditPage(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    since: AwareDatetime | None = None
    limit: int = Field(default=1000, ge=1, le=MOST_ENTRIES)
    task: str | None = None
    """Its uid, or a model's."""
    key: str | None = None
    """The id of the API key that was used, or made or revoked."""

    def is_wanted(self, entry: AuditEntry) -> bool:
        return self.task in (None, entry.about) and self.key in (None, entry.key, entry.about)


class Switch(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    enabled: bool
    """Whether the model takes new tasks; those that wait go on."""
