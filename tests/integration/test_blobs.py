"""Zips as chunks: whole or not there, readable in parts, and never left over."""

import asyncio
import time

import pytest

from core.contract.errors import InvalidZip, OutputGone, TooLarge, Unavailable
from core.contract.task import Blob
from core.store import Store, keys
from core.store.blobs import CHUNK_BYTES, CUT_OFF_SECONDS, REMOVED_AT_ONCE
from tests.integration.making import keys_of, stored_blob


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES + 7])
async def test_what_is_written_is_read(store: Store, size: int) -> None:
    """Whatever the size, and wherever the pieces are cut."""
    content = bytes(number % 251 for number in range(1000)) * (size // 1000 + 1)
    content = content[:size]
    async with store.blobs.upload("owner", max_bytes=2**26) as upload:
        for start in range(0, size, 300_001):
            await upload.write(content[start : start + 300_001])
        blob = await upload.close()
        async with upload.offered():
            pass
    assert blob.size == size
    assert b"".join([piece async for piece in store.blobs.read(blob, 0, size)]) == content
    await store.blobs.remove(blob.id)
    assert await keys_of(store) == set()


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, 1), (CHUNK_BYTES - 1, CHUNK_BYTES + 1), (5, 2 * CHUNK_BYTES + 5), (CHUNK_BYTES, CHUNK_BYTES)],
)
async def test_a_range_is_read_across_chunks(store: Store, start: int, stop: int) -> None:
    """Exactly the bytes asked for, none of a chunk beside them."""
    content = bytes(range(256)) * (3 * CHUNK_BYTES // 256)
    blob = await stored_blob(store, "owner", content)
    assert b"".join([piece async for piece in store.blobs.read(blob, start, stop)]) == content[start:stop]


async def test_a_refused_upload_leaves_nothing(store: Store) -> None:
    """Its chunks go at once."""
    with pytest.raises(InvalidZip):
        async with store.blobs.upload("owner", max_bytes=2**26) as upload:
            await upload.write(bytes(2 * CHUNK_BYTES))
            assert keys.LOOSE in await keys_of(store)
            raise InvalidZip("no zip")
    assert await keys_of(store) == set()


async def test_an_upload_that_was_cut_off_is_the_sweeps(store: Store) -> None:
    """A chunk may be on its way still when the client hangs up: the sweep waits for it, but not for long."""
    with pytest.raises(asyncio.CancelledError):
        async with store.blobs.upload("owner", max_bytes=2**26) as upload:
            await upload.write(bytes(2 * CHUNK_BYTES))
            raise asyncio.CancelledError
    deadline = float(await store.connection.call("ZSCORE", keys.LOOSE, upload.id))
    assert 0 < deadline - time.time() <= CUT_OFF_SECONDS
    late = keys.chunk(upload.id, 2)
    await store.connection.call("SET", late, b"late")
    await store.blobs.remove(upload.id)
    assert await keys_of(store) == set()


async def test_a_removal_that_was_cut_short_is_soon_gone_on_with(store: Store) -> None:
    """A core that dies, or that Redis leaves alone, halfway through a large zip doesn't keep its memory for minutes."""
    many = 20 * REMOVED_AT_ONCE
    await store.connection.call_all(("SET", keys.chunk("large", number), b"") for number in range(many))
    await store.connection.call("HSET", keys.blob("large"), "owner", "task", "chunks", many)
    await store.blobs.loosen([Blob(id="large", size=1)])
    removing = asyncio.create_task(store.blobs.remove("large"))
    while await store.connection.call("EXISTS", keys.chunk("large", 0)):
        await asyncio.sleep(0)
    removing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await removing
    assert await store.connection.call("EXISTS", keys.chunk("large", many - 1))
    deadline = float(await store.connection.call("ZSCORE", keys.LOOSE, "large"))
    assert deadline - time.time() <= CUT_OFF_SECONDS
    await store.blobs.remove("large")
    assert await keys_of(store) == set()


async def test_a_byte_at_a_time_is_no_object_each(store: Store) -> None:
    """Whatever the sizes of the pieces, chunks are of one size and the bytes in order."""
    content = bytes(range(256)) * 8192
    sizes = [1, 2, 40_000, 3, CHUNK_BYTES, 5, 16 * 1024, 16 * 1024 - 1]
    async with store.blobs.upload("owner", max_bytes=2**26) as upload:
        start = 0
        for number in range(len(content)):
            piece = content[start : start + sizes[number % len(sizes)]]
            await upload.write(piece)
            start += len(piece)
            if start == len(content):
                break
        blob = await upload.close()
        async with upload.offered():
            pass
    assert b"".join([piece async for piece in store.blobs.read(blob, 0, blob.size)]) == content
    assert await store.blobs.read_range(blob, CHUNK_BYTES - 3, 7) == content[CHUNK_BYTES - 3 : CHUNK_BYTES + 4]


async def test_too_large_is_said_as_soon_as_it_is_known(store: Store) -> None:
    """With the piece that goes over the limit, not at the end."""
    with pytest.raises(TooLarge):
        async with store.blobs.upload("owner", max_bytes=10) as upload:
            await upload.write(bytes(11))
    assert await keys_of(store) == set()


async def test_an_upload_that_was_taken_for_dead_is_refused(store: Store) -> None:
    """A core that stood still while another swept its chunks doesn't commit the rest of them."""
    with pytest.raises(Unavailable):
        async with store.blobs.upload("owner", max_bytes=2**26) as upload:
            await upload.write(bytes(CHUNK_BYTES))
            await store.blobs.remove(upload.id)
            await upload.write(bytes(CHUNK_BYTES))
            await upload.close()


async def test_a_blob_that_is_gone_is_said_to_be(store: Store) -> None:
    """An answer never ends early as if it were whole."""
    blob = await stored_blob(store, "owner", bytes(2 * CHUNK_BYTES))
    assert await store.blobs.exist([blob]) == [True]
    await store.connection.call("DEL", keys.chunk(blob.id, 1))
    assert await store.blobs.exist([blob]) == [False]
    with pytest.raises(OutputGone):
        _ = [piece async for piece in store.blobs.read(blob, 0, blob.size)]
    assert await store.blobs.exist([Blob(id="none", size=1)]) == [False]
