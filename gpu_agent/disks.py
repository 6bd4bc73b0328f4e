"""Room on a host's disks: that of WORK_DIR, and that of the engine, where it is to be seen."""

import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Self

import structlog

from core.contract.agent import Disk
from gpu_agent.engine import Engine

log = structlog.get_logger()

MiB: Final = 2**20
DOCKER_MARK: Final = Path("/.dockerenv")
"""Stands in each container of Docker's."""


class DiskFull(Exception):
    """What failed may have failed because a disk is full."""


@dataclass(frozen=True)
class Disks:
    work_dir: Path
    min_free_mb: int
    engine_root: Path | None = None
    """A folder on the engine's disk; None when the agent doesn't see it."""

    def with_engine(self, engine: Engine) -> Self:
        """For an engine that was checked, and sees WORK_DIR at the same path. An agent in a container doesn't see the
        engine's folder, but lies on its disk. Failing that WORK_DIR stands for it, which is right when both are on one.
        """
        own_root = Path("/") if DOCKER_MARK.exists() else self.work_dir
        chosen = engine.root if engine.root.exists() else own_root
        log.info("disk.chosen", folder=str(chosen), engine_keeps_images_in=str(engine.root))
        return replace(self, engine_root=chosen)

    @property
    def folders(self) -> set[Path]:
        """One on each."""
        return {self.work_dir, self.engine_root or self.work_dir}

    def room(self) -> dict[str, Disk]:
        """Of each disk, by a folder on it; without one that can't be looked at, which `lack` tells."""
        found: dict[int, tuple[str, Disk]] = {}
        for folder in sorted(self.folders):
            with suppress(OSError):
                usage = shutil.disk_usage(folder)
                disk = Disk(free_mb=usage.free // MiB, total_mb=usage.total // MiB)
                found.setdefault(folder.stat().st_dev, (str(folder), disk))
        return dict(found.values())

    def lack(self) -> str | None:
        """What an operator has to know; None while there is room."""
        for folder in self.folders:
            try:
                free_mb = shutil.disk_usage(folder).free // MiB
            except OSError as error:
                return f"{folder} can't be looked at: {error}"
            if free_mb < self.min_free_mb:
                return (
                    f"The disk of {folder} has {free_mb} MB free, and tasks are taken when it has {self.min_free_mb}: "
                    "make room, or set MIN_FREE_MB lower"
                )
        return None

    def engine_percent(self) -> float | None:
        """How full the engine's disk is, as df counts; None when that isn't known."""
        if self.engine_root is None:
            return None
        usage = shutil.disk_usage(self.engine_root)
        return 100 * usage.used / (usage.used + usage.free)
