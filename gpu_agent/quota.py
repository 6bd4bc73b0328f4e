"""What a container writes, looked at while it runs (docs/decisions/0029)."""

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from core.contract.model import Model
from core.contract.task import Reason
from gpu_agent.disks import Disks
from gpu_agent.engine import Engine, EngineError
from gpu_agent.folders import MAX_ENTRIES
from gpu_agent.volumes import AttemptVolumes

log = structlog.get_logger()

MiB: Final = 2**20
LOOK_SECONDS: Final = 1.0
PAUSE_FACTOR: Final = 9
"""A look at very many files takes long, and is followed by a pause so many times as long."""

LONGEST_PAUSE_SECONDS: Final = 60.0
MAX_DEPTH: Final = 128
"""Each level of folders costs a descriptor while it is looked at."""

_BLOCK: Final = 512
"""Bytes in `st_blocks`, whatever the file system's own are."""


@dataclass(frozen=True)
class Excess:
    """Why a container must end; the message is for the user."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Size:
    """What a folder takes on its disk: holes in files take nothing."""

    bytes: int = 0
    entries: int = 0
    depth: int = 0


@dataclass(frozen=True)
class Quota:
    """Of one container, which runs."""

    engine: Engine
    container: str
    volumes: AttemptVolumes
    disks: Disks

    async def exceeded(self) -> Excess:
        """Returns when the container has written more than it may. That a look failed is no fault of its: the next may
        do.
        """
        pause, left_bytes, is_known = LOOK_SECONDS, 0, True
        while True:
            await rest(pause, left_bytes, self._free_bytes)
            began = time.monotonic()
            try:
                seen = await self._look()
                if isinstance(seen, Excess):  # what is moved while it is counted may count twice
                    seen = await self._look()
                if isinstance(seen, Excess):
                    return seen
                left_bytes, is_known = seen, True
            except (EngineError, OSError) as error:
                if is_known:
                    log.warning("quota.unknown", error=str(error))
                is_known = False
            pause = min(max(LOOK_SECONDS, PAUSE_FACTOR * (time.monotonic() - began)), LONGEST_PAUSE_SECONDS)

    async def _look(self) -> int | Excess:
        """How many bytes it may write still. What one question tells stands, though the next should fail."""
        model, engine = self.volumes.model, self.engine
        written = await engine.written(self.container)
        if excess := judged_root(model, written.bytes):
            return excess
        output = await self._output()
        if excess := judged_output(model, output):
            return excess
        declared = written.volumes - {mount.volume for mount in self.volumes.mounts}
        root = written.bytes + await engine.volume_bytes(declared)
        if excess := judged_root(model, root):
            return excess
        root += await engine.engines_files_bytes(self.container)
        return judged_root(model, root) or min(model.disk_mb * MiB - root, model.output_mb * MiB - output.bytes)

    async def _output(self) -> Size:
        """Of a copy, only an engine knows, and only the bytes."""
        volumes = self.volumes
        if volumes.helper:
            return Size(await self.engine.volume_bytes({volumes.mounts[1].volume}))
        return await asyncio.to_thread(size_of, volumes.output, max_bytes=volumes.model.output_mb * MiB)

    def _free_bytes(self) -> int:
        with suppress(OSError):
            return sum(shutil.disk_usage(folder).free for folder in self.disks.folders)
        return 0


async def rest(seconds: float, left_bytes: int, free_bytes: Callable[[], int]) -> None:
    """Shorter when the disks have lost more than was left to the container: it may have been this one."""
    end = time.monotonic() + seconds
    free = free_bytes()
    while (left := end - time.monotonic()) > 0:
        await asyncio.sleep(min(left, LOOK_SECONDS))
        if free - free_bytes() > left_bytes:
            return


def judged_root(model: Model, root_bytes: int) -> Excess | None:
    """What the container has written outside of /output."""
    if root_bytes <= model.disk_mb * MiB:
        return None
    return Excess(
        Reason.DISK_LIMIT,
        f"The model wrote more than {model.disk_mb} MB outside of /output (a file's holes count), and was stopped. It "
        "can write less, or be registered with a larger disk_mb",
    )


def judged_output(model: Model, output: Size) -> Excess | None:
    """What the container has left in /output so far."""
    if output.bytes > model.output_mb * MiB:
        return Excess(
            Reason.OUTPUT_TOO_LARGE,
            f"The model wrote more than {model.output_mb} MB to /output, and was stopped. It can write less, or be "
            "registered with a larger output_mb",
        )
    if output.entries > MAX_ENTRIES:
        return Excess(
            Reason.OUTPUT_TOO_LARGE,
            f"The model wrote more than {MAX_ENTRIES} files and folders to /output, and was stopped. It can put them "
            "into an archive",
        )
    if output.depth > MAX_DEPTH:
        return Excess(
            Reason.OUTPUT_INVALID, f"The model nested more than {MAX_DEPTH} folders in /output, and was stopped"
        )
    return None


def size_of(folder: Path, *, max_bytes: int, max_entries: int = MAX_ENTRIES) -> Size:
    """Of a folder in which somebody writes who isn't trusted; counted no further than to a bound that is passed."""
    total = entries = deepest = 0
    with closing(below(folder)) as found:
        for status, depth in found:
            total += _BLOCK * status.st_blocks
            entries += 1
            deepest = max(deepest, depth)
            if total > max_bytes or entries > max_entries or depth > MAX_DEPTH:
                break
    return Size(total, entries, deepest)


def below(
    folder: Path | str, above: int | None = None, depth: int = 1
) -> Generator[tuple[os.stat_result, int], None, None]:
    """Each entry and how deep it lies. It goes down by descriptors, which stay what they are when a name is moved, or
    becomes a link to elsewhere; what has gone meanwhile is left out.
    """
    folders = []
    with suppress(FileNotFoundError, NotADirectoryError), _opened(folder, above) as fd:
        with os.scandir(fd) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    yield entry.stat(follow_symlinks=False), depth
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
        for name in folders:
            yield from below(name, fd, depth + 1)


@contextmanager
def _opened(folder: Path | str, above: int | None) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=above)
    try:
        yield fd
    finally:
        os.close(fd)
