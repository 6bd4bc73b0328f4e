"""One call as it is written down: what it takes, and everything that it may answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Flag, auto
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field

from core.contract.errors import (
    ContractError,
    InvalidParameters,
    InvalidRequest,
    InvalidZip,
    StoreFull,
    TooLarge,
    TooManyRequests,
)

JSON: Final = "application/json"
ZIP: Final = "application/zip"


class At(Flag):
    """Who answers the call."""

    GATEWAY = auto()
    CORE = auto()
    BOTH = GATEWAY | CORE


@dataclass(frozen=True)
class Answer:
    """`content` is the type of what is answered, a media type of other bodies, or None without a body."""

    content: Any
    says: str = "Done"
    headers: Mapping[str, str] = field(default_factory=dict)
    """What each says."""
    media: str = JSON
    """Of what has a type: that of each event, where it is a stream of them."""


@dataclass(frozen=True)
class Operation:
    name: str
    """Unique: generated clients name their functions after it."""
    method: str
    path: str
    summary: str
    answers: Mapping[int, Answer]
    errors: tuple[type[ContractError], ...] = ()
    """Beside those that any call may meet: no token, a part that is away."""
    query: tuple[type[BaseModel], ...] = ()
    headers: type[BaseModel] | None = None
    body: type[BaseModel] | str | None = None
    """The type of the JSON, ZIP for a form or the bare zip, or another media type."""
    at: At = At.BOTH
    tells_problems: bool = False
    """Version 1 did not have it: what it refuses comes as problem details, with standard status codes."""
    is_open: bool = False
    """It needs no token, and none of the other parts."""


class Ranges(BaseModel):
    """The request's headers that a download heeds."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    range: str | None = Field(default=None, alias="Range", examples=["bytes=1048576-"])
    """One range of bytes; of several none counts."""
    if_range: str | None = Field(default=None, alias="If-Range")
    """The ETag of what is there already: the range counts only while it is the same."""
    if_none_match: str | None = Field(default=None, alias="If-None-Match")


class Secret(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    webhook_secret: str | None = Field(
        default=None, alias="Webhook-Secret", min_length=24, max_length=255, examples=["whsec_" + "c2VjcmV0" * 4]
    )
    """Required with `webhook`: what is sent there is signed with it (https://www.standardwebhooks.com)."""


_OF_ZIP: Final = {
    "ETag": "Of this content and no other",
    "Accept-Ranges": "bytes",
    "Content-Disposition": "A file name",
}
DOWNLOAD: Final = {
    200: Answer(ZIP, "The zip", _OF_ZIP),
    206: Answer(ZIP, "The range that was asked for", {**_OF_ZIP, "Content-Range": "Which bytes of how many"}),
    304: Answer(None, "It is the one of If-None-Match"),
    416: Answer(None, "It has no such range", {"Content-Range": "How many bytes there are"}),
}

UPLOAD_ERRORS: Final = (InvalidZip, InvalidRequest, InvalidParameters, TooLarge, StoreFull, TooManyRequests)
