"""Uploads that can be resumed, by tus 1.0."""

import re
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from core import tus
from core.contract.errors import (
    InvalidParameters,
    InvalidRequest,
    ModelDisabled,
    ModelNotFound,
    StoreFull,
    TaskExists,
    TooLarge,
    TypeUnknown,
    UploadElsewhere,
    UploadNotFound,
    VersionUnknown,
)
from core.contract.options import Options
from core.contract.parameters import Continuation, Submission
from core.openapi.operation import UPLOAD_ERRORS, Answer, At, Operation, Secret


class Speaking(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    version: str = Field(alias=tus.RESUMABLE, pattern=f"^{re.escape(tus.VERSION)}$", examples=[tus.VERSION])


class Opening(Speaking, Secret):
    length: int = Field(alias=tus.LENGTH, ge=0)
    """Of the zip, in bytes."""
    metadata: str | None = Field(default=None, alias=tus.METADATA, examples=["filename c2Nhbi56aXA="])
    """Pairs of a key and its value in Base64. `model` may stand here as well as in the query."""


class Appending(Speaking):
    offset: int = Field(alias=tus.OFFSET, ge=0)
    """Of the first byte that is sent."""


_SPOKEN: Final = {tus.RESUMABLE: tus.VERSION}
_PROGRESS: Final = {
    **_SPOKEN,
    tus.OFFSET: "So many bytes are stored",
    tus.EXPIRES: "When it is given up if no more come; not of a finished one",
}
_CAPABILITIES: Final = Answer(
    None,
    "In the headers",
    {
        **_SPOKEN,
        tus.SUPPORTED: tus.VERSION,
        tus.EXTENSION: tus.EXTENSIONS,
        tus.MAX_SIZE: "The longest zip, in bytes",
    },
)

OPERATIONS: Final = (
    Operation(
        "uploads_offered",
        "options",
        "/api/uploads/",
        "What of tus is spoken here (https://tus.io/protocols/resumable-upload)",
        {204: _CAPABILITIES},
        tells_problems=True,
    ),
    Operation(
        "upload_offered",
        "options",
        "/api/uploads/{uid}",
        "What of tus is spoken here",
        {204: _CAPABILITIES},
        tells_problems=True,
    ),
    Operation(
        "open_upload",
        "post",
        "/api/uploads/",
        "Begin to send a zip in several requests, perhaps with its first bytes",
        {201: Answer(None, "There is room for it", {"Location": "The upload's path, ending in its uid", **_PROGRESS})},
        (ModelNotFound, ModelDisabled, VersionUnknown, TypeUnknown, *UPLOAD_ERRORS),
        (Submission, Options),
        Opening,
        body=tus.BYTES_TYPE,
        tells_problems=True,
    ),
    Operation(
        "upload_standing",
        "head",
        "/api/uploads/{uid}",
        "From where to go on",
        {200: Answer(None, "In the headers", {**_PROGRESS, tus.LENGTH: "Of the zip", tus.METADATA: "As it was sent"})},
        (UploadNotFound, VersionUnknown),
        headers=Speaking,
        tells_problems=True,
    ),
    Operation(
        "append_to_upload",
        "patch",
        "/api/uploads/{uid}",
        "Send more. With the last byte the zip is checked, and the task of the same uid is there; a zip that is refused"
        " is gone",
        {204: Answer(None, "Stored", _PROGRESS)},
        (UploadNotFound, UploadElsewhere, TaskExists, ModelNotFound, VersionUnknown, TypeUnknown, *UPLOAD_ERRORS),
        headers=Appending,
        body=tus.BYTES_TYPE,
        tells_problems=True,
    ),
    Operation(
        "give_up_upload",
        "delete",
        "/api/uploads/{uid}",
        "Give an unfinished upload up",
        {204: Answer(None, "It is gone", _SPOKEN)},
        (UploadNotFound, UploadElsewhere, VersionUnknown),
        headers=Speaking,
        tells_problems=True,
    ),
    Operation(
        "admit_more",
        "get",
        "/api/uploads/{uid}/admission",
        "Ask whether many more bytes of an upload would be taken, before they are sent",
        {204: Answer(None, "They would")},
        (UploadNotFound, UploadElsewhere, InvalidRequest, InvalidParameters, TooLarge, StoreFull),
        (Continuation,),
        at=At.CORE,
        tells_problems=True,
    ),
)
