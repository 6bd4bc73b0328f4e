"""What can go wrong in a way that the caller can act on.

An error says what happened and carries the public detail; http.py holds the one table of status codes.
"""

from typing import Any


class ContractError(Exception):
    """`detail` goes to the client as the value of `{"detail": …}`: a sentence, or the shape version 1 had there."""

    detail: Any = "Internal Server Error"

    def __init__(self, detail: Any = None) -> None:
        if detail is not None:
            self.detail = detail
        super().__init__(self.detail)


class InvalidZip(ContractError):
    """The posted zip can't be run: corrupt, empty, encrypted, or its names or sizes are hostile."""


class InvalidRequest(ContractError):
    """The body isn't what its headers say, a multipart without end, say."""


class InvalidParameters(ContractError):
    """A parameter or the file is missing or malformed; the detail has FastAPI's shape, as version 1 answered."""

    @classmethod
    def missing(cls, where: str, name: str) -> "InvalidParameters":
        """`where` is query or body."""
        return cls([{"loc": [where, name], "msg": "field required", "type": "value_error.missing"}])

    @classmethod
    def wrong(cls, where: str, name: str, message: str, kind: str = "value_error") -> "InvalidParameters":
        """`message` says what would be right."""
        return cls([{"loc": [where, name], "msg": message, "type": kind}])


class Unauthorized(ContractError):
    detail = "Send core's token as 'Authorization: Bearer TOKEN', or as the password in the URL"


class KeyRefused(Unauthorized):
    """What a client of a gateway offers is no key, or one that opens nothing any more."""

    detail = "Send your API key as 'Authorization: Bearer KEY', or as the password of Basic; operators make keys"

    def __init__(self, detail: Any = None, *, key_id: str = "", name: str = "") -> None:
        super().__init__(detail)
        self.key_id, self.name = key_id, name
        """Of one that was good once. Empty: it is no key."""


class KeyNotFound(ContractError):
    detail = "There is no key of this id"


class TooManyRequests(ContractError):
    """The key's holder has posted, or has running, as much as it may."""

    detail = "This key has posted as much as it may: try again later"

    def __init__(self, detail: Any = None, *, retry_seconds: int | None = None) -> None:
        super().__init__(detail)
        self.retry_seconds = retry_seconds
        """None: as the table says."""


class Forbidden(ContractError):
    detail = "Forbidden"


class ModelNotFound(ContractError):
    detail = "ModelNotFound"


class AttemptNotFound(ContractError):
    detail = "The task has no such attempt, or it is no longer kept"


class ModelExists(ContractError):
    detail = "A model with this human_readable_id is registered already"


class ModelDisabled(ContractError):
    detail = "The model takes no new tasks at the moment"


class ModelChanged(ContractError):
    detail = "Somebody else changed the model just now: look at it, and try again"


class ModelHasNoZip(ContractError):
    detail = "The model has no zip"


class TaskExists(ContractError):
    detail = "Something else was posted under this uid or Idempotency-Key: choose another one"


class TaskNotFinished(ContractError):
    detail = {"detail": "Job status is 'pending' or 'running'"}


class TaskFailed(ContractError):
    """Version 1's words, and beside them why."""

    @classmethod
    def because(cls, *, reason: str, message: str, exit_code: int | None) -> "TaskFailed":
        return cls({"detail": "Job status is 'failed'", "reason": reason, "message": message, "exit_code": exit_code})


class InputGone(ContractError):
    detail = "The task's input was removed when the task ended"


class OutputGone(ContractError):
    detail = {"detail": "Job status is 'finished', but output zip does not exist"}


class TaskNotFound(ContractError):
    detail = {"detail": "Task not found"}


class UploadNotFound(ContractError):
    detail = "There is no such upload: it was finished, given up, or left alone for too long"


class UploadElsewhere(ContractError):
    """What is sent doesn't begin where the upload goes on, or somebody else sends it."""

    @classmethod
    def at(cls, offset: int) -> "UploadElsewhere":
        return cls(f"The upload goes on at byte {offset}: ask for its Upload-Offset, and send from there")


class VersionUnknown(ContractError):
    """Of a protocol."""


class TypeUnknown(ContractError):
    """The Content-Type is none that the call takes."""


class TransitionRefused(ContractError):
    """The task isn't in a state, or not held by the attempt, from which the call may take it further."""

    detail = "The task is not in a state that allows this"


class TooLarge(ContractError):
    """The body is larger than the limit."""

    @classmethod
    def over(cls, max_bytes: int) -> "TooLarge":
        return cls(f"The upload is larger than the limit of {max_bytes} bytes")


class StoreFull(ContractError):
    detail = "There is no room for this upload at the moment; try again later"


class Unavailable(ContractError):
    detail = "A part of the service is not reachable at the moment; try again later"
