"""What can go wrong. Each says what to do about it, where there is something to do."""

import http.client
import json
from collections.abc import Mapping
from typing import Any


class InferenceError(Exception):
    """Any of these."""


class NotConfigured(InferenceError):
    """Nobody said which server, or what was said makes no sense."""


class SourceError(InferenceError):
    """What is to be sent can't be: it isn't there, isn't a file, or changed while it was sent."""


class TargetError(InferenceError):
    """A result can't be written where it was to go. What has arrived of it is kept: another call goes on there."""


class Unreachable(InferenceError):
    """No answer came: the address is wrong, or the server or the line is down."""


class Untrusted(Unreachable):
    """There is a server, but its certificate isn't signed by anybody who is trusted here."""


class NotInTime(InferenceError):
    """The task hasn't ended within the time that was given for it. It goes on."""


class Refused(InferenceError):
    """The server's answer is no, mostly in its own words. `status` is HTTP's; 0: the client knew without asking."""

    def __init__(
        self, message: str, *, status: int = 0, retry_seconds: float | None = None, request_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_seconds = retry_seconds
        """When the server says that it may be worth another try."""
        self.request_id = request_id
        """By which its operator finds it in the logs."""


class Invalid(Refused):
    """The zip or a parameter can't be used; the message says which, and why."""


class NotAllowed(Refused):
    """The key is missing or no longer good, or isn't for this."""


class NotFound(Refused):
    """No such task, model, upload or page. Tasks are forgotten a month after their end."""


class Gone(NotFound):
    """It was there, and isn't kept any longer."""


class Conflict(Refused):
    """What is there doesn't allow it: a task that has ended can't be cancelled, one that runs not retried."""


class TooLarge(Refused):
    """More than the operator allows."""


class Unavailable(Refused):
    """The server is there, and a part of it away or full, or the key has sent as much as it may for now. Worth another
    try after `retry_seconds`.
    """


class NotFinished(Refused):
    """The task has no result yet."""


class TaskFailed(Refused):
    """The task has no result and won't get one, unless it is retried: its status says why."""


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
    552: TaskFailed,
    553: Gone,
    554: NotFound,
}


_HOW_TO_SEND_A_KEY = "infer has it from INFER_KEY, or from `key` in its file; the Python API as key="


def refusal(status: int, body: bytes, headers: Mapping[str, str]) -> Refused:
    """An answer that isn't a good one as an exception."""
    after = headers.get("retry-after", "")
    hint = f". {_HOW_TO_SEND_A_KEY}" if status == http.client.UNAUTHORIZED else ""
    return _KINDS.get(status, Refused)(
        _sentence(_detail(body), status) + hint,
        status=status,
        retry_seconds=float(after) if after.isdecimal() else None,
        request_id=headers.get("x-request-id"),
    )


def _detail(body: bytes) -> Any:
    """Of problem details, or of the first version's errors, some of which are nested."""
    try:
        detail = json.loads(body)
    except ValueError:
        return None
    while isinstance(detail, dict):
        detail = detail.get("detail")
    return detail


def _sentence(detail: Any, status: int) -> str:
    """Parameters' faults may come as a list, everything else in words."""
    if isinstance(detail, list):
        return "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in detail)
    if detail == "ModelNotFound":
        return "There is no such model: `infer models` lists those that there are"
    return str(detail) if detail else f"The server answered {status} {http.client.responses.get(status, '')}".rstrip()
