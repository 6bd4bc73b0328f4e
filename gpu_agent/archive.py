"""Zip to folder, before a container runs, and folder to zip, when it is dead."""

import os
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import IO, Final
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from core.contract.errors import InvalidZip
from core.contract.zipdirectory import Source
from core.contract.zipentry import content
from core.contract.zips import is_folder, read_entries, safe_name
from gpu_agent.deflate import Deflate, is_worth_it
from gpu_agent.folders import (
    MAX_ENTRIES,
    Found,
    OutputRefused,
    OutputTooLarge,
    link_target,
    open_file,
    shown,
    spelled,
    walk,
)

_READ_BYTES = 1 << 20
_PIECE_BYTES = 256 << 10
_PATH_BYTES_PER_ENTRY = 256  # a longer path counts as several entries, so that their number bounds memory
_FIRST_TIME, _LAST_TIME = 315532800, 4354819198  # 1980-01-01 to 2107-12-31: what a zip can say
_DOS_FOLDER = 0x10
_FOLDER_MODE = 0o755
_AS_THEY_ARE: Final[Mapping[str, int]] = MappingProxyType({})
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW


def extract(file: Source, folder: Path, *, max_total_bytes: int, max_entries: int) -> None:
    """Unzips into an empty folder. When the zip is not in order raises InvalidZip, and leaves a part to be removed.

    Files keep their x bits and are readable by any user; setuid bits and times are dropped.
    """
    infos = read_entries(file, max_entries=max_entries).infos
    if sum(info.file_size for info in infos) > max_total_bytes:  # `content` holds each entry to its size
        raise InvalidZip(f"The zip is too large: {max_total_bytes} bytes are allowed when unzipped.")
    # Relative to a descriptor, a path has the kernel's whole length to itself, wherever the folder is.
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for info in infos:
            path = str(safe_name(info))
            if is_folder(info):
                _make_folder(root, path)
            else:
                _write_file(root, path, file, info)
    finally:
        os.close(root)


def _write_file(root: int, path: str, file: Source, info: ZipInfo) -> None:
    _make_folder(root, path.rpartition("/")[0])
    with os.fdopen(os.open(path, _NEW_FILE, 0o600, dir_fd=root), "wb") as target:
        for piece in content(file, info):
            target.write(piece)
        os.fchmod(target.fileno(), info.external_attr >> 16 & 0o777 | 0o444)


def _make_folder(root: int, path: str) -> None:
    missing = []
    while path and not _is_made(root, path):
        missing.append(path)
        path = path.rpartition("/")[0]
    for path in reversed(missing):
        _is_made(root, path)


def _is_made(root: int, path: str) -> bool:
    """Makes one folder, or finds it; False if its parent is missing."""
    try:
        os.mkdir(path, dir_fd=root)
    except FileExistsError:
        return True
    except FileNotFoundError:
        return False
    os.chmod(path, _FOLDER_MODE, dir_fd=root)  # mkdir's mode is cut by the umask
    return True


def zip_folder(folder: Path, *, max_total_bytes: int, modes: Mapping[str, int] = _AS_THEY_ARE) -> Iterator[bytes]:
    """A zip of all that is below the folder, in pieces of 256 KiB to about 1 MiB; equal folders make equal zips.

    Looks at everything before it returns, and raises OutputRefused or OutputTooLarge then, so that what is refused is
    never sent in part. Files that shrink are deflated. Symbolic links that stay inside are stored as links; one with an
    absolute target below the container's mount point is made relative. Times are UTC, setuid bits are dropped. `modes`
    has, by path, those that aren't to be stored as they are.
    """
    _inspect(folder, max_total_bytes)
    return _stream(folder, modes)


def _inspect(folder: Path, max_total_bytes: int) -> None:
    total = entries = 0
    for found in walk(folder):
        kind = stat.S_IFMT(found.status.st_mode)
        if kind == stat.S_IFLNK:
            link_target(found)
        elif kind == stat.S_IFREG:
            total += found.status.st_size
        elif kind != stat.S_IFDIR:
            raise OutputRefused(f"{shown(found.path)} is neither a file nor a folder nor a symbolic link.")
        entries += 1 + len(found.path) // _PATH_BYTES_PER_ENTRY
        if total > max_total_bytes:
            raise OutputTooLarge(f"The output is larger than {max_total_bytes} bytes.")
        if entries > MAX_ENTRIES:
            raise OutputTooLarge(f"The output has more than {MAX_ENTRIES} files and folders.")


def _stream(folder: Path, modes: Mapping[str, int]) -> Iterator[bytes]:
    sink = _Sink()
    with ZipFile(sink, "w") as archive:
        for found in walk(folder):
            for _ in _add(archive, found, _describe(found, modes)):
                yield from sink.take()
    yield from sink.take()


def _add(archive: ZipFile, found: Found, info: ZipInfo) -> Iterator[None]:
    """Pauses after each write, for what was written to be taken."""
    if info.is_dir():
        archive.mkdir(info)
    elif stat.S_ISLNK(found.status.st_mode):
        archive.writestr(info, spelled(link_target(found)))
    else:
        left = info.file_size
        with os.fdopen(open_file(found), "rb", buffering=0) as file, _open_entry(archive, info, file.fileno()) as entry:
            # No more than was inspected: the header already says whether the entry needs Zip64.
            while piece := file.read(min(_READ_BYTES, left)):
                entry.write(piece)
                left -= len(piece)
                yield
    yield


def _open_entry(archive: ZipFile, info: ZipInfo, fd: int) -> IO[bytes]:
    info.compress_type = ZIP_DEFLATED if is_worth_it(fd, info.file_size) else ZIP_STORED
    entry = archive.open(info, "w")
    if info.compress_type == ZIP_DEFLATED:
        entry._compressor = Deflate()  # type: ignore[attr-defined]  # zlib's is several times slower
    return entry


def _describe(found: Found, modes: Mapping[str, int]) -> ZipInfo:
    status = found.status
    moment = time.gmtime(min(max(int(status.st_mtime), _FIRST_TIME), _LAST_TIME))
    folder = stat.S_ISDIR(status.st_mode)
    info = ZipInfo(spelled(found.path) + "/" * folder, moment[:6])
    info.external_attr = (
        stat.S_IFMT(status.st_mode) | modes.get(found.path, status.st_mode) & 0o777
    ) << 16 | _DOS_FOLDER * folder
    info.file_size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    info.CRC = 0  # `mkdir` reads it unset
    return info


class _Sink:
    """What `zipfile` has written since it was last taken, in pieces."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._begun: list[bytes] = []
        self._begun_bytes = 0

    def write(self, data: bytes, /) -> int:
        self._begun.append(data)
        self._begun_bytes += len(data)
        if self._begun_bytes >= _PIECE_BYTES:
            self.flush()
        return len(data)

    def flush(self) -> None:
        """Makes a piece of what there is; `zipfile` asks for the last one when it closes."""
        if self._begun:
            self._pieces.append(b"".join(self._begun))
            self._begun, self._begun_bytes = [], 0

    def close(self) -> None:
        """What was written stays to be taken."""

    def take(self) -> list[bytes]:
        taken, self._pieces = self._pieces, []
        return taken
