"""The connection to Redis keeps what asyncio promises."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace

import pytest
import uvloop
from redis import exceptions
from structlog.testing import capture_logs

from core.contract.errors import Unavailable
from core.contract.model import Limits
from core.dispatch import Dispatch
from core.reaper import sweep_for_ever
from core.store import Store, open_store
from core.store.connection import translated
from core.store.room import Announced
from demo.stack import Stack
from tests.integration.making import MODEL, submitted
from tests.proxy import Proxies
from tests.zips import zip_of

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


async def test_a_cancellation_stays_one_when_an_error_follows() -> None:
    """A loop that waits for Redis to come back must end all the same."""

    async def fails() -> None:
        with translated():
            with suppress(asyncio.CancelledError):  # as `wait_for` may before Python 3.12
                await asyncio.Event().wait()
            raise exceptions.ConnectionError

    failing = asyncio.create_task(fails())
    await asyncio.sleep(0)
    failing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await failing


async def test_a_client_that_hangs_up_casts_no_doubt(store: Store) -> None:
    """Who is primary isn't asked anew for it."""
    layout = await store.connection._servers.layout()
    asking = asyncio.create_task(store.connection.call("BLPOP", "nothing", 30))
    for _ in range(MOMENTS):
        await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait({asking})
    assert await store.connection._servers.layout() is layout


async def test_a_doubt_at_the_end_of_a_look_is_the_next_ones(store: Store) -> None:
    """Whoever waited has an answer."""
    servers = store.connection._servers
    servers.doubt(ConnectionError())
    waiting = asyncio.create_task(servers.layout())
    await asyncio.sleep(0)
    assert servers._looking
    servers._looking.add_done_callback(lambda _: servers.doubt(ConnectionError()))
    assert (await waiting).shards


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("url", ["redis+cluster://127.0.0.1:{}", "redis+sentinel://127.0.0.1:{}/tasks"])
async def test_while_nobody_says_who_is_primary(dispatch: Dispatch, silent: int, url: str) -> None:
    """Calls are refused, the sweep is postponed, and a task that was read is shown."""
    await dispatch.add_model(MODEL, Limits(), None, Announced())
    uid = await submitted(dispatch, MODEL.human_readable_id, _zip(), Announced())
    async with open_store(url.format(silent), reserve_percent=0) as store:
        without = replace(dispatch, store=store)
        with pytest.raises(Unavailable):
            await store.connection.call("GET", "key")
        task = await dispatch.task(uid)
        async with asyncio.timeout(1):
            assert await without.explained([task]) == [task]
        with capture_logs() as logs:
            sweeping = asyncio.create_task(sweep_for_ever(without))
            async with asyncio.timeout(20):
                while not sweeping.done() and "sweep.postponed" not in [entry["event"] for entry in logs]:
                    await asyncio.sleep(0.05)
        assert sweeping.cancel()
        await asyncio.wait({sweeping})


async def _zip() -> AsyncIterator[bytes]:
    yield zip_of({"scan.txt": b"content"})


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
