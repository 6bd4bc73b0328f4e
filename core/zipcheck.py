"""Checks a stored zip where it lies: zipfile over the chunks, in a thread, one range at a time."""

import asyncio

from core.contract import zips
from core.contract.task import Blob
from core.store.blobs import Blobs

BLOCK_BYTES = 2**20


async def check_upload(blobs: Blobs, blob: Blob, limits: zips.ZipLimits) -> None:
    """Raises InvalidZip with the sentence that names the fault. Reads the directory, and small contents whole."""
    loop = asyncio.get_running_loop()

    def read_range(offset: int, length: int) -> bytes:
        return asyncio.run_coroutine_threadsafe(blobs.read_range(blob, offset, length), loop).result()

    file = zips.RangedFile(read_range, size=blob.size, block_bytes=BLOCK_BYTES)
    await asyncio.to_thread(zips.check, file, limits)
