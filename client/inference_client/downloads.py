"""A result on its way to a file, which has its name only when it is complete."""

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from inference_client.answers import OnTransfer, Transfer
from inference_client.errors import Conflict
from inference_client.session import PASSING, Session, task_path
from inference_client.wire import Call


@dataclass(frozen=True)
class Download:
    """What has arrived stands beside the target in a file that ends in `.part`, and its name says of which content: a
    later call, of another process too, goes on behind it and never joins parts of two.
    """

    session: Session
    uid: str
    target: Path
    on_progress: OnTransfer

    async def run(self) -> None:
        beside = self.session.wire.beside
        found, _ = await self.session.call(Call("HEAD", self._path))
        etag, size = found.headers["etag"], int(found.headers["content-length"])
        content = hashlib.sha256(f"{self.uid} {etag}".encode()).hexdigest()[:16]
        part = self.target.with_name(f"{self.target.name}.{content}.part")
        await beside(part.parent.mkdir, parents=True, exist_ok=True)
        patience = self.session.patience()
        while (at := await beside(_size, part)) < size:
            try:
                await self._append(part, at, size, etag)
            except PASSING as error:
                if await beside(_size, part) > at:
                    patience.reset()
                else:
                    await patience.wait(error)
        await beside(_name, part, self.target)

    async def _append(self, part: Path, at: int, size: int, etag: str) -> None:
        headers = {"Range": f"bytes={at}-", "If-Range": etag}
        async with self.session.exchange(Call("GET", self._path, headers=headers)) as answer:
            if answer.headers["etag"] != etag or (at and answer.status != 206):
                raise Conflict("The result was replaced while it was fetched: fetch it again")
            with part.open("ab") as file:
                self.on_progress(Transfer(self.uid, at, size))
                async for piece in answer.pieces:
                    await self.session.wire.beside(file.write, piece)
                    at += len(piece)
                    self.on_progress(Transfer(self.uid, at, size))

    @property
    def _path(self) -> str:
        return task_path(self.uid)


def _size(part: Path) -> int:
    with suppress(FileNotFoundError):
        return part.stat().st_size
    return 0


def _name(part: Path, target: Path) -> None:
    """After a power cut the name still means that all of it is there."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    part.replace(target)
