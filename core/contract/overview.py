"""The system at a glance, for operators."""

from pydantic import BaseModel, ConfigDict

from core.contract.http import Readiness


class Queue(BaseModel):
    """What one of RabbitMQ's queues holds, for how many who listen."""

    model_config = ConfigDict(frozen=True)

    messages: int
    consumers: int


class Memory(BaseModel):
    """Of Redis, in bytes."""

    model_config = ConfigDict(frozen=True)

    used_bytes: int
    limit_bytes: int
    reserve_bytes: int
    """Of the limit, what new uploads may not use."""


class Overview(Readiness):
    """Readiness, and what there is to do. What can't be learnt now is None."""

    version: str
    keys_required: bool
    """Else whoever reaches a gateway may post tasks."""
    waiting: int | None = None
    """Tasks that are pending."""
    oldest_seconds: float | None = None
    """How long the first of them has waited."""
    queues: dict[str, Queue] | None = None
    redis: Memory | None = None
