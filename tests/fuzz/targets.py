"""What `just fuzz` knows: a name, the check that takes the fuzzer's bytes, and what these begin with."""

import json
import random
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from tests.crafted import BZIP2, DEFLATED, DESCRIPTOR, LZMA, STORED, UTF8, Entry, crafted
from tests.fuzz import bodies, events, forms, headers, messages, zips

FORM: Final = (
    b'--b\r\nContent-Disposition: form-data; name="comment"\r\n\r\nhello\r\n'
    b'--b\r\nContent-Disposition: form-data; name="zip_file"; filename="a.zip"\r\n\r\nPK\3\4\r\n--c\r\n--b--\r\n'
)
AGENT: Final = {
    "name": "agent-1",
    "gpus": [{"uuid": "GPU-1", "memory_mb": 1}],
    "slots": 1,
    "running": ["uid-1"],
    "disks": {"/": {"free_mb": 1, "total_mb": 2}},
}
BODIES: Final = (
    AGENT,
    {"name": "gateway-1", "certificate_expires": "2030-01-01T00:00:00Z"},
    {"agent": "agent-1/cpu-1", "host": "h", "gpus": [], "claim_id": "1", "serves": {"gpu_count": 1}},
    {"reason": "exit_nonzero", "message": "words", "exit_code": 1},
    {"uids": ["u" * 43]},
    {"batch": 1, "text": "printed", "progress": {"fraction": 0.5, "message": "half"}},
)


@dataclass(frozen=True)
class Target:
    check: Callable[[bytes], None]
    """Raises what a find is."""
    seeds: Callable[[], Iterable[bytes]]
    longest: int
    """Bytes."""
    words: tuple[bytes, ...] = ()
    """That mutations put in."""


def _zips() -> Iterable[bytes]:
    for method in (STORED, DEFLATED, BZIP2, LZMA):
        yield crafted(Entry(method=method))
        yield crafted(Entry(b"a/b", method=method), Entry(b"a/", b""), Entry("ä".encode(), method=method, flags=UTF8))
    descriptor = struct.pack("<4s3L", b"PK\7\x08", 0, 0, 0)
    yield crafted(Entry(flags=DESCRIPTOR, local={"crc": 0, "compressed": 0, "size": 0}, descriptor=descriptor))
    yield crafted(Entry(), end64={}, end={"here": 0xFFFF, "all": 0xFFFF, "bytes": 0xFFFFFFFF, "offset": 0xFFFFFFFF})
    yield crafted(Entry(), before=b"#!/bin/sh\n", between=b"gap", comment=b"comment", after=b"after")
    zip64 = struct.pack("<2H2Q", 1, 16, 12, 12)
    yield crafted(Entry(method=STORED, extra=zip64, directory={"compressed": 0xFFFFFFFF, "size": 0xFFFFFFFF}))


def _decisions() -> Iterable[bytes]:
    """For targets that read choices: some of each length."""
    chance = random.Random(1)
    for length in (0, 8, 32, 128, 512):
        yield bytes(length)
        yield from (chance.randbytes(length) for _ in range(8))


def _of(*seeds: bytes) -> Callable[[], Iterable[bytes]]:
    return lambda: seeds


TARGETS: Final = {
    "zips": Target(zips.check_raw, _zips, 2048, (b"PK\1\2", b"PK\3\4", b"PK\5\6", b"PK\6\6", b"PK\6\7", b"\xff\xff")),
    "crafted-zips": Target(zips.check_crafted, _decisions, 512),
    "forms": Target(
        forms.check_raw,
        _of(*(bytes((number, 0)) + FORM for number in range(len(forms.TYPES)))),
        2048,
        (b"--b\r\n", b"--b--", b"\r\n\r\n", b"Content-Disposition: form-data; ", b'name="zip_file"', b"filename*="),
    ),
    "composed-forms": Target(forms.check_composed, _decisions, 512),
    "messages": Target(messages.check, _of(b"", b"\0" * 4 + b"u" * 43, b"\1\5request\0" + b"u" * 16), 256),
    "headers": Target(headers.check, _decisions, 512, headers.VALUES),
    "bodies": Target(
        bodies.check, _of(*(bytes([at]) + json.dumps(body).encode() for at, body in enumerate(BODIES))), 1024
    ),
    "events": Target(
        events.check, _of(b"\0id: 1-0\nevent: task\ndata: {}\n\n: alive\r\ndata: a\r\ndata: b\r\n\r\n"), 512
    ),
}
