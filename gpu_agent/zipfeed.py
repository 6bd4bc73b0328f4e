"""A zip that lies at core, as a file that a thread can read."""

import asyncio
import io
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, BinaryIO, Final, cast

from core.client import patiently
from core.contract.task import Blob
from core.contract.zips import RangedFile

BLOCK_BYTES: Final = 4 * 2**20

ReadRange = Callable[[int, int], Coroutine[Any, Any, bytes]]


class Abandoned(Exception):
    """Nobody waits for the thread any more."""


async def with_zip_file(blob: Blob, read_range: ReadRange, work: Callable[[BinaryIO], None]) -> None:
    """Runs `work(file)` in a thread. A small zip is fetched at once, of a large one a few blocks are in memory.

    The thread is its own: it waits for reads, and those need one of the pool's to look up core's name.

    Cancelled, it returns when the thread has stopped, so that nothing is written after.
    """
    loop = asyncio.get_running_loop()
    reads: set[Future[bytes]] = set()
    is_abandoned = threading.Event()

    def read_blocking(offset: int, length: int) -> bytes:
        if is_abandoned.is_set():
            raise Abandoned
        read = asyncio.run_coroutine_threadsafe(_read(offset, length), loop)
        reads.add(read)
        try:
            return read.result()
        finally:
            reads.discard(read)

    async def _read(offset: int, length: int) -> bytes:
        return await patiently(read_range)(offset, length)

    if blob.size <= BLOCK_BYTES:
        file = cast(BinaryIO, io.BytesIO(await _read(0, blob.size)))
    else:
        file = cast(BinaryIO, RangedFile(read_blocking, size=blob.size, block_bytes=BLOCK_BYTES))
    own = ThreadPoolExecutor(max_workers=1)
    thread = loop.run_in_executor(own, copy_context().run, work, file)
    own.shutdown(wait=False)  # when its thread has ended
    try:
        await asyncio.shield(thread)
    except asyncio.CancelledError:
        is_abandoned.set()
        for read in list(reads):
            read.cancel()
        await asyncio.wait({thread})
        if not thread.cancelled():
            thread.exception()
        raise
