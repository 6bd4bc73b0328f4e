"""The images that the agents of a host pulled: when they were last used, and which of them may go.

WORK_DIR has a file for each name by which an image was used. In it stand the ids that were pulled under the name, so
that an image which an operator built or pulled is never taken for one of ours; its time is that of the last use.
"""

import hashlib
import os
import time
from collections.abc import AsyncIterator, Callable, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import structlog

from core.contract.images import ANY_IMAGE, SETTING, ImageAllowance
from core.contract.model import Pull
from gpu_agent.engine import Engine, EngineError, Image, ImageUnavailable
from gpu_agent.uses import alone, in_use

log = structlog.get_logger()


@dataclass(frozen=True)
class Images:
    engine: Engine
    folder: Path
    """Shared by the agents of a host."""
    allowed: ImageAllowance = ANY_IMAGE

    @asynccontextmanager
    async def ready(self, reference: str, pull: Pull) -> AsyncIterator[Image]:
        """The image is here, and no agent of this host prunes it before the context ends. Raises ImageUnavailable."""
        if not self.allowed.allows(reference):  # another host may do
            raise ImageUnavailable(
                f"The image {reference} may not run on this host: its agent's {SETTING} doesn't allow it"
            )
        async with in_use(self._record(reference)) as record:
            image = await self.engine.ensure_image(reference, pull)
            if image.is_new:
                await self._note(image, reference, record)
            now = time.time_ns()  # the kernel's own would be that of its last tick
            os.utime(record.fileno(), ns=(now, now))
            yield image

    async def _note(self, image: Image, reference: str, record: TextIO) -> None:
        try:
            record.write(f"{image.id} {reference}\n")
            record.flush()
        except OSError:  # the disk is full, perhaps of this image, which would never be taken for ours
            await self.engine.remove_image(reference)
            raise

    async def prune(self, named: Set[str], *, until: Callable[[], bool]) -> None:
        """Removes what agents pulled and no model names, the least recently used first."""
        wanted = {image.id for reference in named if (image := await self.engine.image(reference))}
        for record in sorted(self.folder.glob("*"), key=_last_use):
            if until():
                return
            with alone(record) as file:
                if file is not None:
                    await self._prune_one(record, file, named, wanted)

    async def _prune_one(self, record: Path, file: TextIO, named: Set[str], wanted: Set[str]) -> None:
        file.seek(0)
        lines = (line.split() for line in file.read().splitlines())
        pulled = dict(words for words in lines if len(words) == 2)  # a crash may have cut the last one
        try:
            for image, reference in pulled.items():
                if image not in wanted:
                    await self._remove(image, reference, named)
        except EngineError as error:
            log.info("image.stays", images=list(pulled), why=str(error))
        else:
            if not named & set(pulled.values()):
                record.unlink()

    async def _remove(self, image: str, reference: str, named: Set[str]) -> None:
        """By its name, or by its id when a newer one has the name; not one that got another name from somebody."""
        current = await self.engine.image(reference)
        is_current = current is not None and current.id == image
        if is_current and reference not in named:
            await self.engine.remove_image(reference)
        elif not is_current and await self.engine.is_untagged(image):
            await self.engine.remove_image(image)
        else:
            return
        log.info("image.pruned", image=reference, id=image)

    def _record(self, reference: str) -> Path:
        return self.folder / hashlib.sha256(reference.encode()).hexdigest()[:32]


def _last_use(record: Path) -> int:
    try:
        return record.stat().st_mtime_ns
    except FileNotFoundError:  # another agent pruned it
        return 0
