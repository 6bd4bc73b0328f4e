"""What the server says, as types. Fields that a later server may add are ignored."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar, Literal, Self, TypeAlias

Priority = Literal["low", "normal", "high"]
Fields: TypeAlias = Mapping[str, Any]


class _Answer:
    """Made of the JSON object of its fields' names; what isn't JSON's own type has an entry in `_parsers`."""

    _parsers: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}

    @classmethod
    def of(cls, fields: Fields) -> Self:
        known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]  # of dataclasses only
        return cls(**{name: cls._parsed(name, value) for name, value in fields.items() if name in known})

    @classmethod
    def _parsed(cls, name: str, value: Any) -> Any:
        parse = cls._parsers.get(name)
        return parse(value) if parse and value is not None else value


@dataclass(frozen=True, kw_only=True)
class Model(_Answer):
    """What tasks can be sent to, by its `human_readable_id`."""

    uid: str
    human_readable_id: str
    container_tag: str
    description: str = ""
    use_gpu: bool = True
    model_available: bool = False
    """Whether it has a zip of its own, with weights, say."""
    revision: int = 1
    enabled: bool = True
    """One that is disabled takes no new tasks."""


@dataclass(frozen=True, kw_only=True)
class Progress(_Answer):
    """What the model says of itself: `fraction` from 0 to 1, if it knows."""

    at: datetime
    fraction: float | None = None
    message: str = ""

    _parsers = {"at": datetime.fromisoformat}


@dataclass(frozen=True, kw_only=True)
class Attempt(_Answer):
    """One try at a task. It ended well if it has `ended` and no `reason`."""

    number: int
    started: datetime
    ended: datetime | None = None
    reason: str | None = None
    message: str | None = None
    exit_code: int | None = None

    _parsers = {"started": datetime.fromisoformat, "ended": datetime.fromisoformat}


@dataclass(frozen=True, kw_only=True)
class Task(_Answer):
    """A task as it stands. Times are UTC."""

    uid: str
    model: str
    state: Literal["pending", "running", "finished", "failed"]
    created: datetime
    reason: str | None = None
    """Why it failed, or its latest attempt did, in a word; `message` has more of them."""
    message: str | None = None
    exit_code: int | None = None
    position: int | None = None
    """How many tasks are before it, while it is pending."""
    waits_for: str | None = None
    """What it needs that no machine has at the moment, in words."""
    progress: Progress | None = None
    attempt: int = 0
    attempts: tuple[Attempt, ...] = ()
    started: datetime | None = None
    finished: datetime | None = None
    input_bytes: int | None = None
    """None, as with the output: there is none, or it is no longer kept."""
    output_bytes: int | None = None
    can_retry: bool = False
    priority: Priority = "normal"
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ttl_seconds: float | None = None
    timeout_seconds: int | None = None
    webhook: str | None = None

    _parsers = {
        "created": datetime.fromisoformat,
        "started": datetime.fromisoformat,
        "finished": datetime.fromisoformat,
        "progress": Progress.of,
        "attempts": lambda attempts: tuple(map(Attempt.of, attempts)),
    }

    @property
    def has_ended(self) -> bool:
        return self.state in ("finished", "failed")


@dataclass(frozen=True)
class Changed:
    """The task is in another state, or further up in the queue. The last event of a task has its end."""

    id: str
    task: Task


@dataclass(frozen=True)
class Progressed:
    id: str
    progress: Progress


@dataclass(frozen=True)
class Logged:
    """Lines that the container wrote, each with its end."""

    id: str
    attempt: int
    text: str


Event: TypeAlias = Changed | Progressed | Logged


@dataclass(frozen=True)
class Transfer:
    """How far an upload or a download is. `uid` is how to go on with it later."""

    uid: str
    done_bytes: int
    total_bytes: int


OnTransfer: TypeAlias = Callable[[Transfer], None]
