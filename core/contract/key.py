"""API keys: what the holder of one may do, and who makes a call."""

import re
from collections.abc import Set
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

KEY: Final = re.compile(r"isk_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")
"""Its id, which is no secret, and 256 random bits, which are."""

KEY_ID: Final = re.compile(r"[0-9a-f]{12}")

KeyName = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Scope(StrEnum):
    SUBMIT = "submit"
    """Post tasks, and all that clients do with their own."""
    MODELS = "models"
    """Register models, without limits and privileges."""
    ADMIN = "admin"
    """Everything, with everybody's tasks."""


_AS_QUERY: Final = {"type": "array", "items": {"type": "string", "enum": list(Scope)}, "minItems": 1, "maxItems": 8}


class Terms(BaseModel):
    """What a key's holder may do, and how much of it."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    name: KeyName
    """Whose it is, or what for."""
    posts_per_minute: int | None = Field(default=None, ge=1, le=1_000_000)
    """Of tasks, uploads and models. None: any number."""
    tasks_at_once: int | None = Field(default=None, ge=1, le=10_000)
    """Pending and running ones. None: any number."""


class WantedKey(Terms):
    scope: Annotated[tuple[Scope, ...], Field(min_length=1, max_length=8), WithJsonSchema(_AS_QUERY, "validation")] = (
        Scope.SUBMIT,
    )
    expires_days: float | None = Field(default=None, gt=0, le=36_500)
    """None: it is good until it is revoked."""


class Key(Terms):
    """A key without what opens. Times are UTC."""

    id: str
    scopes: tuple[Scope, ...]
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    last_used: datetime | None = None
    """To the day."""
    living_tasks: int | None = None
    """Of those that tasks_at_once bounds, at most."""

    @property
    def is_over(self) -> bool:
        return self.revoked is not None or (self.expires is not None and self.expires <= datetime.now(UTC))


class MadeKey(Key):
    key: str
    """The key itself. It is not shown again: nothing has it but this answer."""


@dataclass(frozen=True)
class Caller:
    """On whose behalf core is called."""

    key_id: str
    """Empty: it has none."""
    scopes: Set[Scope]
    name: str
    posts_per_minute: int | None = None
    tasks_at_once: int | None = None

    @classmethod
    def of(cls, key: Key) -> "Caller":
        return cls(key.id, frozenset(key.scopes), key.name, key.posts_per_minute, key.tasks_at_once)

    @property
    def is_admin(self) -> bool:
        return Scope.ADMIN in self.scopes

    def may_see(self, owner: str) -> bool:
        """Whether what was posted with that key, or with none, is there for the caller."""
        return self.is_admin or self is ANYBODY or (self.key_id != "" and self.key_id == owner)


OPERATOR: Final = Caller("", frozenset(Scope), "operator")
"""Has core's token: an operator, an agent, or a gateway on its own behalf."""

ANYBODY: Final = Caller("", frozenset(), "anybody")
"""A client of a gateway while keys aren't required: to know a uid is to be allowed to read its task."""
