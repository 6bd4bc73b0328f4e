"""Folders to and from an engine that doesn't see the agent's: as tar streams through a container that never starts."""

import asyncio
import os
import stat
import tarfile
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from gpu_agent.engine import Engine
from gpu_agent.folders import MAX_ENTRIES, OutputRefused, OutputTooLarge, shown, spelled

PIECE_BYTES: Final = 256 * 1024


async def put_folder(engine: Engine, container: str, folder: Path, *, path: str) -> None:
    """The folder as the container's `path`, with its mode: unpacked from above, or a mount point's own mode stays."""
    source, sink = _pipe()

    def pack() -> None:
        # A reader that went away has an error of its own, which says more.
        with suppress(BrokenPipeError), sink, tarfile.open(fileobj=sink, mode="w|", bufsize=PIECE_BYTES) as tar:
            tar.add(folder, arcname=path)

    async with _beside(pack):
        with source:
            await engine.put_tar(container, "/", _pieces(source))


async def get_folder(
    engine: Engine, container: str, folder: Path, *, path: str, max_total_bytes: int
) -> Mapping[str, int]:
    """What is in the container's `path`, into the empty folder. Raises OutputRefused and OutputTooLarge.

    All of it can be read and removed by us, whoever we are; returned are the modes that said otherwise, by path.
    """
    source, sink = _pipe()
    modes: dict[str, int] = {}

    def unpack() -> None:
        with source:
            modes.update(_unpack(source, folder, max_total_bytes))

    async with _beside(unpack), aclosing(engine.get_tar(container, f"{path}/.")) as pieces:
        with suppress(BrokenPipeError), sink:
            async for piece in pieces:
                await asyncio.to_thread(sink.write, piece)
    return modes


def _pipe() -> tuple[BinaryIO, BinaryIO]:
    reading, writing = os.pipe()
    return os.fdopen(reading, "rb"), os.fdopen(writing, "wb")


@asynccontextmanager
async def _beside(work: Callable[[], None]) -> AsyncIterator[None]:
    """Runs `work` meanwhile; raises what it raised, unless the caller's own error came first.

    In a thread of its own: those of the pool are what reads the other end of the pipe.
    """
    with ThreadPoolExecutor(max_workers=1) as own:
        thread = asyncio.get_running_loop().run_in_executor(own, work)
        try:
            yield
        except BaseException:
            await asyncio.wait({thread})
            thread.exception()
            raise
        await thread


async def _pieces(source: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(source.read, PIECE_BYTES):
        yield piece


def _unpack(source: BinaryIO, folder: Path, max_total_bytes: int) -> dict[str, int]:
    """Links are made last: while files are written there is none that could lead elsewhere."""
    links: dict[Path, str] = {}
    modes: dict[str, int] = {}
    total = 0
    with tarfile.open(fileobj=source, mode="r|") as tar:
        for number, member in enumerate(tar):
            if number > MAX_ENTRIES:
                raise OutputTooLarge(f"The output has more than {MAX_ENTRIES} files and folders.")
            inside = _inside(member.name)
            path = folder / inside
            mode = member.mode & 0o777
            ours = mode | (stat.S_IRWXU if member.isdir() else stat.S_IRUSR)
            total += member.size
            if total > max_total_bytes:
                raise OutputTooLarge(f"The output is larger than {max_total_bytes} bytes.")
            if member.isdir():
                path.mkdir(exist_ok=True)
                path.chmod(ours)
            elif member.isreg():
                _write(tar, member, path, ours)
            elif member.issym():
                links[path] = member.linkname
            elif member.islnk():
                first = folder / _inside(member.linkname)
                if first in links:
                    links[path] = links[first]
                else:
                    path.hardlink_to(first)
            else:
                raise OutputRefused(f"{shown(str(inside))} is neither a file nor a folder nor a symbolic link.")
            if ours != mode:
                modes[str(inside)] = mode
    for path, target in links.items():
        path.symlink_to(target)
    return modes


def _inside(name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise OutputRefused(f"The output has an entry with the impossible name {spelled(name)!r}.")
    return path


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, mode: int) -> None:
    content = tar.extractfile(member)
    if content is None:
        return
    with path.open("xb") as file:
        while piece := content.read(PIECE_BYTES):
            file.write(piece)
    path.chmod(mode)
    os.utime(path, (member.mtime, member.mtime))
