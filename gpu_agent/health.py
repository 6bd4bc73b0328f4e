"""Whether an agent does its work: `python -m gpu_agent.health`, in its environment, exits with 0, or with 1 and why.

The agent writes what it knows of itself into WORK_DIR every few seconds; whoever asks needs no connection to anything.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from gpu_agent.settings import Settings

log = structlog.get_logger()

INTERVAL_SECONDS: Final = 5.0
STALE_AFTER: Final = timedelta(seconds=30)


class Health(BaseModel):
    """What an agent said of itself at a time."""

    model_config = ConfigDict(frozen=True)

    time: datetime
    running: tuple[str, ...]
    """The attempts that it runs, as uid-attempt."""
    problems: dict[str, str]
    """What keeps it from taking tasks, in words: of the engine, core, the broker, the disk, the host."""


def file_of(settings: Settings) -> Path:
    return settings.work_dir / f"{settings.agent_name}.health"


async def tell(
    settings: Settings, problems: Callable[[], Awaitable[dict[str, str]]], running: Callable[[], Collection[str]]
) -> None:
    """Writes the file every few seconds, for ever; it goes when the agent ends well."""
    file = file_of(settings)
    try:
        while True:
            found = await problems()
            try:
                write(file, Health(time=datetime.now(UTC), running=tuple(running()), problems=found))
            except OSError as error:
                log.error("health.unwritten", error=str(error))
            await asyncio.sleep(INTERVAL_SECONDS)
    finally:
        file.unlink(missing_ok=True)


def write(file: Path, health: Health) -> None:
    """Readers see the old or the new, never a half."""
    new = file.with_suffix(".health-new")
    new.write_text(health.model_dump_json())
    new.replace(file)


def problems(file: Path, now: datetime) -> Collection[str]:
    """Why the agent isn't healthy; empty when it is."""
    try:
        health = Health.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return [f"The agent doesn't run, or has not begun: there is no {file}"]
    except ValidationError as error:
        return [f"{file} can't be read: {error}"]
    age = abs(now - health.time)  # a clock that was set back says nothing good either
    if age > STALE_AFTER:
        return [f"The agent has said nothing for {age.total_seconds():.0f} seconds: it hangs, or its disk is full"]
    return health.problems.values()


def main() -> None:
    found = problems(file_of(Settings()), datetime.now(UTC))
    print(*found or ["healthy"], sep="\n")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
