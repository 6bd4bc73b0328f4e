"""What can go wrong. Each says what to do about it, where there is something to do."""

import http.client
import json
from collections.abc import Mapping
from typing import Any


class InferenceError(Exception):
    """Any of these."""


class SourceError(InferenceError):
    """What is to be sent can't be: it isn't there, isn't a file, or changed while it was sent."""


class Unreachable(InferenceError):
    """No answer came: the address is wrong, or the server or the line is down."""


class Untrusted(Unreachable):
    """There is a server, but its certificate isn't signed by anybody who is trusted here."""


class NotInTime(InferenceError):
    """The task hasn't ended within the time that was given for it. It goes on."""


class Refused(InferenceError):
    """The server's answer is no: `status` is HTTP's, the message the server's own sentence."""

    def __init__(self, message: str, *, status: int = 0, retry_seconds: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_seconds = retry_seconds
        """When the server says it may be worth another try."""


class Invalid(Refused):
    """The zip or a parameter can't be used; the message says which, and why."""


class NotAllowed(Refused):
    """Only who has a (better) key may do that: INFER_KEY."""


class NotFound(Refused):
    """No such task, model, upload or page. Tasks are forgotten a month after their end."""


class Gone(NotFound):
    """It was there, and isn't kept any longer."""


class Conflict(Refused):
    """What is there doesn't allow it: a task that has ended can't be cancelled, one that runs not retried."""


class TooLarge(Refused):
    """More than the operator allows."""


class Unavailable(Refused):
    """The server is there, and a part of it away or full. Worth another try after `retry_seconds`."""


class NotFinished(Refused):
    """The task has no result yet."""


class TaskFailed(Refused):
    """The task has no result and won't get one: `reason` is one word, the message ends in the container's log."""

    def __init__(self, message: str, *, status: int = 0, reason: str | None = None, exit_code: int | None = None):
        super().__init__(message, status=status)
        self.reason = reason
        self.exit_code = exit_code


_KINDS: Mapping[int, type[Refused]] = {
    400: Invalid,
    401: NotAllowed,
    403: NotAllowed,
    404: NotFound,
    405: NotFound,
    409: Conflict,
    410: Gone,
    413: TooLarge,
    422: Invalid,
    423: Unavailable,  # an upload whose last request hasn't ended yet
    429: Unavailable,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
    507: Unavailable,
    # The first version's own.
    550: NotFound,
    551: NotFinished,
    553: Gone,
    554: NotFound,
}


def refusal(status: int, body: bytes, headers: Mapping[str, str]) -> Refused:
    """An answer of 400 and above as an exception."""
    detail = _detail(body)
    while isinstance(detail, dict) and "reason" not in detail and "detail" in detail:
        detail = detail["detail"]
    if status == 552 and isinstance(detail, dict):
        message = str(detail.get("message") or detail.get("detail"))
        return TaskFailed(message, status=status, reason=detail.get("reason"), exit_code=detail.get("exit_code"))
    after = headers.get("retry-after", "")
    seconds = float(after) if after.isdecimal() else None
    return _KINDS.get(status, Refused)(_sentence(detail, status), status=status, retry_seconds=seconds)


def _detail(body: bytes) -> Any:
    try:
        problem = json.loads(body)
    except ValueError:
        return None
    if not isinstance(problem, dict):
        return None
    return problem.get("detail") or problem.get("title")


def _sentence(detail: Any, status: int) -> str:
    """Parameters' faults come as a list, everything else in words."""
    if isinstance(detail, list):
        return "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in detail)
    if detail == "ModelNotFound":
        return "There is no such model: `infer models` lists those that there are"
    return str(detail) if detail else f"The server answered {status} {http.client.responses.get(status, '')}".rstrip()
