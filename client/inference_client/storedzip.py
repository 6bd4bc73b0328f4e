"""Files as a zip that is made while it is sent, and never lies anywhere as a whole.

Nothing in it is compressed. So its length is known before a byte of it has been read, which a resumable upload has to
say first; and the same files make the same bytes each time, from any offset on, so that an upload that was cut off
goes on where it stood, even from another process, without a copy of what was sent. What compresses well is better
zipped before, by a tool made for that. A file's checksum stands behind its bytes (a data descriptor), so that it is
read once.

Names are UTF-8, times and modes the same for all, and sizes and offsets have the 64 bits of Zip64 where they need them.
"""

import os
import stat
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO

from inference_client.errors import SourceError

PIECE_BYTES = 256 * 1024
MARK_BYTES = 64 * 1024 * 1024
"""A file's checksum is remembered at each multiple of this, so that little is read again to go on in its middle."""

LARGE = 0xFFFF_FFFF
MANY = 0xFFFF
"""Sizes and offsets, and numbers of entries, that the old fields can't say: they stand in those of Zip64."""

_ELSEWHERE_16, _ELSEWHERE_32 = 0xFFFF, 0xFFFF_FFFF  # what the old fields say then
_LONGEST_NAME = 0xFFFF
_FLAGS = 1 << 3 | 1 << 11  # checksum and sizes follow the bytes; the name is UTF-8
_FOLDER_FLAGS = 1 << 11
_PLAIN, _ZIP64 = 20, 45  # versions needed to extract: APPNOTE.TXT 4.4.3
_UNIX = 3 << 8
_TIME, _DATE = 0, 1 << 5 | 1  # 1980-01-01, the first that there is
_FILE_MODE = (stat.S_IFREG | 0o644) << 16
_FOLDER_MODE = (stat.S_IFDIR | 0o755) << 16 | 0x10


@dataclass(frozen=True)
class Member:
    """A file, or an empty folder: its name ends in a slash. `status` is what was true when it was found."""

    name: str
    path: Path
    status: os.stat_result

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")


def members(paths: Sequence[Path]) -> list[Member]:
    """One folder's content, or several files and folders under their own names; in the order of the names.

    Links are followed. SourceError: there is none, there are two of a name, or it is neither a file nor a folder.
    """
    if len(paths) == 1 and paths[0].is_dir():
        found = list(_inside(paths[0], "", ()))
    else:
        found = [member for path in paths for member in _at(path, path.absolute().name or path.resolve().name, ())]
    found.sort(key=lambda member: _spelled(member))
    for one, other in pairwise(found):
        if one.name == other.name:
            raise SourceError(f"{one.path} and {other.path} would both be {one.name}: send the folder that holds them")
    if all(member.is_folder for member in found):
        raise SourceError(f"There is no file in {', '.join(map(str, paths))}")
    return found


def _at(path: Path, name: str, above: tuple[str, ...]) -> Iterator[Member]:
    try:
        status = path.stat()
    except OSError as error:
        raise SourceError(f"{path} can't be read: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        yield from _inside(path, f"{name}/", above)
    elif stat.S_ISREG(status.st_mode):
        yield Member(name, path, status)
    else:
        raise SourceError(f"{path} is neither a file nor a folder")


def _inside(folder: Path, prefix: str, above: tuple[str, ...]) -> Iterator[Member]:
    real = os.path.realpath(folder)
    if real in above:
        raise SourceError(f"{folder} is a link to a folder above it, and would never end")
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        raise SourceError(f"{folder} can't be read: {error.strerror}") from error
    if not names and prefix:
        yield Member(prefix, folder, folder.stat())
    for name in names:
        yield from _at(folder / name, prefix + name, (*above, real))


def _spelled(member: Member) -> bytes:
    try:
        name = member.name.encode()
    except UnicodeEncodeError:
        raise SourceError(f"{member.path!a} has a name that isn't UTF-8: rename it") from None
    if b"\\" in name:
        raise SourceError(
            f"{member.path} has a backslash in its name, which would be taken for a folder's end: rename it"
        )
    if len(name) > _LONGEST_NAME:
        raise SourceError(f"{member.path} has too long a name")
    return name


@dataclass
class _Entry:
    """One member in the zip. `marks[n]` is the checksum of its first n times MARK_BYTES; `crc` that of all of it, 0
    until it is known, as in the length's calculation.
    """

    member: Member
    name: bytes
    offset: int
    marks: list[int] = field(default_factory=lambda: [0])
    crc: int = 0
    is_known: bool = False

    @property
    def size(self) -> int:
        return 0 if self.member.is_folder else self.member.status.st_size

    @property
    def is_large(self) -> bool:
        return self.size >= LARGE

    def header(self) -> bytes:
        extra = struct.pack("<2H2Q", 1, 16, 0, 0) if self.is_large else b""
        sizes = (_ELSEWHERE_32,) * 2 if self.is_large else (0, 0)
        version = _ZIP64 if self.is_large else _PLAIN
        lengths = len(self.name), len(extra)
        fixed = struct.pack("<4s5H3L2H", b"PK\3\4", version, self._flags, 0, _TIME, _DATE, 0, *sizes, *lengths)
        return fixed + self.name + extra

    def descriptor(self) -> bytes:
        if self.member.is_folder:
            return b""
        return struct.pack("<4sL2Q" if self.is_large else "<4s3L", b"PK\7\x08", self.crc, self.size, self.size)

    def record(self) -> bytes:
        """Of the directory at the end."""
        large = [self.size, self.size] if self.is_large else []
        far = [self.offset] if self.offset >= LARGE else []
        extra = struct.pack(f"<2H{len(large + far)}Q", 1, 8 * len(large + far), *large, *far) if large or far else b""
        version = _ZIP64 if extra else _PLAIN
        sizes = (_ELSEWHERE_32,) * 2 if large else (self.size,) * 2
        mode = _FOLDER_MODE if self.member.is_folder else _FILE_MODE
        head = struct.pack(
            "<4s6H3L", b"PK\1\2", _UNIX | version, version, self._flags, 0, _TIME, _DATE, self.crc, *sizes
        )
        tail = struct.pack("<5H2L", len(self.name), len(extra), 0, 0, 0, mode, _ELSEWHERE_32 if far else self.offset)
        return head + tail + self.name + extra

    @property
    def _flags(self) -> int:
        return _FOLDER_FLAGS if self.member.is_folder else _FLAGS


class StoredZip:
    """`size` in bytes, and `read(start)`: the same from there on, each time. Holds the names, and one piece at a time.

    Read by one at a time: what one has learned of the checksums spares the next to read from the start.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self._entries: list[_Entry] = []
        at = 0
        for member in members:
            entry = _Entry(member, _spelled(member), at)
            self._entries.append(entry)
            at += len(entry.header()) + entry.size + len(entry.descriptor())
        self._directory_offset = at
        self.size = at + sum(map(len, self._directory()))

    def read(self, start: int = 0) -> Iterator[bytes]:
        """In pieces of at most 256 KiB. SourceError when a file isn't what it was when its length was taken."""
        for entry in self._entries:
            yield from self._entry(entry, start)
        at = self._directory_offset
        for record in self._directory():
            yield from _after(start, at, record)
            at += len(record)

    def _entry(self, entry: _Entry, start: int) -> Iterator[bytes]:
        header = entry.header()
        yield from _after(start, entry.offset, header)
        content = entry.offset + len(header)
        if not entry.member.is_folder and not (entry.is_known and content + entry.size <= start):
            yield from self._content(entry, content, start)
        yield from _after(start, content + entry.size, entry.descriptor())

    def _content(self, entry: _Entry, offset: int, start: int) -> Iterator[bytes]:
        """Begins at the last mark before `start`: from there the checksum goes on."""
        mark = min(max(0, start - offset) // MARK_BYTES, len(entry.marks) - 1)
        at, crc = mark * MARK_BYTES, entry.marks[mark]
        try:
            with entry.member.path.open("rb", buffering=0) as file:
                check_unchanged(entry.member.path, entry.member.status, file)
                file.seek(at)
                while piece := file.read(min(PIECE_BYTES, MARK_BYTES - at % MARK_BYTES, entry.size - at)):
                    crc = zlib.crc32(piece, crc)
                    yield from _after(start, offset + at, piece)
                    at += len(piece)
                    if at == len(entry.marks) * MARK_BYTES:
                        entry.marks.append(crc)
                check_unchanged(entry.member.path, entry.member.status, file)
        except OSError as error:
            raise SourceError(f"{entry.member.path} can't be read: {error.strerror}") from error
        if at != entry.size:
            raise SourceError(f"{entry.member.path} became shorter while it was sent")
        entry.crc, entry.is_known = crc, True

    def _directory(self) -> Iterator[bytes]:
        size = 0
        for entry in self._entries:
            record = entry.record()
            size += len(record)
            yield record
        yield self._end(size)

    def _end(self, size: int) -> bytes:
        count, offset = len(self._entries), self._directory_offset
        if count < MANY and offset < LARGE and size < LARGE:
            return struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, size, offset, 0)
        end = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, _UNIX | _ZIP64, _ZIP64, 0, 0, count, count, size, offset)
        locator = struct.pack("<4sLQL", b"PK\6\7", 0, offset + size, 1)
        return end + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, *(_ELSEWHERE_16,) * 2, *(_ELSEWHERE_32,) * 2, 0)


def _after(start: int, at: int, piece: bytes) -> Iterator[bytes]:
    """What of a piece at this place lies behind `start`."""
    if rest := piece[max(0, start - at) :]:
        yield rest


def check_unchanged(path: Path, then: os.stat_result, file: IO[bytes]) -> None:
    """Raises SourceError when the open file isn't what it was."""
    now = os.fstat(file.fileno())
    if (now.st_size, now.st_mtime_ns) != (then.st_size, then.st_mtime_ns):
        raise SourceError(f"{path} changed while it was sent: send it again when it is complete")
