"""What core and agents say to zips, well-formed and hostile."""

import io
import os
import random
import struct
import sys
import tracemalloc
import warnings
import zlib
from dataclasses import replace
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, ZIP_STORED, ZipFile, ZipInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.contract.errors import InvalidZip
from core.contract.zips import RangedFile, ZipLimits, check, read_entries, safe_name
from tests.crafted import BZIP2, DEFLATED, Claims, Entry, compressed, crafted

LIMITS = ZipLimits(max_total_bytes=100 << 20, max_ratio=100, max_entries=1000, verify_bytes=64 << 20)
END = 22  # bytes of the end record of a zip without a comment
METHODS = [ZIP_STORED, ZIP_DEFLATED, ZIP_BZIP2, ZIP_LZMA]


class Unseekable(io.RawIOBase):
    """Makes `zipfile` write data descriptors."""

    def __init__(self) -> None:
        self.written = io.BytesIO()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self.written.write(data)  # type: ignore[arg-type]


def zipped(*names: str, content: bytes = b"some content", method: int = ZIP_DEFLATED, mode: int = 0) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), ZipFile(buffer, "w") as archive:  # duplicate names
        for name in names:
            info = ZipInfo("x")
            info.filename = info.orig_filename = name
            info.compress_type = method
            info.external_attr = mode << 16
            archive.writestr(info, b"" if name.endswith(("/", "\\")) else content)
    return buffer.getvalue()


def streamed(method: int, *, zip64: bool = False) -> bytes:
    stream = Unseekable()
    with ZipFile(stream, "w", method) as archive:
        for name in ("a", "b"):
            with archive.open(name, "w", force_zip64=zip64) as entry:
                entry.write(b"some content" * 100)
    return stream.written.getvalue()


def patched(data: bytes, at: int, replacement: bytes) -> bytes:
    at %= len(data)
    return data[:at] + replacement + data[at + len(replacement) :]


def directory_at(data: bytes) -> int:
    return data.index(b"PK\1\2")


def in_directory(data: bytes, at: int, replacement: bytes) -> bytes:
    """Changes the directory's first record."""
    return patched(data, directory_at(data) + at, replacement)


def in_both(data: bytes, at: int, replacement: bytes) -> bytes:
    """Changes the directory's first record, and the header that it is about: `at` counts in the record."""
    return patched(in_directory(data, at, replacement), at - 2, replacement)


def fault(data: bytes, limits: ZipLimits = LIMITS) -> str:
    with pytest.raises(InvalidZip) as raised:
        check(io.BytesIO(data), limits)
    return str(raised.value.detail)


def with_comment() -> bytes:
    buffer = io.BytesIO(zipped("a"))
    with ZipFile(buffer, "a") as archive:
        archive.comment = b"made by hand " * 1000
    return buffer.getvalue()


def zip64_end() -> bytes:
    """A zip of one entry whose end is written as a zip of many entries has it."""
    data = zipped("a")
    start, end = directory_at(data), len(data) - END
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, end - start, start)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    return (
        data[:end] + record + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, 2**32 - 1, 2**32 - 1, 0)
    )


@pytest.mark.parametrize(
    "data",
    [
        *(pytest.param(zipped("a", "b/c", "d/", method=method), id=f"method {method}") for method in METHODS),
        *(
            pytest.param(zipped("a", content=b"", method=method), id=f"no content, method {method}")
            for method in METHODS
        ),
        *(pytest.param(streamed(method), id=f"data descriptors, method {method}") for method in METHODS),
        pytest.param(streamed(ZIP_STORED, zip64=True), id="zip64 descriptors"),
        pytest.param(zip64_end(), id="zip64 end record"),
        pytest.param(with_comment(), id="comment"),
        pytest.param(b"#!/bin/sh\n" + zipped("a", "b"), id="self-extractor"),
        pytest.param(zipped("a") + b"\r\n--boundary--\r\n", id="bytes after the end"),
        pytest.param(zipped("d/", "d/", "d/a", "./b"), id="folder named twice"),
        pytest.param(zipped("ünï/cödé 日本.txt"), id="unicode"),
        pytest.param(zipped("a\\b\\c.txt", "a\\d\\"), id="backslashes"),
        pytest.param(zipped("-", mode=0o010600), id="from a pipe"),
        pytest.param(zipped("tiny", content=bytes(10 << 20)), id="a thousandfold, below the floor"),
        pytest.param(crafted(Entry(b"a", b"", packed=b""), Entry(b"b")), id="empty, called deflated"),
        pytest.param(zipped("x" * 255, "/".join(["d" * 249] * 16)), id="longest names"),
    ],
)
def test_accepts(data: bytes) -> None:
    """Whatever sound zips the common tools write is accepted."""
    check(io.BytesIO(data), LIMITS)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty (0 bytes)"),
        (b"%PDF-1.7 and so on", "not a zip"),
        (zipped(), "is empty"),
        (zipped("a/", "b/c/"), "is empty"),
        (zipped("a")[:-1], "truncated"),
        (zipped("a")[:-END], "truncated"),
        (zipped("a", content=os.urandom(200_000))[:100_000], "truncated"),
        (with_comment()[:-1], "truncated"),
        (zipped("a", content=os.urandom(1000))[500:], "truncated"),
        (patched(zipped("a"), -END + 4, b"\1"), "several files"),
        (patched(zipped("a"), -END + 16, b"\xff"), "truncated"),
        (in_directory(zipped("a"), 0, b"PK\3\4"), "directory is damaged"),
        (in_directory(zipped("a"), 28, b"\xff"), "directory is damaged"),
        (in_directory(zipped("a"), 6, b"\xff"), "directory is damaged"),
        (in_directory(zipped("ä"), 46, b"\xff\xff"), "directory is damaged"),
        (in_directory(zipped("a"), 34, b"\1"), "several files"),
        (in_directory(zipped("a"), 8, b"\1"), "encrypted"),
        (patched(zipped("a"), 6, b"\1"), "encrypted"),
        (in_directory(zipped("a"), 8, b"\x40"), "encrypted"),
        (in_directory(zipped("a"), 8, b"\x20"), "method"),
        (in_directory(zipped("a"), 10, b"\x09"), "method 9"),
        (patched(zipped("a"), 8, b"\0"), "two compression methods"),
        (patched(zipped("a"), 30, b"b"), "is called 'b' in its own header"),
        (patched(zipped("a"), 0, b"XX"), "not where the directory says"),
        (in_directory(zipped("a"), 42, struct.pack("<L", 10**6)), "not where the directory says"),
        (in_both(zipped("a"), 20, struct.pack("<L", 10**6)), "overlaps"),
        (in_both(zipped("a", method=ZIP_STORED), 24, b"\xff"), "two sizes"),
        (in_both(zipped("a"), 24, b"\5"), "longer"),
        (in_both(zipped("a"), 24, b"\xff"), "shorter"),
        (in_both(zipped("a"), 16, b"\1\2\3\4"), "checksum"),
        (patched(zipped("a", method=ZIP_STORED), 33, b"X"), "checksum"),
        (patched(zipped("a"), 31, b"\xff\xff\xff"), "decompressed"),
        (patched(zipped("a", method=ZIP_BZIP2), 31, b"\xff\xff\xff"), "decompressed"),
        (patched(zipped("a", method=ZIP_LZMA), 33, b"\xff\xff\xff"), "decompressed"),
        (patched(zipped("a", method=ZIP_LZMA), 36, b"\xff\xff\xff\xff"), "LZMA dictionary"),
        (patched(zip64_end(), -END - 12, b"\1"), "Zip64 record"),
        (patched(zip64_end(), -END - 20 - 52, b"\0"), "Zip64 record"),  # found by fuzzing: its own length
        (patched(zip64_end(), -END - 4, b"\2"), "several files"),
        (patched(zip64_end(), -END - 16, b"\1"), "several files"),
        (b"stub" + zip64_end(), "Zip64 record"),
        (zipped("a\0b"), "NUL"),
        (zipped("../a"), "climbs out"),
        (zipped("a/../../b"), "climbs out"),
        (zipped("a/.."), "climbs out"),
        (zipped("..\\a"), "climbs out"),
        (zipped("/etc/passwd"), "absolute"),
        (zipped("\\\\host\\share"), "absolute"),
        (zipped("C:\\a"), "absolute"),
        (zipped("c:a"), "absolute"),
        (zipped("a//b"), "empty component"),
        (zipped("."), "empty component"),
        (zipped("x" * 256), "too long"),
        (zipped("/".join(["d" * 250] * 16)), "too long"),
        (zipped("a", mode=0o120777), "symbolic link"),
        (zipped("a", mode=0o020644), "special file"),
        (zipped("a", mode=0o060644), "special file"),
        (in_directory(zipped("a/"), 24, b"\1"), "has content"),
        (zipped("a", "b", "./a"), "two entries"),
        (zipped("a/b", "a"), "two entries"),
        (zipped("a", "a/b"), "needs a folder"),
        (zipped("a", "a/"), "needs a folder"),
        (zipped(*map(str, range(1001))), "too many entries"),
        (zipped(*(f"{i}/{i}" for i in range(501))), "too many entries"),
        (zipped("a", content=bytes(17 << 20)), "times its size"),
    ],
)
def test_names_the_fault(data: bytes, words: str) -> None:
    """Each fault is refused with a sentence that names it."""
    assert words in fault(data)


def test_total_size_is_limited() -> None:
    """The sum of the uncompressed sizes counts, not the zip's own size."""
    limits = ZipLimits(max_total_bytes=1999, max_ratio=100, max_entries=10, verify_bytes=0)
    assert "too large" in fault(zipped("a", "b", content=bytes(1000)), limits)


def test_content_is_verified_up_to_a_bound() -> None:
    """Beyond `verify_bytes` the content is left to the agent that unzips it."""
    broken = in_both(zipped("a", content=bytes(1000)), 16, b"\1\2\3\4")
    limits = ZipLimits(max_total_bytes=10**6, max_ratio=100, max_entries=10, verify_bytes=999)
    check(io.BytesIO(broken), limits)
    assert "checksum" in fault(broken)


def test_refuses_overlapping_entries() -> None:
    """Entries that share one compressed run, as David Fifield's bombs do, are refused before any is decompressed."""
    data = zipped("a", content=bytes(1000))
    start = directory_at(data)
    record = data[start:-END]
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, 2 * len(record), start, 0)
    twin = patched(record, 46, b"b")
    assert "overlaps" in fault(data[:start] + record + twin + end)


@pytest.mark.parametrize("field", ["crc", "compressed", "size"])
def test_refuses_headers_that_disagree(field: str) -> None:
    """Found by fuzzing: the directory said that a file is empty, and who believed the file's own header saw content."""
    for claims in ({field: 0}, {field: 1}, {"crc": 0, "compressed": 0, "size": 0}):
        assert "size or checksum" in fault(crafted(Entry(local=claims)))
        assert "size or checksum" in fault(crafted(Entry(directory=claims)))


def test_refuses_an_offset_that_nothing_can_seek() -> None:
    """Found by fuzzing: a Zip64 field says 2**64 - 1, which was an OverflowError."""
    offset = struct.pack("<2HQ", 1, 8, 2**64 - 1)
    zip = crafted(Entry(directory={"offset": 2**32 - 1, "extra": offset}))
    assert "not where the directory says" in fault(zip)


@pytest.mark.parametrize("method", [DEFLATED, BZIP2])
def test_refuses_a_stream_that_breaks_off(method: int) -> None:
    """Found by fuzzing: behind all of its content only the end mark is missing, which zipfile doesn't see."""
    content = b"some content" * 100
    whole = compressed(content, method)
    endless = whole[:-4] if method == BZIP2 else zlib.compress(content, wbits=-15)[:-1]
    assert "breaks off" in fault(crafted(Entry(content=content, method=method, packed=endless)))


@pytest.mark.parametrize(
    ("end", "end64", "words"),
    [
        ({"all": 1}, None, "its end says 1"),
        ({"here": 3}, None, "its end says 2"),
        ({}, {"all": 1}, "something else"),
        ({"all": 0xFFFF}, {"all": 1}, "its end says 1"),
        ({"bytes": 0xFFFF}, {}, "something else"),
        ({"offset": 0}, {}, "something else"),
    ],
)
def test_refuses_ends_that_disagree(end: Claims, end64: Claims | None, words: str) -> None:
    """Found by fuzzing: some readers go by the number of entries, and don't see those beyond it."""
    assert words in fault(crafted(Entry(b"a"), Entry(b"b"), end=end, end64=end64))


@pytest.mark.parametrize("name", [b"../../x", b"/etc/passwd", b"a\\..\\..\\x", b"taken", b"\xff"])
@pytest.mark.filterwarnings("ignore:Empty unicode path")
def test_a_name_in_a_field_is_held_to_the_same_rules(name: bytes) -> None:
    """zipfile takes Info-ZIP's Unicode name for the entry's from Python 3.12 on; before, the field is passed over."""
    field = struct.pack("<BL", 1, zlib.crc32(b"plain")) + name
    zip = crafted(Entry(b"plain", extra=struct.pack("<2H", 0x7075, len(field)) + field), Entry(b"taken"))
    if sys.version_info >= (3, 12):
        assert fault(zip)
    else:
        names = [info.filename for info in read_entries(io.BytesIO(zip), max_entries=2).infos]
        assert names == ["plain", "taken"]


def test_more_entries_than_an_old_end_record_can_say() -> None:
    """Writers without Zip64 let the number overflow."""
    zip = crafted(*(Entry(str(number).encode(), b"") for number in range(2**16 + 1)), end={"here": 1, "all": 1})
    check(io.BytesIO(zip), replace(LIMITS, max_entries=2**17))


@pytest.mark.parametrize("claim", [2**32 - 2, 10**8])
def test_a_claimed_directory_is_not_read(claim: int) -> None:
    """A directory larger than the entries allowed could need is refused by its size."""
    size = claim + END
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, claim, 0, 0)
    reads: list[int] = []

    def read_range(offset: int, length: int) -> bytes:
        reads.append(length)
        return (bytes(length) + end)[-length:] if offset + length == size else bytes(length)

    with pytest.raises(InvalidZip, match="too large"):
        check(RangedFile(read_range, size), LIMITS)
    assert sum(reads) < 1 << 20


def test_more_records_than_declared_are_counted() -> None:
    """The directory's records count, not the number that the end record declares."""
    assert "too many entries" in fault(patched(zipped(*map(str, range(1001))), -END + 8, b"\1\0\1\0"))


@pytest.mark.parametrize("method", METHODS)
def test_decompresses_no_more_than_declared(method: int) -> None:
    """An entry that declares one byte costs no memory for the 32 MiB it really has."""
    data = zipped("a", content=bytes(32 << 20), method=method)
    lying = in_both(data, 24, struct.pack("<L", 1))
    tracemalloc.start()
    try:
        message = fault(lying)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "longer" in message or "two sizes" in message
    assert peak < 16 << 20


def test_faults_of_the_source_pass_through() -> None:
    """A store that can't be read is no fault of the zip."""

    def broken(_offset: int, _length: int) -> bytes:
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        check(RangedFile(broken, 1000), LIMITS)


SAMPLES = [
    zipped("a", "b/c", "d/", method=ZIP_STORED),
    *(zipped("a", "ü", content=bytes(range(256)) * 8, method=method) for method in METHODS),
    streamed(ZIP_DEFLATED, zip64=True),
    with_comment()[:400] + with_comment()[-300:],
    zip64_end(),
]
EDITS = st.lists(st.tuples(st.integers(0, 1 << 14), st.binary(min_size=1, max_size=8)), max_size=4)


@settings(max_examples=300, deadline=None)
@given(sample=st.sampled_from(SAMPLES), edits=EDITS, cut=st.integers(0, 40), where=st.integers(0, 1 << 14))
@pytest.mark.filterwarnings("ignore:Empty unicode path")
def test_mutated_zips_pass_or_are_refused(sample: bytes, edits: list[tuple[int, bytes]], cut: int, where: int) -> None:
    """However a zip is damaged, the answer is a verdict; and what passes, `zipfile` reads with the same bytes."""
    for at, replacement in edits:
        sample = patched(sample, at, replacement)
    where %= len(sample)
    sample = sample[:where] + sample[where + cut // 2 :]
    try:
        check(io.BytesIO(sample), LIMITS)
    except InvalidZip:
        return
    with ZipFile(io.BytesIO(sample)) as archive:
        assert archive.testzip() is None


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"", b"PK\5\6", b"PK\1\2", b"PK\3\4"]), st.binary(max_size=40))
def test_random_bytes_are_refused(before: bytes, signature: bytes, after: bytes) -> None:
    """Bytes that are no zip are called so."""
    assert fault(before + signature + after)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40).filter(lambda name: "\0" not in name))
def test_a_safe_name_stays_inside(name: str) -> None:
    """A name either is refused or leads to a place below the folder."""
    info = ZipInfo("x")
    info.filename = info.orig_filename = name
    try:
        path = safe_name(info)
    except InvalidZip:
        return
    root = "/some/folder"
    assert os.path.normpath(f"{root}/{path}").startswith(root)


class Fetched(list[tuple[int, int]]):
    """Reads ranges of `data`, and keeps a record of them."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __call__(self, offset: int, length: int) -> bytes:
        self.append((offset, length))
        return self.data[offset : offset + length]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(-1, 700)), max_size=20), st.integers(1, 300))
def test_a_ranged_file_reads_like_a_file(reads: list[tuple[int, int]], block_bytes: int) -> None:
    """Wherever one reads, and whatever the block size, the bytes are those of the file."""
    data = random.Random(1).randbytes(2500)
    file, expected = RangedFile(Fetched(data), len(data), block_bytes=block_bytes), io.BytesIO(data)
    for offset, length in reads:
        assert file.seek(offset) == expected.seek(offset)
        assert file.read(length) == expected.read(length)
        assert file.read(3) == expected.read(3)
        assert file.tell() == expected.tell()


def test_a_ranged_file_fetches_blocks() -> None:
    """A long run is fetched in aligned blocks, each once; many small entries don't mean many fetches."""
    run = Fetched(bytes(8 << 20))
    file = RangedFile(run, len(run.data), block_bytes=1 << 20)
    while file.read(100_000):
        pass
    assert sum(length for _, length in run) == 8 << 20
    assert all((offset + length) % (1 << 20) == 0 for offset, length in run[1:])
    small = Fetched(zipped(*map(str, range(1000)), content=os.urandom(500), method=ZIP_STORED))
    check(RangedFile(small, len(small.data), block_bytes=1 << 20), LIMITS)
    assert len(small) < 40
    assert io.BufferedReader(RangedFile(small, len(small.data))).read(10) == small.data[:10]
