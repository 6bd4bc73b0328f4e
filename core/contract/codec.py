"""Records as bytes: msgpack of pydantic models.

Python mode and msgpack's own timestamps, because JSON mode doesn't bring back bytes and datetimes.
"""

from typing import Any, TypeVar

import msgpack  # type: ignore[import-untyped]
from pydantic import BaseModel

Record = TypeVar("Record", bound=BaseModel)

_TIMESTAMP_AS_DATETIME = 3


def pack(record: BaseModel) -> bytes:
    """Computed fields stay out: they follow from the others."""
    return pack_plain(record.model_dump(exclude_computed_fields=True, exclude_none=True))


def unpack(kind: type[Record], packed: bytes) -> Record:
    return kind.model_validate(unpack_plain(packed))


def pack_plain(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, datetime=True)
    return packed


def unpack_plain(packed: bytes) -> Any:
    return msgpack.unpackb(packed, timestamp=_TIMESTAMP_AS_DATETIME)
