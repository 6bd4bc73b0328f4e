"""The connection to Redis keeps what asyncio promises."""

import asyncio

import pytest
import uvloop

from core.contract.errors import Unavailable
from core.store import Store, open_store
from demo.stack import Stack
from tests.proxy import Proxies

MiB = 2**20
MOMENTS = 60
"""Rounds of the event loop: a write takes fewer."""

TRIES = 100


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


def test_a_connection_reset_in_the_pool_is_made_anew(servers: Stack) -> None:
    """On the loop that core runs on: whoever calls next gets an answer, not an error."""
    with Proxies() as proxies:
        proxy = proxies.to(("127.0.0.1", servers.ports.redis))

        async def call_after_reset() -> object:
            async with open_store(f"redis://127.0.0.1:{proxy.port}/0", reserve_percent=0) as store:
                await store.connection.call("PING")
                [shard] = (await store.connection._servers.layout()).shards
                [pooled] = shard.node.connection_pool._available_connections
                proxy.cut()
                while pooled._reader and pooled._reader.exception() is None:
                    await asyncio.sleep(0)
                return await store.connection.call("ECHO", "answer")

        assert uvloop.run(call_after_reset()) == b"answer"


def test_a_redis_that_resets_each_connection_is_unavailable(servers: Stack) -> None:
    """As behind a balancer whose server is gone: connected first, then cut, some before their first write."""
    with Proxies() as proxies:
        proxy = proxies.to(("127.0.0.1", servers.ports.redis))

        async def call_at_once() -> None:
            async with open_store(f"redis://127.0.0.1:{proxy.port}/0", reserve_percent=0) as store:
                answers = await asyncio.gather(
                    *(store.connection.call("PING") for _ in range(TRIES)), return_exceptions=True
                )
                assert {type(error) for error in answers} == {Unavailable}

        with proxy.refusing():
            uvloop.run(call_at_once())
