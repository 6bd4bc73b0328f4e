"""Whether Redis is there, how full it is, and what is wrong with how it was set up."""

import asyncio
from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from redis import Redis
from structlog.testing import capture_logs

from core.contract.errors import Unavailable
from core.store import open_store, pulse
from demo.stack import Stack

BALLAST_BYTES = 64 * 2**20
"""So much that the buffers of connections, which come and go, don't count."""

Logs = list[MutableMapping[str, Any]]


@pytest.fixture
def logs() -> Iterator[Logs]:
    with capture_logs() as logs:
        yield logs


@pytest.fixture
def redis(servers: Stack) -> Iterator[Redis]:
    """Without a pulse of its own, set up well, and as it was afterwards."""
    settings = {"maxmemory": "4gb", "maxmemory-policy": "noeviction", "appendonly": "yes"}
    with Redis.from_url(servers.redis_url, decode_responses=True) as redis:
        before = redis.config_get(*settings)
        for name, well in settings.items():
            redis.config_set(name, well)
        yield redis
        for name in settings:
            redis.config_set(name, before[name])
        redis.flushdb()


def _events(logs: Logs) -> list[str]:
    return [str(entry["event"]) for entry in logs if entry["log_level"] == "warning"]


async def test_nobody_answers(logs: Logs) -> None:
    """Opening returns all the same, and new requests are refused without a try of their own."""
    async with open_store("redis://127.0.0.1:1/0", reserve_percent=10) as store:
        assert store.pulse.missing == "can't be reached"
        with pytest.raises(Unavailable):
            store.pulse.check()
    assert _events(logs) == ["store.away"]


async def test_a_redis_that_loses_tasks_is_named(redis: Redis, servers: Stack, logs: Logs) -> None:
    """Once at start, with what to do."""
    for name, value in (("maxmemory", "0"), ("maxmemory-policy", "allkeys-lru"), ("appendonly", "no")):
        redis.config_set(name, value)
    async with open_store(servers.redis_url, reserve_percent=10) as store:
        assert store.pulse.missing is None
    warnings = [entry for entry in logs if entry["log_level"] == "warning"]
    assert [entry["event"] for entry in warnings] == ["redis.unbounded", "redis.evicts", "redis.forgets"]
    assert all(entry["advice"] for entry in warnings)


async def test_filling_is_said_once_a_crossing(
    redis: Redis, servers: Stack, logs: Logs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With figures; again when it was better in between."""
    monkeypatch.setattr(pulse, "BEAT_SECONDS", 0.01)
    redis.set("ballast", bytes(BALLAST_BYTES))

    async def beats_at(percent: int) -> None:
        """Several, while so much of the memory is in use."""
        memory = redis.info("memory")
        counted = memory["used_memory"] - memory["mem_not_counted_for_evict"]  # the ballast may be in a buffer as well
        redis.config_set("maxmemory", counted * 100 // percent)
        last = beats() + 10
        async with asyncio.timeout(10):
            while beats() < last:
                await asyncio.sleep(0.01)

    def beats() -> int:
        return int(redis.info("commandstats")["cmdstat_exists"]["calls"])

    async with open_store(servers.redis_url, reserve_percent=10):
        for expected in (1, 2):
            await beats_at(90)
            assert _events(logs) == ["store.filling"] * expected
            await beats_at(50)
    [warning, _] = [entry for entry in logs if entry["event"] == "store.filling"]
    assert warning["used_bytes"] > BALLAST_BYTES
    assert 80 <= warning["used_percent"] < 100
