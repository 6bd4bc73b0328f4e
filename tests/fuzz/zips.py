"""Zips: what core takes, Python's zipfile reads and the agent unzips, to the same files and to nothing else."""

import io
import shutil
import stat
import struct
import subprocess
import tempfile
import warnings
import zlib
from functools import cache
from itertools import count
from pathlib import Path
from zipfile import ZIP_LZMA, ZIP_STORED, ZipFile, ZipInfo

from core.contract.errors import InvalidZip
from core.contract.zipentry import content
from core.contract.zips import ZipLimits, check, is_folder, read_entries, safe_name
from gpu_agent.archive import extract
from gpu_agent.folders import remove_tree
from tests.crafted import BZIP2, DEFLATED, DESCRIPTOR, ENCRYPTED, LZMA, STORED, UTF8, ZSTD, Claims, Entry, crafted
from tests.fuzz.choices import Choices
from tests.fuzz.refusals import check_refusal

LIMITS = ZipLimits(max_total_bytes=1 << 20, max_ratio=100, max_entries=50, verify_bytes=64 << 20)
"""Each content that is taken is verified: a bzip2 block counts as 900 kB."""

UNZIPPED_BY_ANOTHER = 100
"""Of those taken each so-manieth is tested by Info-ZIP's unzip as well, where there is one."""
OTHER_BYTES = ("bad CRC", "invalid compressed data", "missing", "not found", "overlapped")
"""What it says of a zip that it reads otherwise; it also minds malformed fields that nobody needs."""

UNICODE_NAME = 0x7075
"""Info-ZIP's field, by which an entry has another name."""

NAMES = (
    *(b"a", b"b", b"a/b", b"a/", b"./a", b"a\\b", b"A", b".", b"..", b"../a", b"/a", b"C:a", b"a/../b", b"a//b"),
    *(b"a\0b", b"\xc3\xa4", b"\xe4", b"a\xcc\x88", b"\xed\xa0\x80", b"\xff", b"x" * 255, b"x" * 256, b"a ", b"a."),
)
MODES = (0, *(kind | 0o7777 for kind in range(0, 0o200000, 0o10000)))
METHODS = (DEFLATED, STORED, BZIP2, LZMA)
OTHER_METHODS = (1, 9, ZSTD, 99)
FLAGS = (UTF8, DESCRIPTOR, ENCRYPTED, 1 << 5, 1 << 6, 1 << 13)
HALVES = ("version", "flags", "method", "time", "date")
WORDS = ("crc", "compressed", "size")
NUMBERS = (0, 1, 2, 8, 50, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)

Files = dict[str, bytes | None]
"""None: a folder."""

_taken = count(1)


def check_raw(data: bytes) -> None:
    """The fuzzer's bytes as they are."""
    taken(data)


def check_crafted(data: bytes) -> None:
    """A zip of which much is in order. The agent may take what core refuses for its limits or for overlapping, not
    what harms a host.
    """
    posted = crafted_of(Choices(data))
    expected = taken(posted)
    outside = _place()
    inside = outside / "inside"
    inside.mkdir()
    try:
        extract(io.BytesIO(posted), inside, max_total_bytes=LIMITS.max_total_bytes, max_entries=LIMITS.max_entries)
    except InvalidZip as refusal:
        check_refusal(refusal)
        if expected is not None:
            raise AssertionError("core takes what the agent doesn't") from refusal
    else:
        found = _unzipped(inside)
        assert expected is None or found == expected
        assert sum(len(content) for content in found.values() if content) <= LIMITS.max_total_bytes
        assert len(found) <= LIMITS.max_entries
    finally:
        remove_tree(inside)
        assert not list(outside.iterdir()), "something lies outside"


def taken(posted: bytes) -> Files | None:
    """What is in a zip that core takes, with zipfile's agreement. None: refused."""
    with warnings.catch_warnings(action="ignore"):  # zipfile's, of empty and unknown fields
        try:
            assert check(io.BytesIO(posted), LIMITS)
        except InvalidZip as refusal:
            check_refusal(refusal)
            return None
        ours = read_entries(io.BytesIO(posted), max_entries=LIMITS.max_entries).infos
        files: Files = {}
        with ZipFile(io.BytesIO(posted)) as archive:
            assert archive.namelist() == [info.filename for info in ours]
            for info, theirs in zip(ours, archive.infolist(), strict=True):
                read = b"".join(content(io.BytesIO(posted), info))
                assert read == archive.read(theirs), info
                path = safe_name(info)
                files |= {str(parent): None for parent in path.parents} | {str(path): None if is_folder(info) else read}
    files.pop(".", None)
    if next(_taken) % UNZIPPED_BY_ANOTHER == 0 and all(map(_another_can, ours)):
        _test_by_another(posted)
    return files


def _another_can(info: ZipInfo) -> bool:
    """It knows no LZMA, wants descriptors where they are announced, and an end mark of what has no content."""
    is_empty = info.compress_type != ZIP_STORED and not info.compress_size
    return not (info.compress_type == ZIP_LZMA or info.flag_bits & DESCRIPTOR or is_empty)


def _test_by_another(posted: bytes) -> None:
    if unzip := shutil.which("unzip"):
        file = _place() / "tested.zip"
        file.write_bytes(posted)
        tested = subprocess.run([unzip, "-tqq", file], capture_output=True, text=True, errors="replace", timeout=10)
        file.unlink()
        said = tested.stdout + tested.stderr
        assert not any(words in said for words in OTHER_BYTES), said


def crafted_of(choices: Choices) -> bytes:
    """One to four entries, mostly sound, in a zip that mostly is."""
    entries = [_entry(choices) for _ in range(1 + choices.number(3))]
    texts = {part: choices.some(30) for part in ("before", "between", "comment", "after") if choices.one_in(8)}
    end = {key: choices.pick(NUMBERS) & 0xFFFF for key in ("disk", "first_disk", "here", "all") if choices.one_in(16)}
    end |= {key: choices.pick(NUMBERS) & 0xFFFFFFFF for key in ("bytes", "offset") if choices.one_in(16)}
    end64 = None
    if choices.one_in(8):
        claims = ("record_bytes", "here", "all", "bytes", "offset", "located")
        end64 = {key: choices.pick(NUMBERS) for key in claims if choices.one_in(8)}
    return crafted(*entries, end=end, end64=end64, **texts)


def _entry(choices: Choices) -> Entry:
    name = choices.some(20) if choices.one_in(4) else choices.pick(NAMES)
    return Entry(
        name=name,
        content=bytes(choices.number(4000)) if choices.one_in(4) else choices.some(40),
        method=choices.pick(OTHER_METHODS if choices.one_in(16) else METHODS),
        flags=choices.pick(FLAGS) if choices.one_in(4) else 0,
        mode=choices.pick(MODES) if choices.one_in(3) else 0,
        extra=_extra(choices, name) if choices.one_in(4) else b"",
        packed=choices.some(40) if choices.one_in(16) else None,
        descriptor=choices.some(24) if choices.one_in(8) else b"",
        local=_lies(choices),
        directory={**_lies(choices), **({"offset": choices.pick(NUMBERS)} if choices.one_in(16) else {})},
    )


def _extra(choices: Choices, name: bytes) -> bytes:
    """Zip64's field, the one with another name in Unicode, or anything."""
    kind = choices.pick((1, UNICODE_NAME, choices.number(0xFFFF)))
    value = choices.some(32)
    if kind == UNICODE_NAME and choices.one_in(2):
        value = struct.pack("<BL", 1, zlib.crc32(name)) + choices.pick(NAMES)
    return struct.pack("<2H", kind, len(value)) + value


def _lies(choices: Choices) -> Claims:
    lies: dict[str, int | bytes] = {}
    lies |= {key: choices.pick(NUMBERS) & 0xFFFF for key in HALVES if choices.one_in(24)}
    lies |= {key: choices.pick(NUMBERS) & 0xFFFFFFFF for key in WORDS if choices.one_in(24)}
    lies |= {"name": choices.pick(NAMES)} if choices.one_in(24) else {}
    lies |= {"extra": choices.some(32)} if choices.one_in(24) else {}
    return lies


def _unzipped(folder: Path) -> Files:
    """Nothing but files and folders, which anybody may read and nobody becomes another by."""
    found: Files = {}
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        assert stat.S_ISDIR(mode) or stat.S_ISREG(mode), path
        assert not mode & 0o7000, path
        assert mode & 0o444 == 0o444, path
        found[str(path.relative_to(folder))] = None if stat.S_ISDIR(mode) else path.read_bytes()
    return found


@cache
def _place() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-"))
