"""API keys: what the holder of one may do, and who makes a call."""

from collections.abc import Set
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

KeyName = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Scope(StrEnum):
    SUBMIT = "submit"
    """Post tasks, and all that clients do with their own."""
    MODELS = "models"
    """Register models, without limits and privileges."""
    ADMIN = "admin"
    """Everything, with everybody's tasks."""


class Limited(BaseModel):
    """What a key's holder may do, and how much of it."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    name: KeyName
    """Whose it is, or what for."""
    scopes: tuple[Scope, ...] = Field(default=(Scope.SUBMIT,), min_length=1, max_length=len(Scope))
    posts_per_minute: int | None = Field(default=None, ge=1, le=1_000_000)
    """Of tasks, uploads and models; None: any number."""
    tasks_at_once: int | None = Field(default=None, ge=1, le=100_000)
    """Pending and running ones; None: any number."""


class Key(Limited):
    """A key without what opens: that is shown once, when it is made."""

    id: str
    created: datetime
    expires: datetime | None = None
    revoked: datetime | None = None
    last_used: datetime | None = None
    """To the day."""

    @property
    def is_valid(self) -> bool:
        return self.revoked is None and (self.expires is None or datetime.now(UTC) < self.expires)


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
        """Whether a task of that key, or of none, is there for the caller."""
        return self.is_admin or self is ANYBODY or (self.key_id != "" and self.key_id == owner)


OPERATOR: Final = Caller("", frozenset(Scope), "operator")
"""Has core's token: an operator, an agent, or a gateway on its own behalf."""

ANYBODY: Final = Caller("", frozenset(), "anybody")
"""A client of a gateway while keys aren't required: to know a uid is to be allowed to read its task."""
