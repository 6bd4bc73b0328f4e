"""Whether Redis is there, how full it is, and what is wrong with how it was set up."""

import asyncio
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from core.contract.errors import Unavailable
from core.store import Store, open_store, pulse
from demo.stack import Stack

BALLAST_BYTES = 64 * 2**20
"""So much that the buffers of connections, which come and go, don't count."""

Logs = list[MutableMapping[str, Any]]


@pytest.fixture
def logs() -> Iterator[Logs]:
    with capture_logs() as logs:
        yield logs


@asynccontextmanager
async def _configured(store: Store, **settings: str) -> AsyncIterator[None]:
    """CONFIG SET, and back."""
    names = {name.replace("_", "-"): value for name, value in settings.items()}
    before = await store.connection.call("CONFIG", "GET", *names)
    for name, value in names.items():
        await store.connection.call("CONFIG", "SET", name, value)
    try:
        yield
    finally:
        for name in names:
            await store.connection.call("CONFIG", "SET", name, before[name.encode()])


def _events(logs: Logs) -> list[str]:
    return [str(entry["event"]) for entry in logs if entry["log_level"] == "warning"]


async def test_nobody_answers(logs: Logs) -> None:
    """Opening returns all the same, and new requests are refused without a try of their own."""
    async with open_store("redis://127.0.0.1:1/0", reserve_percent=10) as store:
        assert store.pulse.missing == "can't be reached"
        with pytest.raises(Unavailable):
            store.pulse.check()
    assert _events(logs) == ["store.away"]


async def test_a_redis_that_loses_tasks_is_named(store: Store, servers: Stack, logs: Logs) -> None:
    """Once at start, with what to do."""
    async with (
        _configured(store, maxmemory="0", maxmemory_policy="allkeys-lru", appendonly="no"),
        open_store(servers.redis_url, reserve_percent=10) as opened,
    ):
        assert opened.pulse.missing is None
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [entry["event"] for entry in warnings] == ["redis.unbounded", "redis.evicts", "redis.forgets"]
    assert all(entry["advice"] for entry in warnings)


async def test_filling_is_said_once_a_crossing(
    store: Store, servers: Stack, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With figures; again when it was better in between."""
    monkeypatch.setattr(pulse, "BEAT_SECONDS", 0.01)
    await store.connection.call("SET", "ballast", bytes(BALLAST_BYTES))
    used = (await store.connection.call("INFO", "memory"))["used_memory"]

    async def beats(count: int) -> None:
        calls = "cmdstat_ping"
        first = (await store.connection.call("INFO", "commandstats"))[calls]["calls"]
        async with asyncio.timeout(10):
            while (await store.connection.call("INFO", "commandstats"))[calls]["calls"] < first + count:
                await asyncio.sleep(0)

    async with (
        _configured(store, maxmemory=str(2 * used)),
        open_store(servers.redis_url, reserve_percent=10),
    ):
        for expected in (1, 2):
            await store.connection.call("CONFIG", "SET", "maxmemory", used * 10 // 9)
            await beats(10)
            assert _events(logs) == ["store.filling"] * expected
            await store.connection.call("CONFIG", "SET", "maxmemory", 2 * used)
            await beats(10)
    [warning, _] = [entry for entry in logs if entry["event"] == "store.filling"]
    assert warning["limit_bytes"] == used * 10 // 9
    assert warning["used_percent"] >= 80
