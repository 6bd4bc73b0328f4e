"""The volumes of a task: fresh ones for input and output, and the kept one of its model.

They are Docker volumes and, at the same time, directories of the agent's, which it fills and reads without the engine:
that needs agent and engine to see WORK_DIR at the same path.
"""

import asyncio
import fcntl
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import structlog

from core.client import CoreClient
from core.contract.http import Claim
from core.contract.model import Model
from gpu_agent import archive
from gpu_agent.engine import Engine, EngineError, Mount
from gpu_agent.zipfeed import with_zip_file

log = structlog.get_logger()

MiB: Final = 2**20
MAX_UNZIPPED_BYTES: Final = 1024**4
MAX_ENTRIES: Final = 1_000_000
"""Core refuses by its settings long before; these only end what slipped through."""


@dataclass(frozen=True)
class AttemptVolumes:
    """Input and output of one attempt, empty until filled."""

    claim: Claim
    folder: Path
    mounts: tuple[Mount, ...]

    @property
    def input(self) -> Path:
        return self.folder / "input"

    @property
    def output(self) -> Path:
        return self.folder / "output"

    async def fill_input(self, core: CoreClient) -> None:
        """Raises InvalidZip when the content doesn't hold what its directory promised."""
        task = self.claim.task
        if task.input is not None:
            await with_zip_file(
                task.input, lambda offset, length: core.input_range(task.uid, offset, length), self._extract
            )

    def _extract(self, file: BinaryIO) -> None:
        archive.extract(file, self.input, max_total_bytes=MAX_UNZIPPED_BYTES, max_entries=MAX_ENTRIES)

    async def output_zip(self) -> AsyncIterator[bytes]:
        """Looks at everything first: OutputRefused and OutputTooLarge come before a byte is sent."""
        limit = self.claim.model.output_mb * MiB
        return _drawn(await asyncio.to_thread(archive.zip_folder, self.output, max_total_bytes=limit))


async def _drawn(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Each piece made in a thread."""
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


class Volumes:
    """All volumes of one agent; `folder` is its WORK_DIR, shared by the agents of a host for their models."""

    def __init__(self, engine: Engine, folder: Path, agent: str) -> None:
        self._engine = engine
        self._attempts = folder / "agents" / agent
        self._models = folder / "models"

    @asynccontextmanager
    async def fresh(self, claim: Claim, labels: Mapping[str, str]) -> AsyncIterator[AttemptVolumes]:
        """Empty volumes, removed at the end whatever happened."""
        task = claim.task
        folder = self._attempts / f"{task.uid}-{task.attempt}"
        input_volume = f"{task.input_volume_id}-{task.attempt}"
        output_volume = f"{task.output_volume_id}-{task.attempt}"
        mounts = [Mount(input_volume, "/input", is_read_only=True), Mount(output_volume, "/output", is_read_only=False)]
        if volume := claim.model.model_volume_id:
            mounts.append(Mount(volume, "/model", is_read_only=True))
        volumes = AttemptVolumes(claim, folder, tuple(mounts))
        try:
            for part in (volumes.input, volumes.output):
                part.mkdir(parents=True)
            volumes.output.chmod(0o777)  # the image's user may be any
            await asyncio.gather(
                self._engine.create_volume(input_volume, labels, folder=volumes.input),
                self._engine.create_volume(output_volume, labels, folder=volumes.output),
            )
            yield volumes
        finally:
            try:
                await asyncio.gather(
                    self._engine.remove_volume(input_volume), self._engine.remove_volume(output_volume)
                )
            except EngineError as error:
                log.warning("volumes.left", error=str(error))  # the agent's next sweep takes them
            await asyncio.to_thread(archive.remove_tree, folder)

    async def keep_model(self, model: Model, core: CoreClient) -> None:
        """The model's volume, filled once a host for each content of its zip. Raises InvalidZip."""
        if model.zip is None or model.model_volume_id is None:
            return
        folder = self._models / model.zip.id
        if not folder.exists():
            self._models.mkdir(parents=True, exist_ok=True)
            await with_zip_file(
                model.zip,
                lambda offset, length: core.model_zip_range(model.uid, offset, length),
                lambda file: _fill_once(file, folder),
            )
        await self._engine.create_volume(model.model_volume_id, {}, folder=folder)

    async def remove_leftovers(self, running: set[str]) -> None:
        """Folders of attempts that aren't among `running` (uid-attempt)."""
        if self._attempts.exists():
            for folder in self._attempts.iterdir():
                if folder.name not in running:
                    await asyncio.to_thread(archive.remove_tree, folder)


def _fill_once(file: BinaryIO, folder: Path) -> None:
    """Only a completely filled folder gets the name. The agents of a host wait for each other."""
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            return
        filling = folder.with_name(f".filling-{secrets.token_hex(8)}")
        filling.mkdir()
        try:
            archive.extract(file, filling, max_total_bytes=MAX_UNZIPPED_BYTES, max_entries=MAX_ENTRIES)
            filling.rename(folder)
        finally:
            archive.remove_tree(filling)
