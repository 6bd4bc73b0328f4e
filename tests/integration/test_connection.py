"""The connection to Redis keeps what asyncio promises."""

import asyncio

import pytest

from core.store import Store

MiB = 2**20
MOMENTS = 60
"""Rounds of the event loop: a write takes fewer."""


async def test_a_cancellation_is_never_lost(store: Store) -> None:
    """Whatever moment it comes at: an upload whose client hung up must end."""

    async def write_for_ever() -> None:
        while True:
            await store.connection.call("SET", "chunk", bytes(MiB))

    for moment in range(3 * MOMENTS):
        writing = asyncio.create_task(write_for_ever())
        for _ in range(moment % MOMENTS):
            await asyncio.sleep(0)
        writing.cancel()
        done, _ = await asyncio.wait({writing}, timeout=5)
        assert done, f"lost after {moment % MOMENTS} rounds of the loop"
        with pytest.raises(asyncio.CancelledError):
            await writing
