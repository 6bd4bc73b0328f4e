"""What a client may ask for its task, beside the model and the zip."""

import re
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, field_serializer
from pydantic.json_schema import SkipJsonSchema

KEY: Final = re.compile(r"[\x21-\x7e]{16,255}")
"""An Idempotency-Key: whoever can guess it could fetch the task."""

_BASE64: Final = r"(?:[A-Za-z0-9+/]{4}){8,}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"
SECRET: Final = re.compile(rf"whsec_{_BASE64}|(?!whsec_)[\x21-\x7e]{{24,255}}")
"""A Webhook-Secret: base64 after its prefix, or what stands there."""

LONGEST_SECONDS: Final = 366 * 24 * 3600
"""That anybody may ask for: a time that no calendar has would stop whoever reckons with it."""

MAX_LABELS: Final = 32
_LABEL: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._/-]{0,62})=([^\x00-\x1f\x7f]{0,255})")
_AS_QUERY: Final = {
    "type": "array",
    "items": {"type": "string", "pattern": f"^{_LABEL.pattern}$", "examples": ["study=7"]},
    "maxItems": MAX_LABELS,
}


def _labels(value: object) -> object:
    """Of a query's `key=value`, each once."""
    if not isinstance(value, list):
        return value
    found = [_LABEL.fullmatch(label) for label in value]
    labels = {match[1]: match[2] for match in found if match}
    if None in found or len(labels) < len(value):
        raise ValueError("labels are key=value, each key once, of letters, digits and ._/-")
    return labels


class Priority(StrEnum):
    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class Options(BaseModel):
    """Of one task. As query parameters, where `label` may stand several times."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    priority: Priority = Priority.NORMAL
    ttl_seconds: float | None = Field(default=None, gt=0, le=LONGEST_SECONDS)
    """The longest that it waits for an agent; then it has failed, as expired."""
    timeout_seconds: int | None = Field(default=None, ge=1, le=LONGEST_SECONDS)
    """Of a run; never more than the model's."""
    webhook: str | None = Field(default=None, max_length=2048, examples=["https://example.org/hook"])
    """Is told of the task's end, signed with the header Webhook-Secret."""
    webhook_secret: SkipJsonSchema[str | None] = Field(default=None, repr=False)
    """Core's alone: JSON never has it, and a query mustn't."""
    label: Annotated[
        dict[str, str], BeforeValidator(_labels), Field(max_length=MAX_LABELS), WithJsonSchema(_AS_QUERY, "validation")
    ] = {}
    """`key=value`, to find the task again."""

    @field_serializer("webhook_secret", when_used="json")
    def _hidden(self, _: str | None) -> None:
        return None


PLAIN: Final = Options()
