"""Is this zip one that a model may be run on? Core asks before it commits an upload, an agent before it unzips.

Nothing here holds more than a few blocks of the zip, and only faults in the bytes become InvalidZip.
"""

import io
import re
import stat
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING
from zipfile import ZIP_BZIP2, ZIP_STORED, ZipInfo

from core.contract.errors import InvalidZip
from core.contract.zipdirectory import Directory, Source, read_directory, shown
from core.contract.zipentry import ENCRYPTED_FLAGS, METHODS, content, content_offset

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_PATCHED_FLAG = 1 << 5
_DRIVE = re.compile(r"[A-Za-z]:")
_LONGEST_NAME = 255  # NAME_MAX, bytes
_LONGEST_PATH = 4000  # PATH_MAX less room for the folder's mount point, bytes
_RATIO_FLOOR = 16 << 20  # what little text or an empty volume may well compress a thousandfold
_BZIP2_BLOCK = 900_000  # decompressed as a whole, for a single byte too


@dataclass(frozen=True)
class ZipLimits:
    max_total_bytes: int  # of all entries, uncompressed
    max_ratio: float  # uncompressed to compressed in total, from 16 MiB uncompressed upwards
    max_entries: int  # files and folders, those included that the names imply
    verify_bytes: int  # content is verified as well when it is at most this, uncompressed


def check(file: Source, limits: ZipLimits) -> bool:
    """Raises InvalidZip with a sentence that names the fault; returns whether the content was verified as well. Blocks:
    up to seconds for a hundred thousand entries.
    """
    directory = read_entries(file, max_entries=limits.max_entries)
    _check_sizes(directory, limits)
    _check_layout(file, directory)
    if sum(map(_verification_cost, directory.infos)) > limits.verify_bytes:
        return False
    for info in directory.infos:
        for _ in content(file, info):
            pass
    return True


def read_entries(file: Source, *, max_entries: int) -> Directory:
    """The zip's directory, when each of its entries is one that can be unzipped, to a safe place of its own."""
    directory = read_directory(file, max_entries=max_entries)
    tree = _Tree(max_entries)
    for info in directory.infos:
        tree.add(safe_name(info), folder=is_folder(info))
        _check_kind(info)
    if all(map(is_folder, directory.infos)):
        raise InvalidZip("The zip is empty: there is no file in it.")
    return directory


def safe_name(info: ZipInfo) -> PurePosixPath:
    """The entry's path below the folder it is unzipped to; backslashes separate, as old Windows tools write them."""
    name = info.filename.replace("\\", "/")
    if "\0" in info.orig_filename or "\0" in name:
        raise InvalidZip(f"Entry {shown(info.orig_filename)} has a NUL character in its name.")
    if name.startswith("/") or _DRIVE.match(name):
        raise InvalidZip(f"Entry {shown(name)} has an absolute path: names must be relative.")
    components = name.removesuffix("/").split("/")
    if ".." in components:
        raise InvalidZip(f"Entry {shown(name)} climbs out of its folder: names must not contain '..'.")
    if "" in components or (components[-1] == "." and not name.endswith("/")):
        raise InvalidZip(f"Entry {shown(name)} has an empty component in its name.")
    encoded = name.encode()
    if len(encoded) > _LONGEST_PATH or max(map(len, encoded.split(b"/"))) > _LONGEST_NAME:
        raise InvalidZip(
            f"Entry {shown(name)} has too long a name: {_LONGEST_NAME} bytes each, {_LONGEST_PATH} in all."
        )
    return PurePosixPath(*components)


def is_folder(info: ZipInfo) -> bool:
    return info.filename.endswith(("/", "\\"))


def _check_kind(info: ZipInfo) -> None:
    name = shown(info.filename)
    if info.flag_bits & ENCRYPTED_FLAGS:
        raise InvalidZip(f"Entry {name} is encrypted: send the zip without a password.")
    if info.compress_type not in METHODS or info.flag_bits & _PATCHED_FLAG:
        raise InvalidZip(f"Entry {name} uses compression method {info.compress_type}: use deflate, or store.")
    if info.volume:
        raise InvalidZip("The zip is split over several files: join them into one.")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise InvalidZip(f"Entry {name} is a symbolic link: send the file itself.")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO):  # what zip and 7z read from a pipe is a plain file
        raise InvalidZip(f"Entry {name} is a special file: only files and folders can be sent.")
    if is_folder(info) and info.file_size:
        raise InvalidZip(f"Entry {name} is a folder, yet has content.")
    if info.compress_type == ZIP_STORED and info.compress_size != info.file_size:
        raise InvalidZip(f"The zip file is damaged: entry {name} is stored, yet has two sizes.")


_Folder = dict[str, "_Folder | None"]  # None stands for a file


class _Tree:
    """The files and folders that unzipping would make: counts them, and finds names that clash."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = self._room = max_entries
        self._root: _Folder = {}

    def add(self, path: PurePosixPath, *, folder: bool) -> None:
        at = self._root
        *parents, last = path.parts or (".",)
        for part in parents:
            at = self._folder(at, part, path)
        if folder:
            self._folder(at, last, path)  # naming a folder twice is harmless
        elif last in at:
            raise InvalidZip(f"The zip has two entries with the name {shown(str(path))}.")
        else:
            self._count()
            at[last] = None

    def _folder(self, at: _Folder, part: str, path: PurePosixPath) -> _Folder:
        if part not in at:
            self._count()
        found = at.setdefault(part, {})
        if found is None:
            raise InvalidZip(f"The zip has a file where entry {shown(str(path))} needs a folder.")
        return found

    def _count(self) -> None:
        self._room -= 1
        if self._room < 0:
            raise InvalidZip(f"The zip has too many entries: more than {self._max_entries}, folders included.")


def _check_sizes(directory: Directory, limits: ZipLimits) -> None:
    total = sum(info.file_size for info in directory.infos)
    if total > limits.max_total_bytes:
        raise InvalidZip(f"The zip is too large: {total} bytes when unzipped, {limits.max_total_bytes} are allowed.")
    ratio = total / max(1, sum(info.compress_size for info in directory.infos))
    if total > _RATIO_FLOOR and ratio > limits.max_ratio:
        raise InvalidZip(f"The zip unzips to {ratio:.0f} times its size, {limits.max_ratio:.0f} times is allowed.")


def _check_layout(file: Source, directory: Directory) -> None:
    """No byte may belong to two entries, or to an entry and the directory: what overlaps multiplies when unzipped."""
    ordered = sorted(directory.infos, key=lambda info: info.header_offset)
    ends = [info.header_offset for info in ordered[1:]] + [directory.start]
    for info, end in zip(ordered, ends, strict=True):
        if content_offset(file, info) + info.compress_size > end:
            raise InvalidZip(f"The zip file is damaged: entry {shown(info.filename)} overlaps what follows it.")


def _verification_cost(info: ZipInfo) -> int:
    return max(info.file_size, _BZIP2_BLOCK) if info.compress_type == ZIP_BZIP2 else info.file_size


class RangedFile(io.RawIOBase):
    """A zip that lies elsewhere, as a read-only file: `read_range(offset, length)` fetches its bytes and may block.

    Reads that follow each other fetch blocks that end at multiples of `block_bytes`; a read elsewhere, as for an
    entry's header, fetches a small piece. Holds at most three of these.
    """

    _PIECE_BYTES = 64 << 10

    def __init__(self, read_range: Callable[[int, int], bytes], size: int, *, block_bytes: int = 1 << 20) -> None:
        self._read_range = read_range
        self._size = size
        self._block_bytes = block_bytes
        self._position = 0
        self._held: deque[tuple[int, bytes]] = deque(maxlen=3)  # offset and bytes, the last fetched at the end

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        if self._position < 0:
            raise ValueError(f"negative seek position {self._position}")
        return self._position

    def read(self, size: int = -1, /) -> bytes:
        left = max(0, self._size - self._position)
        left = left if size < 0 else min(size, left)
        parts = []
        while left:
            start, held = self._covering(left)
            at = self._position - start
            parts.append(held[at : at + left])
            self._position += len(parts[-1])
            left -= len(parts[-1])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def readinto(self, buffer: "WriteableBuffer", /) -> int:
        view = memoryview(buffer).cast("B")
        piece = self.read(len(view))
        view[: len(piece)] = piece
        return len(piece)

    def _covering(self, wanted: int) -> tuple[int, bytes]:
        """A held piece in which the position lies, with its offset."""
        for start, piece in self._held:
            if start <= self._position < start + len(piece):
                return start, piece
        start, length = self._next_range(wanted)
        piece = self._read_range(start, length)
        if len(piece) != length:
            raise OSError(f"{len(piece)} bytes instead of {length} at offset {start}")
        self._held.append((start, piece))
        return start, piece

    def _next_range(self, wanted: int) -> tuple[int, int]:
        if self._held:
            start, piece = self._held[-1]
            if self._position == start + len(piece):
                length = self._block_bytes - self._position % self._block_bytes
                return self._position, min(length, self._size - self._position)
        length = min(self._block_bytes, max(wanted, self._PIECE_BYTES), self._size)
        # Near the end the piece reaches back: the directory precedes the end record, which is read first.
        return min(self._position, self._size - length), length
