"""Zips in Redis: runs of fixed-size chunks under keys of their own.

A blob is loose until its owner names it. Whoever writes or removes one says so in the index first and keeps its entry
fresh, so that whatever a crash leaves is found and swept (core/reaper.py).
"""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from core.contract.errors import ContractError, OutputGone, TooLarge, Unavailable
from core.contract.task import Blob
from core.store import keys
from core.store.connection import Connection, Script, script, soon
from core.store.room import Reservation

CHUNK_BYTES: Final = 2**20 - 64
"""1 MiB less what an allocation needs around it: a power of two would waste a quarter in jemalloc's size classes."""

RESERVED_CHUNKS: Final = 64
"""The bound on a blob's chunks is raised in these steps, so that a sweep knows what to remove."""

REMOVED_AT_ONCE: Final = 256
SMALL_BYTES: Final = 16 * 1024

ALIVE_SECONDS: Final = 180.0
RENEW_SECONDS: Final = 30.0
"""A writer renews its entry as bytes come; one that is this late is dead. A stalled upload is cut long before."""

CUT_OFF_SECONDS: Final = 10.0
"""How long the sweep leaves an upload alone that was cut off: its last chunk may still come. And a removal, after each
of its steps."""


@dataclass(frozen=True)
class Loose:
    """A blob that may belong to nobody."""

    id: str
    owner: str
    until: float
    """Epoch second: its entry as it was found."""


class Filling:
    """Bytes on their way into a chunk. Small pieces are joined: a client that sends a byte at a time doesn't get an
    object for each.
    """

    def __init__(self) -> None:
        self.size = 0
        self._pieces: list[bytearray | memoryview] = []

    def add(self, piece: memoryview) -> None:
        self.size += len(piece)
        if len(piece) >= SMALL_BYTES:
            self._pieces.append(piece)
        elif self._pieces and isinstance(self._pieces[-1], bytearray):
            self._pieces[-1] += piece
        else:
            self._pieces.append(bytearray(piece))

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces, self.size = [], 0
        return taken


class Upload:
    """A blob while it is written, until its owner names it: `write`, `close`, then that step within `offered`."""

    def __init__(
        self, connection: Connection, hold: Script, owner: str, max_bytes: int, reservation: Reservation | None
    ) -> None:
        self.id = secrets.token_hex(16)
        self.owner = owner
        self.size = 0
        self.is_offered = False
        self._redis = connection
        self._max_bytes = max_bytes
        self._reservation = reservation
        self._filling = Filling()
        self.chunks = 0
        self._bound = 0
        self._renewed = time.monotonic()
        self._loose_until = 0.0
        self._hold = hold

    async def begin(self) -> None:
        """Says that there is one for this owner, before any of it is there: whoever deletes the owner sees it. `write`
        does so by itself, but with the first bytes that it stores.
        """
        await self._reserve()

    async def write(self, piece: bytes) -> None:
        """Raises TooLarge as soon as it is known."""
        self.size += len(piece)
        if self.size > self._max_bytes:
            raise TooLarge.over(self._max_bytes)
        if time.monotonic() - self._renewed > RENEW_SECONDS:
            await self._renew()
            if self._reservation:
                await self._reservation.tell()
        rest = memoryview(piece)
        while self._filling.size + len(rest) >= CHUNK_BYTES:
            room = CHUNK_BYTES - self._filling.size
            self._filling.add(rest[:room])
            rest = rest[room:]
            if self._reservation:
                await self._reservation.keep()
            await self._write_chunk()
        if rest:
            self._filling.add(rest)

    async def close(self) -> Blob:
        """Writes what is left. The blob stays loose until its owner has named it."""
        if self._filling.size or not self.chunks:
            await self._write_chunk()
        await self._renew()
        fields = ("owner", self.owner, "chunks", self.chunks, "size", self.size)
        await self._redis.note("HSET", keys.blob(self.id), *fields)
        await self._redis.keep([keys.blob(self.id), *(keys.chunk(self.id, number) for number in range(self.chunks))])
        return Blob(id=self.id, size=self.size)

    @asynccontextmanager
    async def offered(self) -> AsyncIterator[None]:
        """Around the step that lets the owner name the blob, which it does unless the step is refused or calls
        `withdraw`. If the step's answer is lost, only the sweep, which asks the owner, can tell whether it is to stay.
        """
        self.is_offered = True
        try:
            yield
        except Unavailable:
            raise
        except ContractError:
            self.withdraw()
            raise
        if self.is_offered:
            with suppress(Unavailable):  # the sweep will find its owner
                async with soon():
                    await self._hold(keys=[keys.LOOSE], args=[self.id, self._loose_until])

    def withdraw(self) -> None:
        """The owner doesn't name the blob, for sure."""
        self.is_offered = False

    async def _write_chunk(self) -> None:
        if self.chunks == self._bound:
            await self._reserve()
        chunk = self._filling.take()
        await self._redis.call("SET", keys.chunk(self.id, self.chunks), chunk)
        if self._reservation:
            await self._reservation.arrived(len(chunk))
        self.chunks += 1

    async def _reserve(self) -> None:
        if self._bound == 0:
            self._loose_until = time.time() + ALIVE_SECONDS
            await self._redis.note("ZADD", keys.LOOSE, self._loose_until, self.id, kept=True)
        bound = self._bound + RESERVED_CHUNKS
        await self._redis.note("HSET", keys.blob(self.id), "owner", self.owner, "chunks", bound, kept=True)
        self._bound = bound

    async def alive_during(self, work: Awaitable[None]) -> None:
        """Awaits what may take long while no bytes come."""
        working = asyncio.ensure_future(work)
        try:
            while not working.done():
                await asyncio.wait({working}, timeout=RENEW_SECONDS)
                await self._renew()
        finally:
            working.cancel()
        working.result()

    async def _renew(self) -> None:
        """Raises Unavailable if the sweep took this process for dead, as after a long stop."""
        if self._bound and await self._redis.call("ZSCORE", keys.LOOSE, self.id) is None:
            raise Unavailable("The upload was interrupted; send it again")
        self._loose_until = time.time() + ALIVE_SECONDS
        await self._redis.note("ZADD", keys.LOOSE, "XX", self._loose_until, self.id)
        self._renewed = time.monotonic()


class Blobs:
    """No method holds more than a chunk or two, whatever a blob's size."""

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self._hold = script(connection, "hold")

    @asynccontextmanager
    async def upload(
        self, owner: str, *, max_bytes: int, reservation: Reservation | None = None
    ) -> AsyncIterator[Upload]:
        """Leaves nothing behind unless the blob was offered: a refused one goes at once, one that was cut off soon.
        Without a reservation it takes what room there is, as outputs do.
        """
        upload = Upload(self._redis, self._hold, owner, max_bytes, reservation)
        try:
            yield upload
        except BaseException as error:
            if not upload.is_offered:
                is_refused = isinstance(error, ContractError) and not isinstance(error, Unavailable)
                await asyncio.shield(self._discard(upload) if is_refused else self._abandon(upload))
            raise
        if not upload.is_offered:
            await self._discard(upload)

    async def _discard(self, upload: Upload) -> None:
        with suppress(Unavailable):  # what can't be removed now is loose, and the sweep's
            await self.remove(upload.id, chunks=upload.chunks)

    async def _abandon(self, upload: Upload) -> None:
        """A chunk may be on its way still, in the buffer of a connection that was closed over it: the sweep waits."""
        with suppress(Unavailable):
            async with soon():
                await self._redis.note("ZADD", keys.LOOSE, "XX", time.time() + CUT_OFF_SECONDS, upload.id)

    async def read(self, blob: Blob, start: int, stop: int) -> AsyncIterator[bytes]:
        """Bytes start to stop. Raises OutputGone when a chunk is no more; the next chunk is fetched ahead."""
        numbers = range(start // CHUNK_BYTES, -(-stop // CHUNK_BYTES))
        ahead: asyncio.Task[bytes] | None = None
        try:
            for number in numbers:
                chunk = await (ahead or self._chunk(blob, number))
                ahead = asyncio.create_task(self._chunk(blob, number + 1)) if number + 1 in numbers else None
                offset = number * CHUNK_BYTES
                first, last = max(start - offset, 0), min(stop - offset, len(chunk))
                yield chunk if last - first == len(chunk) else chunk[first:last]
        finally:
            if ahead:
                ahead.cancel()

    async def read_range(self, blob: Blob, offset: int, length: int) -> bytes:
        """Those bytes at once, and no others; for the few that a zip's directory takes."""
        stop = min(offset + length, blob.size)
        pieces = []
        for number in range(offset // CHUNK_BYTES, -(-stop // CHUNK_BYTES)):
            start = number * CHUNK_BYTES
            first, last = max(offset - start, 0), min(stop - start, CHUNK_BYTES) - 1
            pieces.append(await self._redis.call("GETRANGE", keys.chunk(blob.id, number), first, last))
        return b"".join(pieces)

    async def owned(self, blob_id: str, owner: str) -> Blob | None:
        """A whole one that its owner may not name any more."""
        its_owner, size = await self._redis.ask("HMGET", keys.blob(blob_id), "owner", "size")
        return Blob(id=blob_id, size=int(size)) if its_owner == owner.encode() and size else None

    async def exist(self, blobs: Sequence[Blob]) -> list[bool | ContractError]:
        """Whether each is there, by its header and last chunk. Unavailable where it isn't known."""
        names = []
        for blob in blobs:
            last = max(blob.size - 1, 0) // CHUNK_BYTES
            names += [keys.blob(blob.id), keys.chunk(blob.id, last)]
        async with soon():
            found = await self._redis.call_each(("EXISTS", name) for name in names)
        return [_both(*pair) for pair in zip(found[::2], found[1::2], strict=True)]

    async def loosen(self, blobs: Iterable[Blob], *, seconds: float = ALIVE_SECONDS) -> None:
        """Says that these are about to lose their owner: after so long the sweep takes over."""
        for blob in blobs:
            await self._redis.note("ZADD", keys.LOOSE, time.time() + seconds, blob.id, kept=True)

    async def hold(self, loose: Loose) -> None:
        """The blob has its owner still."""
        await self._hold(keys=[keys.LOOSE], args=[loose.id, loose.until])

    async def look_again(self, loose: Loose) -> None:
        """The sweep comes back to it later."""
        await self._redis.note("ZADD", keys.LOOSE, "XX", time.time() + ALIVE_SECONDS, loose.id)

    async def remove(self, blob_id: str, *, chunks: int = 0) -> int:
        """The blob, as far as it got, and its entry. `chunks`: how many there are at least, for who knows it. Returns
        how many there were.

        If it is cut short, the sweep goes on with it soon.
        """
        removed = 0
        bound = max(chunks, int(await self._redis.call("HGET", keys.blob(blob_id), "chunks") or 0))
        for first in range(0, bound, REMOVED_AT_ONCE):
            await self._redis.note("ZADD", keys.LOOSE, time.time() + CUT_OFF_SECONDS, blob_id)
            numbers = range(first, min(first + REMOVED_AT_ONCE, bound))
            removed += sum(await self._redis.call_all(("UNLINK", keys.chunk(blob_id, number)) for number in numbers))
        await self._redis.call("UNLINK", keys.blob(blob_id))
        await self._redis.call("ZREM", keys.LOOSE, blob_id)
        return removed

    async def abandoned(self, *, limit: int) -> list[Loose]:
        """Loose blobs whose writer or remover is dead."""
        found = await self._redis.call("ZRANGEBYSCORE", keys.LOOSE, 0, time.time(), "WITHSCORES", "LIMIT", 0, limit)
        entries = [(blob_id.decode(), float(until)) for blob_id, until in found]
        owners = await self._redis.call_all(("HGET", keys.blob(blob_id), "owner") for blob_id, _ in entries)
        return [
            Loose(blob_id, (owner or b"").decode(), until)
            for (blob_id, until), owner in zip(entries, owners, strict=True)
        ]

    async def _chunk(self, blob: Blob, number: int) -> bytes:
        chunk: bytes | None = await self._redis.call("GET", keys.chunk(blob.id, number))
        if chunk is None:
            raise OutputGone
        return chunk


def chunk_keys(blob: Blob) -> list[str]:
    """Of a whole one; that of an empty blob has one, too."""
    return [keys.chunk(blob.id, number) for number in range(max(1, -(-blob.size // CHUNK_BYTES)))]


def _both(header: int | Exception, chunk: int | Exception) -> bool | ContractError:
    if isinstance(header, Exception) or isinstance(chunk, Exception):
        return Unavailable()
    return bool(header and chunk)
