"""Uploads are given room before they are read, by any number of cores, and what is held back stays for outputs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from core.contract.errors import InvalidZip, StoreFull
from core.store import Store, keys, open_store
from core.store.blobs import CHUNK_BYTES
from core.store.room import TOLD_BYTES, Announced, Reservation
from demo.stack import Stack
from tests.integration.conftest import RESERVE_PERCENT
from tests.integration.making import everywhere, keys_of, limit_memory, stored_blob

MiB = 2**20
FREE_BYTES = 160 * MiB
ROOM_BYTES = FREE_BYTES * (100 - RESERVE_PERCENT) // 100 - 16 * MiB
"""What uploads may use, less what Redis needs for its own buffers."""

ZIP_BYTES = 12 * MiB
POSTS = 24

HERD = 60
HERD_BYTES = 6 * MiB

MOST_ANNOUNCED = 1000
"""As in room.lua."""


@pytest.fixture
async def small(store: Store) -> AsyncIterator[Store]:
    """A Redis with little memory left."""
    [before, *_] = await everywhere(store, "CONFIG", "GET", "maxmemory")
    await limit_memory(store, free_bytes=FREE_BYTES)
    yield store
    await everywhere(store, "CONFIG", "SET", "maxmemory", before[b"maxmemory"])
    await store.connection.everywhere(("FLUSHDB",))


@pytest.fixture
async def other(small: Store, servers: Stack) -> AsyncIterator[Store]:
    """The same Redis, as another core sees it."""
    async with open_store(servers.redis_url, reserve_percent=RESERVE_PERCENT) as other:
        yield other


async def _uploaded(store: Store, announced: Announced, size: int = ZIP_BYTES) -> int:
    async with (
        store.room.reserved(announced) as reservation,
        store.blobs.upload("owner", max_bytes=2**30, reservation=reservation) as upload,
    ):
        for _ in range(size // MiB):
            await upload.write(bytes(MiB))
        blob = await upload.close()
        async with upload.offered():
            pass
    return blob.size


async def _sent(store: Store, reservation: Reservation) -> int:
    """How much of one of the herd came before it was refused, or all of it."""
    async with store.blobs.upload("owner", max_bytes=2**30, reservation=reservation) as upload:
        try:
            for _ in range(HERD_BYTES // MiB):
                await upload.write(bytes(MiB))
        except StoreFull:
            return upload.size
        await upload.close()
        async with upload.offered():
            pass
    return upload.size


async def _announced(store: Store) -> int:
    return sum(int(entry.split()[0]) for entry in await store.connection.call("HVALS", keys.INCOMING))


@pytest.mark.parametrize("size", [ZIP_BYTES, None], ids=["known", "unknown"])
async def test_many_at_once_fit_or_are_refused(small: Store, other: Store, size: int | None) -> None:
    """Over two cores, and a task that runs finds room for its output after all. Uploads of unknown length may well be
    refused all together, each in the middle.
    """
    if small.connection.is_spread:
        pytest.skip("so few chunks don't spread evenly over shards as small as these")
    uploads = [_uploaded((small, other)[number % 2], Announced(size=size)) for number in range(POSTS)]
    ends = await asyncio.gather(*uploads, return_exceptions=True)
    stored = ends.count(ZIP_BYTES)
    assert {type(end) for end in ends} <= {int, StoreFull}
    assert stored <= FREE_BYTES * (100 - RESERVE_PERCENT) // 100 // ZIP_BYTES
    assert size is None or stored >= ROOM_BYTES // (2 * ZIP_BYTES)
    await stored_blob(small, "task", bytes(ZIP_BYTES))
    assert await small.connection.call("HLEN", keys.INCOMING) == 0
    assert await small.connection.call("ZCARD", keys.LOOSE) == 0


async def test_what_two_cores_promise_they_promise_together(small: Store, other: Store) -> None:
    """Neither has read a byte, and there is no room for a third."""
    half = ROOM_BYTES // 2
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(small.room.reserved(Announced(size=half)))
        await stack.enter_async_context(other.room.reserved(Announced(size=half)))
        with pytest.raises(StoreFull):
            await other.room.ticket(half)
    await other.room.ticket(half)


async def test_an_admission_is_room_for_its_upload(small: Store, other: Store) -> None:
    """Who was told to send isn't refused after, although nothing else would fit any more."""
    ticket = await small.room.ticket(ROOM_BYTES)
    with pytest.raises(StoreFull):
        await other.room.ticket(ROOM_BYTES)
    async with other.room.reserved(Announced(size=ROOM_BYTES, ticket=ticket)):
        assert await _announced(small) == ROOM_BYTES
    assert await _announced(small) == 0


async def test_announcements_keep_nobody_out(small: Store, other: Store) -> None:
    """However many announce all that there is: what is small beside that is let in."""
    for number in range(3):
        await small.connection.call("HSET", keys.INCOMING, f"silent-{number}", f"{ROOM_BYTES} {2**40}")
    await other.room.ticket(MiB)
    with pytest.raises(StoreFull):
        await other.room.ticket(ROOM_BYTES // 8)


async def test_too_many_announcements_are_forgotten(small: Store) -> None:
    """Each admission looks at all of them. The oldest goes, and finds what there is then when it begins."""
    first = await small.room.ticket(1)
    for number in range(MOST_ANNOUNCED):
        await small.connection.call("HSET", keys.INCOMING, f"silent-{number}", f"1 {2**40}")
    await small.room.ticket(1)
    assert await small.connection.call("HLEN", keys.INCOMING) == MOST_ANNOUNCED + 1
    assert not await small.connection.call("HEXISTS", keys.INCOMING, first)
    async with small.room.reserved(Announced(size=2, ticket=first)) as reservation:
        await reservation.keep()


async def test_a_herd_ends_with_as_many_as_fit(small: Store, other: Store) -> None:
    """Each is small enough to be let in beside whatever is announced; all of them never fit. Who is refused is refused
    at its first chunk, and what is held back stays.
    """
    if small.connection.is_spread:
        pytest.skip("so few chunks don't spread evenly over shards as small as these")
    async with AsyncExitStack() as stack:
        reservations = [
            await stack.enter_async_context(store.room.reserved(Announced(size=HERD_BYTES)))
            for store in (small, other) * (HERD // 2)
        ]
        sent = await asyncio.gather(*[_sent(small, reservation) for reservation in reservations])
    assert set(sent) == {MiB, HERD_BYTES}
    assert (
        ROOM_BYTES // HERD_BYTES - 1
        <= sent.count(HERD_BYTES)
        <= FREE_BYTES * (100 - RESERVE_PERCENT) // 100 // HERD_BYTES
    )
    await stored_blob(small, "task", bytes(ZIP_BYTES))


async def test_who_comes_too_late_is_refused_in_the_middle(small: Store) -> None:
    """Others had the room first; what is held back stays for outputs."""
    async with small.room.reserved(Announced(size=ROOM_BYTES)) as reservation:
        await reservation.arrived(TOLD_BYTES)
        await limit_memory(small, free_bytes=0)
        with pytest.raises(StoreFull):
            await reservation.arrived(TOLD_BYTES)


async def test_what_has_arrived_is_not_counted_twice(small: Store) -> None:
    """A reservation shrinks as its upload grows."""
    async with (
        small.room.reserved(Announced(size=ROOM_BYTES)) as reservation,
        small.blobs.upload("owner", max_bytes=2**30, reservation=reservation) as upload,
    ):
        for _ in range(20):
            await upload.write(bytes(CHUNK_BYTES))
        assert ROOM_BYTES - 20 * CHUNK_BYTES <= await _announced(small) < ROOM_BYTES - 20 * CHUNK_BYTES + TOLD_BYTES
    assert await keys_of(small) == set()


async def test_a_slow_upload_says_that_it_lives(small: Store) -> None:
    """Before its room runs out, however little has come."""
    reservation = Reservation(small.room, Announced(size=ROOM_BYTES), seconds=0)
    await reservation.begin()
    await reservation.arrived(1)
    assert await _announced(small) == ROOM_BYTES - 1


async def test_a_refused_upload_gives_its_room_back(small: Store) -> None:
    """Whatever it was refused for."""
    with pytest.raises(InvalidZip):
        async with small.room.reserved(Announced(size=ROOM_BYTES)):
            raise InvalidZip("no zip")
    assert await _announced(small) == 0


async def test_what_a_dead_core_promised_runs_out(small: Store) -> None:
    """Its uploads never come: they count no more, and who asks next takes their room back, or else the sweep."""
    await small.connection.call("HSET", keys.INCOMING, "dead", f"{ROOM_BYTES} 1.5")
    await small.room.ticket(ROOM_BYTES)
    assert await _announced(small) == ROOM_BYTES
    await small.connection.call("HSET", keys.INCOMING, "dead", f"{ROOM_BYTES} 1.5")
    assert await small.room.take_back() == 1
    assert await _announced(small) == ROOM_BYTES
