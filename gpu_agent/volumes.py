"""The volumes of a task: fresh ones for input and output, and the kept one of its model.

Each has a folder of the agent's. Where agent and engine see WORK_DIR at the same path, the volume is that folder;
elsewhere its content is copied through the engine (gpu_agent/copies.py).
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence, Set
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Final, Self

import structlog

from core.client import CoreClient
from core.contract.model import MODEL_VOLUME, Model
from core.contract.task import Task
from gpu_agent import archive, copies, folders
from gpu_agent.cancellation import to_its_end
from gpu_agent.engine import Engine, EngineError, Mount
from gpu_agent.uses import alone, in_turn, in_use
from gpu_agent.zipfeed import with_zip_file

log = structlog.get_logger()

MiB: Final = 2**20
MAX_UNZIPPED_BYTES: Final = 1024**4
MAX_ENTRIES: Final = 1_000_000
"""Core refuses by its settings long before; these only end what slipped through."""

READABLE: Final = 0o755
WRITABLE: Final = 0o777
"""For any user: the image says as whom it runs."""


class OutputUnreadable(Exception):
    """The host can't read what the container left. No OSError: as the source of a request's body that would be taken
    for core's being away, and sent again for ever.
    """


@dataclass(frozen=True)
class AttemptVolumes:
    """Input and output of one attempt, empty until filled. `mounts` are what its container gets."""

    task: Task
    model: Model
    folder: Path
    mounts: tuple[Mount, ...]
    labels: Mapping[str, str]
    engine: Engine
    helper: str | None
    """A container that never starts, through which content is copied; None where the volumes are the folders."""
    modes: dict[str, int] = field(default_factory=dict)
    """By path, what the model gave to things that came back with others (gpu_agent/copies.py)."""

    @property
    def input(self) -> Path:
        return self.folder / "input"

    @property
    def output(self) -> Path:
        return self.folder / "output"

    async def fetch_input(self, core: CoreClient) -> None:
        """Into its folder. Raises InvalidZip when the content doesn't hold what its directory promised."""
        task = self.task
        if task.input is None:
            return
        await with_zip_file(
            task.input, lambda offset, length: core.input_range(task.uid, offset, length), self._extract
        )

    async def make(self) -> None:
        """The engine's volumes. Before that no container may name them: the engine would make empty ones."""
        for mount in self.mounts[:2]:
            folder = None if self.helper else self.folder / mount.path.strip("/")
            await to_its_end(self.engine.create_volume(mount.volume, self.labels, folder=folder))

    async def copy_in(self) -> None:
        """What was fetched, into volumes that were made and aren't the folders; the model's image is there."""
        if self.helper is None:
            return
        writable = [replace(mount, is_read_only=False) for mount in self.mounts[:2]]
        await to_its_end(self.engine.create_idle(self.helper, self.model.image, writable, self.labels))
        await copies.put_folder(self.engine, self.helper, self.input, path="/input")
        await copies.put_folder(self.engine, self.helper, self.output, path="/output")  # for its mode

    def _extract(self, file: BinaryIO) -> None:
        archive.extract(file, self.input, max_total_bytes=MAX_UNZIPPED_BYTES, max_entries=MAX_ENTRIES)

    async def output_zip(self) -> AsyncIterator[bytes] | None:
        """What the container left, None for nothing. Looks at everything first: OutputRefused and OutputTooLarge come
        before a byte is sent.
        """
        limit = self.model.output_mb * MiB
        if self.helper and folders.empty(self.output):
            copied = copies.get_folder(self.engine, self.helper, self.output, path="/output", max_total_bytes=limit)
            self.modes.update(await copied)
        if folders.empty(self.output):
            return None
        zip = await asyncio.to_thread(archive.zip_folder, self.output, max_total_bytes=limit, modes=self.modes)
        return _drawn(zip)


async def _drawn(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Each piece made in a thread."""
    try:
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece
    except OSError as error:
        raise OutputUnreadable(str(error)) from error


@dataclass(frozen=True)
class Volumes:
    """All volumes of one agent; `folder` is its WORK_DIR, shared by the agents of a host for their models."""

    engine: Engine
    folder: Path
    agent: str
    is_shared: bool
    """Whether the engine sees the folder at the same path, and this agent may remove what containers leave there."""
    identity: str = ""
    """Of the folder, where it isn't shared: a copy of it belongs to it alone."""

    @classmethod
    async def of(cls, engine: Engine, folder: Path, agent: str) -> Self:
        is_shared = os.geteuid() == 0 and await engine.sees(folder, agent)
        log.info("volumes.chosen", are="folders" if is_shared else "copies", folder=str(folder))
        return cls(engine, folder, agent, is_shared, identity="" if is_shared else _identity(folder))

    @property
    def _attempts(self) -> Path:
        return self.folder / "agents" / self.agent

    @property
    def _models(self) -> Path:
        """For each zip's id: its folder, a lock, perhaps a mark, and the folders of fillings that go on or were cut."""
        return self.folder / "models"

    @asynccontextmanager
    async def fresh(
        self, name: str, task: Task, model: Model, labels: Mapping[str, str]
    ) -> AsyncIterator[AttemptVolumes]:
        """Empty folders, and the names of volumes to be made. All is removed at the end whatever happened."""
        mounts = [
            Mount(f"inference-server-input-{name}", "/input", is_read_only=True),
            Mount(f"inference-server-output-{name}", "/output", is_read_only=False, takes_from_image=True),
        ]
        if model.zip:
            mounts.append(Mount(self._model_volume(model.zip.id), "/model", is_read_only=True))
        helper = None if self.is_shared else f"inference-server-volumes-{name}"
        folder = self._attempts / name
        volumes = AttemptVolumes(task, model, folder, tuple(mounts), labels, self.engine, helper)
        async with self._holding(model):
            try:
                for part, mode in ((volumes.input, READABLE), (volumes.output, WRITABLE)):
                    part.mkdir(parents=True)
                    part.chmod(mode)
                yield volumes
            finally:
                await to_its_end(self._remove(helper, [mount.volume for mount in mounts[:2]], folder))

    async def _remove(self, helper: str | None, volumes: Sequence[str], folder: Path) -> None:
        """What can't be removed now, the agent's next sweep takes: how the attempt ended stands."""
        try:
            if helper:
                await self.engine.remove(helper)
            await asyncio.gather(*(self.engine.remove_volume(volume) for volume in volumes))
        except EngineError as error:
            log.warning("volumes.left", error=str(error))
        await asyncio.to_thread(_remove_folder, folder)

    @asynccontextmanager
    async def _holding(self, model: Model) -> AsyncIterator[None]:
        """No agent of this host removes what is kept of the model's zip."""
        if model.zip is None:
            yield
        else:
            async with in_use(self._models / f"{model.zip.id}.lock"):
                yield

    async def keep_model(self, model: Model, core: CoreClient, labels: Mapping[str, str]) -> None:
        """The model's volume, filled once a host for each content of its zip, within `fresh`. Raises InvalidZip."""
        if model.zip is None:
            return
        volume = self._model_volume(model.zip.id)
        folder = self._models / model.zip.id
        if not folder.exists():
            zip = model.zip
            await with_zip_file(
                zip,
                lambda offset, length: core.model_zip_range(model.uid, zip.id, offset, length),
                lambda file: _fill_once(file, folder),
            )
        if self.is_shared:
            await self.engine.keep_volume(volume, folder=folder)
        else:
            await self._copy_once(model, volume, folder, labels)

    def _model_volume(self, zip_id: str) -> str:
        """Of copies every WORK_DIR has its own: what others have of the zip may be in use, and no mark here says so."""
        return "-".join(filter(None, (MODEL_VOLUME.format(zip_id), self.identity)))

    async def _copy_once(self, model: Model, volume: str, folder: Path, labels: Mapping[str, str]) -> None:
        """Beside the folder stands a mark while the volume holds a whole copy: without it nobody reads the volume."""
        mark = folder.with_suffix(".copied")

        async def is_copied() -> bool:
            return mark.exists() and await self.engine.has_volume(volume)

        if await is_copied():
            return
        async with in_turn(folder.with_suffix(".copying")):
            if not await is_copied():
                mark.unlink(missing_ok=True)
                await self._copy(model, volume, folder, labels)
                mark.touch()

    async def _copy(self, model: Model, volume: str, folder: Path, labels: Mapping[str, str]) -> None:
        await self.engine.keep_volume(volume)
        mount = Mount(volume, "/model", is_read_only=False)
        name = f"inference-server-fill-{secrets.token_hex(8)}"
        helper = await self.engine.create_idle(name, model.image, [mount], labels)
        try:
            await copies.put_folder(self.engine, helper, folder, path="/model")
        finally:
            await self.engine.remove(helper)

    async def prune_models(self, named: Set[str]) -> None:
        """Removes what is kept of zips that no model has any more, and what was left of cut fillings."""
        self._models.mkdir(parents=True, exist_ok=True)
        for zip_id in {path.name.partition(".")[0] for path in self._models.iterdir()}:
            lock = self._models / f"{zip_id}.lock"
            with alone(lock) as file:
                if file is None:
                    continue
                try:
                    if zip_id not in named:
                        await self._give_up(zip_id)
                        lock.unlink()
                    for filling in self._models.glob(f"{zip_id}.filling-*"):
                        await asyncio.to_thread(folders.remove_tree, filling)
                    if zip_id not in named:
                        log.info("model.erased", zip=zip_id)
                except (EngineError, OSError) as error:
                    log.error("model.left", zip=zip_id, error=str(error))

    async def _give_up(self, zip_id: str) -> None:
        """A folder of which a part is gone mustn't have the name of a whole one."""
        await self.engine.remove_volume(self._model_volume(zip_id))
        for suffix in (".copied", ".copying"):
            (self._models / zip_id).with_suffix(suffix).unlink(missing_ok=True)
        if (self._models / zip_id).exists():
            (self._models / zip_id).rename(self._models / f"{zip_id}.filling-{secrets.token_hex(8)}")
            log.info("model.pruned", zip=zip_id)

    def left_of(self, name: str) -> list[str]:
        """The folder of an attempt, if it is there."""
        return [str(folder)] if (folder := self._attempts / name).exists() else []

    async def remove_leftovers(self, names: Set[str]) -> None:
        """Folders that aren't among these, which are in use."""
        self._attempts.mkdir(parents=True, exist_ok=True)
        for folder in self._attempts.iterdir():
            if folder.name not in names:
                await asyncio.to_thread(_remove_folder, folder)


def _remove_folder(folder: Path) -> None:
    try:
        folders.remove_tree(folder)
    except OSError as error:
        log.error("folder.left", folder=folder.name, error=str(error))


def _identity(folder: Path) -> str:
    """Of the folder as long as it exists. It is a link's target: other agents see it whole or not at all."""
    link = folder / "identity"
    with suppress(FileExistsError):
        link.symlink_to(secrets.token_hex(8))
    return str(link.readlink())


def _fill_once(file: BinaryIO, folder: Path) -> None:
    """Only a completely filled folder gets the name; of two agents that fill at once the first to end gives it."""
    filling = folder.with_name(f"{folder.name}.filling-{secrets.token_hex(8)}")
    filling.mkdir()
    try:
        archive.extract(file, filling, max_total_bytes=MAX_UNZIPPED_BYTES, max_entries=MAX_ENTRIES)
        filling.chmod(READABLE)
        try:
            filling.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    finally:
        _remove_folder(filling)
