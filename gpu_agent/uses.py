"""Who uses what in WORK_DIR: locks among the agents of a host. They end with the process that holds them."""

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final, TextIO

POLL_SECONDS: Final = 0.2


@asynccontextmanager
async def in_use(path: Path) -> AsyncIterator[TextIO]:
    """One of those who use the file's subject. Waits for whoever is alone with it."""
    with await _when_locked(path, fcntl.LOCK_SH) as file:
        yield file


@asynccontextmanager
async def in_turn(path: Path) -> AsyncIterator[TextIO]:
    """Alone with the file's subject, after all who came before."""
    with await _when_locked(path, fcntl.LOCK_EX) as file:
        yield file


@contextmanager
def alone(path: Path) -> Iterator[TextIO | None]:
    """Nobody uses it meanwhile, so that it can be removed, and the file after it; None: somebody does."""
    file = _locked(path, fcntl.LOCK_EX)
    try:
        yield file
    finally:
        if file is not None:
            file.close()


async def _when_locked(path: Path, kind: int) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    while (file := _locked(path, kind)) is None:  # noqa: ASYNC110 - another process sets no event of ours
        await asyncio.sleep(POLL_SECONDS)
    return file


def _locked(path: Path, kind: int) -> TextIO | None:
    with ExitStack() as opened:
        file = opened.enter_context(path.open("a+"))
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):  # else it was removed as it was locked
                opened.pop_all()
                return file
    return None
