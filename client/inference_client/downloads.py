"""A result on its way to a file, which has its name only when it is complete."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import ParamSpec, TypeVar

from inference_client.answers import OnTransfer, Transfer
from inference_client.errors import Conflict, InferenceError, TargetError
from inference_client.session import PASSING, Session, task_path
from inference_client.wire import Call

P = ParamSpec("P")
T = TypeVar("T")


@contextmanager
def writing(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TargetError(f"{target} can't be written: {error.strerror or error}") from error


@dataclass(frozen=True)
class Download:
    """What has arrived stands beside the target in a file that ends in `.part`, and its name says of which content: a
    later call, of another process too, goes on behind it and never joins parts of two. Those that do so at a time
    write the same bytes to the same places.
    """

    session: Session
    uid: str
    target: Path
    on_progress: OnTransfer

    async def run(self) -> None:
        found, _ = await self.session.call(Call("HEAD", self._path))
        etag, size = found.headers.get("etag"), int(found.headers["content-length"])
        if etag is None:
            raise InferenceError("No results are given out there: fetch from the gateway's address, not core's")
        content = hashlib.sha256(f"{self.uid} {etag}".encode()).hexdigest()[:16]
        part = self.target.with_name(f"{self.target.name}.{content}.part")
        await self._disk(part.parent.mkdir, parents=True, exist_ok=True)
        with await self._disk(_open, part) as file:
            await self._fill(file, size, etag)
            await self._disk(os.fsync, file.fileno())  # after a power cut, too, the name means that all of it is there
            filled = await self._disk(os.fstat, file.fileno())
        if filled.st_size != size:
            await self._disk(part.unlink, missing_ok=True)
        if filled.st_size != size or not await self._disk(_name, filled, part, self.target):
            raise Conflict("What has arrived isn't the result: fetch it again")

    async def _fill(self, file: FileIO, size: int, etag: str) -> None:
        """Until an answer has come to its end, or nothing is missing."""
        patience = self.session.patience()
        while (at := await self._end(file)) < size:
            try:
                return await self._append(file, at, size, etag)
            except PASSING as error:
                if await self._end(file) > at:
                    patience.reset()
                else:
                    await patience.wait(error)

    async def _append(self, file: FileIO, at: int, size: int, etag: str) -> None:
        """From there on, where the file stands."""
        headers = {"Range": f"bytes={at}-", "If-Range": etag}
        async with self.session.exchange(Call("GET", self._path, headers=headers)) as answer:
            if answer.headers["etag"] != etag or (at and answer.status != 206):
                raise Conflict("The result was replaced while it was fetched: fetch it again")
            self.on_progress(Transfer(self.uid, at, size))
            async for piece in answer.pieces:
                await self._disk(_write, file, piece)
                at += len(piece)
                self.on_progress(Transfer(self.uid, at, size))

    async def _end(self, file: FileIO) -> int:
        """How much has arrived; the file stands there then."""
        return await self._disk(file.seek, 0, os.SEEK_END)

    async def _disk(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with writing(self.target):
            return await self.session.wire.beside(work, *args, **kwargs)

    @property
    def _path(self) -> str:
        return task_path(self.uid)


def _open(part: Path) -> FileIO:
    """As it is, and empty if it isn't there. Without a buffer, so that a full disk says so at the write."""
    return open(part, "rb+", buffering=0, opener=lambda path, flags: os.open(path, flags | os.O_CREAT, 0o666))


def _write(file: FileIO, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[file.write(left) :]


def _name(filled: os.stat_result, part: Path, target: Path) -> bool:
    """Whether the file that was filled is the target now. Another call may have named it before, and a third may fill
    a new part since, which isn't to be named yet.
    """
    with suppress(FileNotFoundError):
        if os.path.samestat(filled, part.stat()):
            part.replace(target)
    with suppress(FileNotFoundError):
        return os.path.samestat(filled, target.stat())
    return False
