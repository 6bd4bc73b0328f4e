"""Zips written field by field, so that they may lie: `zipfile` writes none of these."""

import bz2
import lzma
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, cast

# APPNOTE.TXT 6.3.10: 4.3.7, 4.3.12, 4.3.14 to 4.3.16.
LOCAL: Final = struct.Struct("<4s5H3L2H")
DIRECTORY: Final = struct.Struct("<4s6H3L5H2L")
END: Final = struct.Struct("<4s4H2LH")
END64: Final = struct.Struct("<4sQ2H2L4Q")
LOCATOR64: Final = struct.Struct("<4sLQL")

STORED, DEFLATED, BZIP2, LZMA, ZSTD = 0, 8, 12, 14, 93
ENCRYPTED, DESCRIPTOR, UTF8 = 1 << 0, 1 << 3, 1 << 11
UNIX: Final = 3

Claims = Mapping[str, int | bytes]


@dataclass(frozen=True)
class Entry:
    """What an entry is, and what its two headers say instead, by the names of `_fields`."""

    name: bytes = b"a"
    content: bytes = b"some content"
    method: int = DEFLATED
    flags: int = 0
    mode: int = 0
    """As st_mode."""
    extra: bytes = b""
    packed: bytes | None = None
    """Instead of what the content is compressed to."""
    descriptor: bytes = b""
    """What follows its bytes."""
    local: Claims = field(default_factory=dict)
    directory: Claims = field(default_factory=dict)

    @cached_property
    def data(self) -> bytes:
        return compressed(self.content, self.method) if self.packed is None else self.packed

    def _fields(self, claims: Claims) -> dict[str, int | bytes]:
        true: dict[str, int | bytes] = {
            "version": 20,
            "flags": self.flags,
            "method": self.method,
            "time": 0,
            "date": 0x21,
            "crc": zlib.crc32(self.content),
            "compressed": len(self.data),
            "size": len(self.content),
            "name": self.name,
            "extra": self.extra,
            "made_by": UNIX << 8 | 20,
            "comment": b"",
            "disk": 0,
            "internal": 0,
            "external": self.mode << 16,
        }
        return {**true, **claims}

    def header(self) -> bytes:
        said = self._fields(self.local)
        name, extra = cast(bytes, said["name"]), cast(bytes, said["extra"])
        numbers = [said[key] for key in ("version", "flags", "method", "time", "date", "crc", "compressed", "size")]
        return LOCAL.pack(b"PK\3\4", *numbers, len(name), len(extra)) + name + extra

    def record(self, offset: int) -> bytes:
        said = self._fields({"offset": offset} | dict(self.directory))
        texts = [cast(bytes, said[key]) for key in ("name", "extra", "comment")]
        first = ("made_by", "version", "flags", "method", "time", "date", "crc", "compressed", "size")
        last = ("disk", "internal", "external", "offset")
        numbers = [*(said[key] for key in first), *map(len, texts), *(said[key] for key in last)]
        return DIRECTORY.pack(b"PK\1\2", *numbers) + b"".join(texts)


def compressed(content: bytes, method: int) -> bytes:
    if method == DEFLATED:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return deflate.compress(content) + deflate.flush()
    if method == BZIP2:
        return bz2.compress(content)
    if method == LZMA:
        settings = {"id": lzma.FILTER_LZMA1, "preset": 0, "dict_size": 1 << 16, "lc": 3, "lp": 0, "pb": 2}
        packed = lzma.compress(content, lzma.FORMAT_RAW, filters=[settings])
        return struct.pack("<2BHBL", 9, 4, 5, 93, 1 << 16) + packed
    return content


def crafted(
    *entries: Entry,
    before: bytes = b"",
    between: bytes = b"",
    comment: bytes = b"",
    after: bytes = b"",
    end: Claims | None = None,
    end64: Claims | None = None,
) -> bytes:
    """`before` the first entry, `between` the entries and the directory, `after` all. `end` and `end64`: what the last
    records say instead; a Zip64 record is there if something is said of it. Offsets count from the start of the file.
    """
    body, records = bytearray(before), bytearray()
    for entry in entries:
        records += entry.record(len(body))
        body += entry.header() + entry.data + entry.descriptor
    start = len(body) + len(between)
    true = {"disk": 0, "first_disk": 0, "here": len(entries), "all": len(entries), "bytes": len(records)}
    last64 = b"" if end64 is None else _end64(start + len(records), {**true, "offset": start} | dict(end64))
    said = {**true, "offset": start, "comment_bytes": len(comment)} | dict(end or {})
    return bytes(body) + between + records + last64 + END.pack(b"PK\5\6", *said.values()) + comment + after


def _end64(at: int, said: Claims) -> bytes:
    """The record and its locator, which points at `located` unless the record is where it says."""
    said = {"record_bytes": 44, "record_disk": 0, "located": at, "disks": 1} | dict(said)
    numbers = [said[key] for key in ("disk", "first_disk", "here", "all", "bytes", "offset")]
    record = END64.pack(b"PK\6\6", said["record_bytes"], 45, 45, *numbers)
    return record + LOCATOR64.pack(b"PK\6\7", said["record_disk"], said["located"], said["disks"])
