"""Checks a stored zip where it lies: zipfile over the chunks, in a thread, one range at a time."""

import asyncio
import io
from dataclasses import replace
from typing import Final

from core.contract import zips
from core.contract.task import Blob
from core.contract.zipdirectory import DIRECTORY_SIGNATURE
from core.store.blobs import CHUNK_BYTES, Blobs

QUICK_ENTRIES: Final = 20
QUICK_BYTES: Final = 2**20
"""Unzipped."""

LARGE_BYTES: Final = 8 * 2**20
LARGE_AT_ONCE: Final = 2
"""A hostile directory can take hundreds of megabytes to read; small zips don't wait for such."""


class ZipCheck:
    """`await check(blob)` raises InvalidZip with the sentence that names the fault."""

    def __init__(self, blobs: Blobs, limits: zips.ZipLimits) -> None:
        self._blobs = blobs
        self._limits = limits
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)

    async def __call__(self, blob: Blob) -> None:
        """Reads the directory, and small contents whole."""
        if blob.size <= LARGE_BYTES:
            await self._check(blob)
        else:
            async with self._large:
                await self._check(blob)

    async def content(self, zip: bytes) -> None:
        """As the call, of a small one that isn't stored yet. What takes a moment isn't worth a thread: under load the
        two would wait for each other, 5 ms at a time.
        """
        if zip.count(DIRECTORY_SIGNATURE) <= QUICK_ENTRIES:
            quick = replace(self._limits, verify_bytes=min(QUICK_BYTES, self._limits.verify_bytes))
            if zips.check(io.BytesIO(zip), quick) or quick == self._limits:
                return
        await asyncio.to_thread(zips.check, io.BytesIO(zip), self._limits)

    async def _check(self, blob: Blob) -> None:
        loop = asyncio.get_running_loop()

        def read_range(offset: int, length: int) -> bytes:
            return asyncio.run_coroutine_threadsafe(self._blobs.read_range(blob, offset, length), loop).result()

        file = zips.RangedFile(read_range, size=blob.size, block_bytes=CHUNK_BYTES)
        await asyncio.to_thread(zips.check, file, self._limits)
