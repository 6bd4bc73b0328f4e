"""What is sent: a zip as it is, or files that become one on the way."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias

from inference_client.errors import SourceError
from inference_client.storedzip import PIECE_BYTES, StoredZip, check_unchanged, members

Given: TypeAlias = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | bytes
"""A zip's path or its bytes; a folder; a file; several files and folders."""


class Source(Protocol):
    """A zip of known length that can be read again from any offset."""

    size: int

    def read(self, start: int = 0) -> Iterator[bytes]: ...


def source(given: Given) -> Source:
    """SourceError when it can't be sent. A folder's content becomes the zip's, without the folder's own name."""
    if isinstance(given, bytes):
        return _Bytes(given)
    paths = [Path(given)] if isinstance(given, str | os.PathLike) else [Path(path) for path in given]
    if not paths:
        raise SourceError("There is nothing to send")
    if len(paths) == 1 and paths[0].suffix.lower() == ".zip" and paths[0].is_file():
        return _File(paths[0])
    return StoredZip(members(paths))


class _Bytes:
    def __init__(self, content: bytes) -> None:
        self.size = len(content)
        self._content = content

    def read(self, start: int = 0) -> Iterator[bytes]:
        for at in range(start, self.size, PIECE_BYTES):
            yield self._content[at : at + PIECE_BYTES]


class _File:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._status = path.stat()
        self.size = self._status.st_size

    def read(self, start: int = 0) -> Iterator[bytes]:
        try:
            with self._path.open("rb", buffering=0) as file:
                check_unchanged(self._path, self._status, file)
                left = self.size - file.seek(start)
                while piece := file.read(min(PIECE_BYTES, left)):
                    yield piece
                    left -= len(piece)
                check_unchanged(self._path, self._status, file)
        except OSError as error:
            raise SourceError(f"{self._path} can't be read: {error.strerror}") from error
