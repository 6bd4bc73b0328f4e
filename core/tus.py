"""The words of tus 1.0 (https://tus.io/protocols/resumable-upload), by which clients send a zip in several requests."""

import re
from base64 import b64decode
from typing import Final

from core.calls import Call
from core.contract.errors import InvalidRequest, TypeUnknown, VersionUnknown

VERSION: Final = "1.0.0"
EXTENSIONS: Final = "creation,creation-with-upload,expiration,termination"
BYTES_TYPE: Final = "application/offset+octet-stream"

RESUMABLE: Final = "Tus-Resumable"
SUPPORTED: Final = "Tus-Version"
EXTENSION: Final = "Tus-Extension"
MAX_SIZE: Final = "Tus-Max-Size"
OFFSET: Final = "Upload-Offset"
LENGTH: Final = "Upload-Length"
METADATA: Final = "Upload-Metadata"
EXPIRES: Final = "Upload-Expires"

ASKED: Final = (RESUMABLE, OFFSET, LENGTH, METADATA)
ANSWERED: Final = (SUPPORTED, EXTENSION, MAX_SIZE, OFFSET, LENGTH, METADATA, EXPIRES)
"""Beside RESUMABLE, which every answer has."""

_LONGEST_METADATA: Final = 8192
_NUMBER: Final = re.compile("[0-9]{1,19}")


def meet(call: Call) -> None:
    """Every answer names our version. Raises VersionUnknown for a client of another."""
    call.headers.append((RESUMABLE, VERSION))
    if call.header(RESUMABLE.lower()) != VERSION:
        call.headers.append((SUPPORTED, VERSION))
        raise VersionUnknown(f"Send '{RESUMABLE}: {VERSION}': no other version of tus is spoken here")


def number(call: Call, name: str) -> int:
    """A header that must be there, with a number of bytes."""
    value = call.header(name.lower())
    if not _NUMBER.fullmatch(value):
        raise InvalidRequest(f"{name} must say a number of bytes")
    return int(value)


def check_type(call: Call) -> None:
    if call.header("content-type") != BYTES_TYPE:
        raise TypeUnknown(f"The bytes of an upload must come as '{BYTES_TYPE}'")


def metadata(call: Call) -> dict[str, str]:
    """What the client says of the file."""
    header = call.header(METADATA.lower())
    if len(header) > _LONGEST_METADATA:
        raise InvalidRequest(f"{METADATA} is longer than {_LONGEST_METADATA} bytes")
    found = {}
    for pair in filter(None, map(str.strip, header.split(","))):
        key, _, value = pair.partition(" ")
        try:
            found[key] = b64decode(value, validate=True).decode()
        except ValueError:
            raise InvalidRequest(f"{METADATA} must be pairs of a key and its value in Base64, of UTF-8") from None
    return found
