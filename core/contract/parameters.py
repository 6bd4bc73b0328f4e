"""The queries of calls, as far as they aren't types of their own."""

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator

from core.contract.task import State


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
    offset: int = Field(default=0, ge=0)
    limit: int = Field(default=1000, ge=1, le=10_000)


class AdmissionRequest(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    model: str | None = None
    """That a task is for."""
    size: int | None = Field(default=None, ge=0)
    """Of the body, in bytes."""
