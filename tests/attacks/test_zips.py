"""Zips that attack: each is refused with a sentence, or is harmless by the time a container sees it."""

import random
import re
import stat
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.crafted import (
    BZIP2,
    DESCRIPTOR,
    ENCRYPTED,
    END,
    LZMA,
    STORED,
    UTF8,
    Claims,
    Entry,
    crafted,
)
from tests.e2e.api import Api
from tests.zips import files_of, modes_of

MiB = 2**20
ALL_32 = 2**32 - 1
DEFLATE64, IMPLODED, AES, ZSTD = 9, 6, 99, 93
PATCHED, STRONG, MASKED = 1 << 5, 1 << 6, 1 << 13
HERE = b"here\n"


def overlapping(count: int) -> bytes:
    """David Fifield's bomb: each entry quotes the header of the next one, and goes on with its bytes, so that a kernel
    of a few kilobytes is in all of them.
    """
    kernel = random.Random(1).randbytes(2000) + bytes(140_000)
    entries = [Entry(b"kernel", kernel)]
    for number in range(count):
        quoted, behind = entries[0].header(), entries[0]
        block = struct.pack("<B2H", 0, len(quoted), len(quoted) ^ 0xFFFF) + quoted
        entries.insert(0, Entry(b"%d" % number, quoted + behind.content, packed=block + behind.data))
    body = entries[0].header() + entries[0].data
    return ended(body, [entry.record(body.index(entry.header())) for entry in entries])


def ended(body: bytes, records: list[bytes]) -> bytes:
    directory = b"".join(records)
    count = min(len(records), 0xFFFF)
    return body + directory + END.pack(b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)


def repeated(count: int) -> bytes:
    """One entry, so many times in the directory."""
    entry = Entry(content=bytes(MiB))
    return ended(entry.header() + entry.data, [entry.record(0)] * count)


def a_million() -> bytes:
    record = Entry(b"number", b"").record(0)
    head = record.removesuffix(b"number")
    return ended(b"", [b"%b%06d" % (head, number) for number in range(10**6)])


def implied_folders() -> bytes:
    """A hundred and one names that would make two thousand folders each."""
    return crafted(*(Entry(b"%03d/" % number + b"d/" * 1990 + b"a") for number in range(101)))


def both(**claims: int | bytes) -> Entry:
    return Entry(local=claims, directory=claims)


def linked(name: bytes, target: bytes) -> Entry:
    return Entry(name, target, mode=stat.S_IFLNK | 0o777)


def zip64(*numbers: int) -> bytes:
    """The field of an entry."""
    return struct.pack(f"<2H{len(numbers)}Q", 1, 8 * len(numbers), *numbers)


def with_end64(end: Claims | None = None, **claims: int) -> bytes:
    return crafted(Entry(), end=end, end64=claims)


def in_a_comment() -> bytes:
    """A second end in the first one's comment, which says that there is nothing."""
    return crafted(Entry(), comment=END.pack(b"PK\5\6", 0, 0, 0, 0, 0, 0, 0))


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    # Bombs
    "a flat bomb": (lambda: crafted(Entry(content=bytes(17 * MiB))), "times its size"),
    "a flat bomb in bzip2": (lambda: crafted(Entry(content=bytes(17 * MiB), method=BZIP2)), "times its size"),
    "a flat bomb in LZMA": (lambda: crafted(Entry(content=bytes(17 * MiB), method=LZMA)), "times its size"),
    "a bomb of overlapping entries": (lambda: overlapping(100), "overlaps"),
    "a bomb of one entry a hundred times": (lambda: repeated(100), "two entries"),
    "an entry that starts in another": (
        lambda: crafted(
            Entry(content=Entry(b"b").header() + b"x" * 40, method=STORED), Entry(b"b", directory={"offset": 31})
        ),
        "overlaps|own header",
    ),
    "an entry that runs into the directory": (lambda: crafted(both(compressed=60)), "overlaps"),
    "a bomb by what it says": (lambda: crafted(both(size=ALL_32 - 1)), "too large"),
    "a bomb that says little": (
        lambda: crafted(Entry(content=bytes(8 * MiB), local={"size": 1}, directory={"size": 1})),
        "longer",
    ),
    "an LZMA dictionary of 4 GiB": (
        lambda: crafted(Entry(method=LZMA, packed=struct.pack("<2BHBL", 9, 4, 5, 93, ALL_32) + bytes(20))),
        "LZMA dictionary",
    ),
    "a million entries": (a_million, "too many entries"),
    "200,000 folders in 101 names": (implied_folders, "too many entries"),
    "no entries": (lambda: crafted(), "empty"),
    # Headers that lie
    "a size of its own": (lambda: crafted(Entry(local={"size": 1})), "own header"),
    "a checksum of its own": (lambda: crafted(Entry(local={"crc": 1})), "own header"),
    "empty by the directory": (lambda: crafted(Entry(directory={"crc": 0, "compressed": 0, "size": 0})), "own header"),
    "a name of its own": (lambda: crafted(Entry(local={"name": b"../../etc/cron.d/a"})), "own header"),
    "an encoding of its own": (lambda: crafted(Entry("ä".encode(), local={"flags": UTF8})), "own header"),
    "a method of its own": (lambda: crafted(Entry(local={"method": STORED})), "two compression methods"),
    "encrypted by its own header": (lambda: crafted(Entry(local={"flags": ENCRYPTED})), "encrypted"),
    "a wrong checksum": (lambda: crafted(both(crc=1)), "checksum"),
    "stored in two sizes": (
        lambda: crafted(Entry(method=STORED, local={"size": 5}, directory={"size": 5})),
        "two sizes",
    ),
    "a stream that breaks off": (lambda: crafted(Entry(packed=Entry().data[:-1])), "breaks off"),
    "bytes that are no stream": (lambda: crafted(Entry(packed=b"\xff" * 20)), "decompressed"),
    "an offset beyond the end": (lambda: crafted(Entry(directory={"offset": 10**6})), "not where"),
    "an offset into content": (lambda: crafted(Entry(directory={"offset": 35})), "not where"),
    "two entries in each other's place": (
        lambda: crafted(Entry(b"a", directory={"offset": 45}), Entry(b"b", directory={"offset": 0})),
        "own header",
    ),
    "a directory that starts later": (lambda: crafted(Entry(), end={"offset": 10**6}), "truncated"),
    "a directory larger than the file": (lambda: crafted(Entry(), end={"bytes": 10**6}), "truncated"),
    "a directory of half a record": (lambda: crafted(Entry(), end={"bytes": 20}), "damaged"),
    "more entries than there are": (lambda: crafted(Entry(), end={"here": 2, "all": 2}), "its end says 2"),
    "fewer entries than there are": (
        lambda: crafted(Entry(b"a"), Entry(b"hidden"), end={"here": 1, "all": 1}),
        "its end says 1",
    ),
    "a comment that is not there": (lambda: crafted(Entry(), end={"comment_bytes": 9}), "comment"),
    "a second end in the comment": (in_a_comment, "empty"),
    # Zip64
    "Zip64: an offset of 2**64 - 1": (
        lambda: crafted(Entry(directory={"offset": ALL_32, "extra": zip64(2**64 - 1)})),
        "not where",
    ),
    "Zip64: a size of 2**63": (
        lambda: crafted(Entry(directory={"size": ALL_32, "extra": zip64(2**63)})),
        "too large|own header",
    ),
    "Zip64: a field that is cut": (
        lambda: crafted(Entry(directory={"size": ALL_32, "extra": zip64(12)[:-3]})),
        "directory is damaged",
    ),
    "Zip64: a directory of 2**63 bytes": (lambda: with_end64({"bytes": ALL_32}, bytes=2**63), "too large"),
    "Zip64: a directory beyond the end": (lambda: with_end64({"offset": ALL_32}, offset=2**63), "truncated"),
    "Zip64: an end that is elsewhere": (lambda: with_end64(located=0), "Zip64 record"),
    "Zip64: two ends that disagree": (lambda: with_end64(here=2, all=2), "something else"),
    # Names
    "the same name twice": (lambda: crafted(Entry(), Entry(content=b"other")), "two entries"),
    "the same name, with a dot": (lambda: crafted(Entry(b"d/a"), Entry(b"d/./a")), "two entries"),
    "the same name, with a backslash": (lambda: crafted(Entry(b"d/a"), Entry(b"d\\a")), "two entries"),
    "the same name, in two encodings": (
        lambda: crafted(Entry(b"\x84"), Entry("ä".encode(), flags=UTF8)),
        "two entries",
    ),
    "a file and a folder of one name": (lambda: crafted(Entry(b"a"), Entry(b"a/b")), "needs a folder"),
    "a name that climbs out": (lambda: crafted(Entry(b"../../etc/cron.d/a")), "climbs out"),
    "a name that climbs out, further in": (lambda: crafted(Entry(b"a/b/../../../x")), "climbs out"),
    "a name that climbs out by backslashes": (lambda: crafted(Entry(b"..\\..\\x")), "climbs out"),
    "an absolute name": (lambda: crafted(Entry(b"/etc/passwd")), "absolute"),
    "a drive's name": (lambda: crafted(Entry(b"C:\\Windows\\x")), "absolute"),
    "a share's name": (lambda: crafted(Entry(b"\\\\host\\share\\x")), "absolute"),
    "a name with a NUL": (lambda: crafted(Entry(b"a.txt\0.exe")), "NUL"),
    "no name": (lambda: crafted(Entry(b"")), "empty component"),
    "a name that is a dot": (lambda: crafted(Entry(b".")), "empty component"),
    "a name too long": (lambda: crafted(Entry(b"x" * 256)), "too long"),
    "a path too long": (lambda: crafted(Entry(b"d/" * 2001 + b"a")), "too long"),
    "a name of 64 kB": (lambda: crafted(Entry(b"x" * 65535)), "too long"),
    "a name that is no UTF-8, yet says so": (lambda: crafted(Entry(b"\xff\xfe", flags=UTF8)), "directory is damaged"),
    "half a surrogate as a name": (lambda: crafted(Entry(b"\xed\xa0\x80", flags=UTF8)), "directory is damaged"),
    # What isn't a file
    "a link to the host's files": (lambda: crafted(linked(b"a", b"/etc/passwd")), "symbolic link"),
    "a link to the folder above": (lambda: crafted(linked(b"a", b"..")), "symbolic link"),
    "a link, and a file behind it": (
        lambda: crafted(linked(b"a", b"/etc"), Entry(b"a/cron.d/x")),
        "symbolic link|needs a folder",
    ),
    "a chain of links": (lambda: crafted(linked(b"a", b"b"), linked(b"b", b"/")), "symbolic link"),
    "a link from a tool that knows none": (
        lambda: crafted(Entry(mode=stat.S_IFLNK, directory={"made_by": 20})),
        "symbolic link",
    ),
    "a folder that is a link": (lambda: crafted(Entry(b"a/", b"", mode=stat.S_IFLNK)), "symbolic link"),
    "a character device": (lambda: crafted(Entry(mode=stat.S_IFCHR | 0o666)), "special file"),
    "a block device": (lambda: crafted(Entry(mode=stat.S_IFBLK | 0o666)), "special file"),
    "a socket": (lambda: crafted(Entry(mode=stat.S_IFSOCK | 0o666)), "special file"),
    "a kind that there isn't": (lambda: crafted(Entry(mode=0o170000)), "special file"),
    "a folder with content": (lambda: crafted(Entry(b"a/"), Entry()), "has content"),
    # What can't be read
    "encrypted": (lambda: crafted(Entry(flags=ENCRYPTED)), "encrypted"),
    "strongly encrypted": (lambda: crafted(Entry(flags=STRONG)), "encrypted"),
    "with masked headers": (lambda: crafted(Entry(flags=MASKED)), "encrypted"),
    "AES without its flag": (lambda: crafted(Entry(method=AES)), "method 99"),
    "Zstandard": (lambda: crafted(Entry(method=ZSTD)), "method 93"),
    "Deflate64": (lambda: crafted(Entry(method=DEFLATE64)), "method 9"),
    "imploded": (lambda: crafted(Entry(method=IMPLODED)), "method 6"),
    "a patch": (lambda: crafted(Entry(flags=PATCHED)), "method"),
    "split: the end": (lambda: crafted(Entry(), end={"disk": 1}), "several files"),
    "split: an entry": (lambda: crafted(Entry(directory={"disk": 1})), "several files"),
    "a local header alone": (lambda: Entry().header() + Entry().data, "truncated"),
    "an end alone, of a zip elsewhere": (lambda: END.pack(b"PK\5\6", 0, 0, 1, 1, 47, 10**6, 0), "truncated"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_zip_is_refused(api: Api, copying: str, name: str) -> None:
    """With 400 and a sentence that names the fault, and no task is made."""
    make, words = REFUSED[name]
    answer = api.call("POST", "/api/tasks/", params={"model_human_readable_id": copying}, zip=make())
    assert answer.status_code == 400, answer.text
    assert re.search(words, answer.json()["detail"]), answer.text


def described(method: int, *, signed: bool) -> Entry:
    """Sizes and checksum stand behind the bytes."""
    there = Entry(content=HERE, method=method)
    descriptor = struct.pack("<3L", zlib.crc32(HERE), len(there.data), len(HERE))
    unknown = {"crc": 0, "compressed": 0, "size": 0}
    return Entry(
        content=HERE,
        method=method,
        flags=DESCRIPTOR,
        local=unknown,
        descriptor=b"PK\7\x08" * signed + descriptor,
    )


def named(*names: str) -> bytes:
    return crafted(*(Entry(name.encode(), HERE, flags=UTF8) for name in names))


NESTED = crafted(Entry(b"inner.zip", crafted(Entry(content=bytes(17 * MiB))), method=STORED))
SECOND = crafted(Entry(b"second", HERE))
CONTROLS = ("a\nb", "a\tb", "\x1b[2Ja", "a\x7f", "\x01")
RIGHT_TO_LEFT = "a\u202egpj.exe"
SHELL = ("-rf", "$(reboot)", "`id`", "a;b", "*", "a'b\"c")
WINDOWS = ("CON", "nul.txt", "trailing.", "trailing ", "aa:b", "a<b>|?")
COMPOSED, DECOMPOSED = "\u00e4", "a\u0308"

SAFE: dict[str, tuple[bytes, dict[str, bytes]]] = {
    "a bomb in a zip in it stays a zip": (NESTED, files_of(NESTED)),
    "names that differ in case are two": (named("a", "A"), {"a": HERE, "A": HERE}),
    "names that differ in their normal form are two": (
        named(COMPOSED, DECOMPOSED),
        {COMPOSED: HERE, DECOMPOSED: HERE},
    ),
    "control characters are kept": (named(*CONTROLS), dict.fromkeys(CONTROLS, HERE)),
    "letters that turn the direction are kept": (named(RIGHT_TO_LEFT), {RIGHT_TO_LEFT: HERE}),
    "what a shell would run is a name": (named(*SHELL), dict.fromkeys(SHELL, HERE)),
    "what Windows reserves is a name": (named(*WINDOWS), dict.fromkeys(WINDOWS, HERE)),
    "names without the flag are code page 437": (crafted(Entry(b"\x84\x94\x81", HERE)), {"äöü": HERE}),
    "backslashes are folders": (crafted(Entry(b"a\\b\\c", HERE)), {"a/b/c": HERE}),
    "a program in front is passed over": (crafted(Entry(content=HERE), before=b"#!/bin/sh\n"), {"a": HERE}),
    "what comes after the end is passed over": (crafted(Entry(content=HERE), after=b"\r\nmore"), {"a": HERE}),
    "what lies between is passed over": (crafted(Entry(content=HERE), between=b"hidden" * 10), {"a": HERE}),
    "of two zips in a row the last counts": (crafted(Entry(b"first")) + SECOND, {"second": HERE}),
    "of a zip in the comment it counts, as everywhere": (
        crafted(Entry(b"first"), comment=SECOND),
        {"second": HERE},
    ),
    "setuid goes": (crafted(Entry(b"a", HERE, mode=stat.S_IFREG | 0o6755)), {"a": HERE}),
    "what came through a pipe is a file": (crafted(Entry(b"a", HERE, mode=stat.S_IFIFO | 0o600)), {"a": HERE}),
    "an unreadable file is readable": (crafted(Entry(b"a", HERE, mode=stat.S_IFREG)), {"a": HERE}),
    "a target in a field is no link": (
        crafted(Entry(b"a", HERE, extra=struct.pack("<2H2L2H", 13, 12 + 11, 0, 0, 0, 0) + b"/etc/passwd")),
        {"a": HERE},
    ),
    "a reparse point is a file": (
        crafted(Entry(b"a", HERE, directory={"external": 0x400, "made_by": 0xA14})),
        {"a": HERE},
    ),
    "a time that no calendar has": (
        crafted(Entry(b"a", HERE, local={"date": 0xFFFF}, directory={"date": 0xFFFF})),
        {"a": HERE},
    ),
    "an extra field of 64 kB": (
        crafted(Entry(b"a", HERE, extra=struct.pack("<2H", 0xCAFE, 65531) + bytes(65531))),
        {"a": HERE},
    ),
    "bzip2": (crafted(Entry(b"a", HERE, method=BZIP2)), {"a": HERE}),
    "LZMA": (crafted(Entry(b"a", HERE, method=LZMA)), {"a": HERE}),
    "sizes behind the bytes": (crafted(described(8, signed=True)), {"a": HERE}),
    "sizes behind stored bytes": (crafted(described(STORED, signed=False)), {"a": HERE}),
    "Zip64 without need": (
        crafted(
            Entry(
                b"a",
                HERE,
                method=STORED,
                extra=zip64(len(HERE), len(HERE)),
                directory={"size": ALL_32, "compressed": ALL_32},
            )
        ),
        {"a": HERE},
    ),
}


@dataclass(frozen=True)
class Seen:
    """Of a container."""

    files: dict[str, bytes]
    modes: dict[str, int]


@pytest.fixture(scope="module")
def seen(api: Api, copying: str) -> dict[str, Seen | str]:
    """What each safe zip became, all at once; a string tells how one was refused."""
    answers = {
        name: api.call("POST", "/api/tasks/", params={"model_human_readable_id": copying}, zip=zip)
        for name, (zip, _) in SAFE.items()
    }
    uids = {name: answer.json() for name, answer in answers.items() if answer.ok}
    found: dict[str, Seen | str] = {name: answer.text for name, answer in answers.items()}
    for name, uid in uids.items():
        output = api.wait(uid)
        found[name] = Seen(files_of(output.content), modes_of(output.content)) if output.ok else output.text
        api.delete(uid)
    return found


@pytest.mark.parametrize("name", SAFE)
def test_a_strange_zip_is_harmless(seen: dict[str, Seen | str], name: str) -> None:
    """Its container finds plain files, readable, with these names and contents."""
    found = seen[name]
    assert isinstance(found, Seen), found
    assert {path: content for path, content in found.files.items() if not path.endswith("/")} == SAFE[name][1]
    for path, mode in found.modes.items():
        assert stat.S_ISREG(mode) or (stat.S_ISDIR(mode) and path.endswith("/"))
        assert not mode & 0o7000
        assert mode & 0o444 == 0o444
