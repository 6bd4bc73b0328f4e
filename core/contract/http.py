"""Bodies of the private API, and the one table of status codes."""

from http import HTTPStatus
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from core.contract import errors
from core.contract.model import Model
from core.contract.needs import ANY, MAX_GPUS, Need
from core.contract.task import Runner, Task

STATUS: Final[dict[type[errors.ContractError], int]] = {
    errors.InvalidZip: HTTPStatus.BAD_REQUEST,
    errors.InvalidRequest: HTTPStatus.BAD_REQUEST,
    errors.InvalidParameters: HTTPStatus.UNPROCESSABLE_ENTITY,
    errors.Unauthorized: HTTPStatus.UNAUTHORIZED,
    errors.KeyRefused: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.ModelExists: HTTPStatus.CONFLICT,
    errors.TaskExists: HTTPStatus.CONFLICT,
    errors.AttemptNotFound: HTTPStatus.NOT_FOUND,
    errors.KeyNotFound: HTTPStatus.NOT_FOUND,
    errors.ModelDisabled: HTTPStatus.CONFLICT,
    errors.ModelChanged: HTTPStatus.CONFLICT,
    errors.ModelHasNoZip: HTTPStatus.NOT_FOUND,
    errors.InputGone: HTTPStatus.GONE,
    errors.UploadNotFound: HTTPStatus.NOT_FOUND,
    errors.UploadElsewhere: HTTPStatus.CONFLICT,
    errors.VersionUnknown: HTTPStatus.PRECONDITION_FAILED,
    errors.TypeUnknown: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    errors.TransitionRefused: HTTPStatus.CONFLICT,
    errors.TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    errors.TooManyRequests: HTTPStatus.TOO_MANY_REQUESTS,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    errors.StoreFull: HTTPStatus.INSUFFICIENT_STORAGE,
    # Version 1's own; its clients branch on them.
    errors.ModelNotFound: 550,
    errors.TaskNotFinished: 551,
    errors.TaskFailed: 552,
    errors.OutputGone: 553,
    errors.TaskNotFound: 554,
}

STANDARD: Final[dict[type[errors.ContractError], int]] = STATUS | {
    errors.ModelNotFound: HTTPStatus.NOT_FOUND,
    errors.TaskNotFound: HTTPStatus.NOT_FOUND,
    errors.TaskNotFinished: HTTPStatus.CONFLICT,
    errors.TaskFailed: HTTPStatus.CONFLICT,
    errors.OutputGone: HTTPStatus.GONE,
}
"""For the calls that version 1 didn't have."""

RETRY_AFTER_SECONDS: Final = {errors.Unavailable: 5, errors.StoreFull: 60, errors.TooManyRequests: 5}
"""When a client that meets one of these may come back."""


class ErrorBody(BaseModel):
    """Every error's body: a sentence, or the shape that version 1 had there."""

    detail: object


class Problem(BaseModel):
    """Why a call was refused that version 1 didn't have, as problem details (RFC 9457)."""

    type: str = "about:blank"
    title: str
    """The status in words."""
    status: int
    detail: str
    parameters: list[dict[str, object]] | None = None
    """Each that is wrong, as version 1 lists them."""

    @classmethod
    def of(cls, error: errors.ContractError) -> Self:
        status = STANDARD[type(error)]
        about: dict[str, object] = {"title": HTTPStatus(status).phrase, "status": status}
        match error.detail:
            case list() as faults:
                words = "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in faults)
                return cls.model_validate(about | {"detail": words, "parameters": faults})
            case {"detail": detail}:
                return cls.model_validate(about | {"detail": detail})
            case detail:
                return cls.model_validate(about | {"detail": detail})


class ClaimRequest(Runner):
    """An agent asks for a task. `claim_id` is new for each message, so that a claim can be sent again after a cut."""

    claim_id: str
    redelivered: bool = False
    """A redelivered message may take a task that a consumer of version 1 set running and then lost."""
    serves: Need = ANY
    """That of the tasks in the message's queue."""


class Noted(BaseModel):
    """What an agent says along with each call for its attempt, as soon as it knows: what is empty isn't known yet."""

    model_config = ConfigDict(frozen=True)

    image: str = Field(default="", max_length=1024)
    """As `Attempt.image`."""
    gpus: tuple[str, ...] | None = Field(default=None, max_length=MAX_GPUS)
    """As `Attempt.gpus`; in a query separated by commas."""
    revision: int | None = Field(default=None, ge=1, le=2**31)
    """As `Attempt.revision`."""

    @field_validator("gpus", mode="before")
    @classmethod
    def _from_query(cls, gpus: object) -> object:
        return tuple(filter(None, gpus.split(","))) if isinstance(gpus, str) else gpus

    @property
    def query(self) -> dict[str, str]:
        known = {} if self.revision is None else {"revision": str(self.revision)}
        return {"image": self.image} | known | ({} if self.gpus is None else {"gpus": ",".join(self.gpus)})


STAGED_SECONDS: Final = 25.0
"""An agent that has a task's message, and not yet a slot for it, gives it back after so long."""


class Staged(BaseModel):
    """A pending task, for an agent to make ready before it claims it."""

    model_config = ConfigDict(frozen=True, protected_namespaces=())

    task: Task
    model: Model


class Claim(Staged):
    """The task is the agent's as attempt `task.attempt`, for `lease_seconds` from now and from each renewal."""

    lease_seconds: float


class Admission(BaseModel):
    """A body of at most `max_bytes` may be sent now. Room is held for it under the `ticket`, for some seconds."""

    model_config = ConfigDict(frozen=True)

    max_bytes: int
    ticket: str


class Asked(BaseModel):
    """The tasks whose outcomes clients of a gateway want to know."""

    uids: tuple[str, ...] = Field(max_length=1000)
    offered: tuple[str, ...] = Field(default=(), max_length=1000)
    """What was offered for each, as Authorization; left out when nothing was for any."""
    addresses: tuple[str, ...] = Field(default=(), max_length=1000)
    """Whence each is asked for, where something is offered."""


class Outcome(BaseModel):
    """What `GET /api/tasks/{uid}` answers now: the status, and the body unless that is the zip."""

    model_config = ConfigDict(frozen=True)

    status: int
    body: str = ""

    @property
    def is_final(self) -> bool:
        """It won't become another one while somebody waits for it."""
        return self.status != STATUS[errors.TaskNotFinished]

    @classmethod
    def of(cls, error: errors.ContractError) -> "Outcome":
        return cls(status=STATUS[type(error)], body=ErrorBody(detail=error.detail).model_dump_json())


FINISHED: Final = Outcome(status=HTTPStatus.OK)
AWAY: Final = Outcome.of(errors.Unavailable())
"""It can't be known at the moment."""

TICKET_HEADER: Final = "admission-ticket"
REQUEST_HEADER: Final = "x-request-id"
"""The client's own, or the gateway's; it goes on with what the request leads to."""

CLIENT_AUTHORIZATION: Final = "client-authorization"
"""What a gateway's client sent as Authorization, which may be nothing: core judges it. In an answer: it was refused,
and not the gateway.
"""
CLIENT_ADDRESS: Final = "client-address"
"""That of a gateway's client."""


class Readiness(BaseModel):
    """Whether tasks are taken now; what keeps them from it, and what merely delays them: a part's name → in words."""

    model_config = ConfigDict(frozen=True)

    ready: bool
    missing: dict[str, str] = {}
    degraded: dict[str, str] = {}

    def beside(self, part: str, trouble: str) -> Self:
        """With what is wrong of a part, unless that is nothing."""
        return self.model_copy(update={"degraded": {**self.degraded, part: trouble}}) if trouble else self
