"""A Redis Cluster whose nodes are killed: nothing that was answered is lost, and all comes back by itself."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import pytest
from redis import exceptions
from redis.crc import key_slot

from core import metrics
from core.contract.errors import Unavailable
from core.contract.task import State
from core.store import Store, keys, open_store
from core.store.servers import LOOK_SECONDS
from demo.stack import Stack
from tests.clusters import REDIS, Clusters
from tests.conftest import started
from tests.integration.making import claimed, everywhere, in_state, pending, state_of

POSTERS = 8
RUNNING, FINISHED = State.RUNNING, State.FINISHED


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Three shards with a replica each."""
    with started(tmp_path_factory, only=REDIS, clusters=True) as stack:
        yield stack


@pytest.fixture
def nodes(stack: Stack) -> Iterator[Clusters]:
    """All there, and all there again afterwards."""
    assert isinstance(stack.servers, Clusters)
    yield stack.servers
    for name in REDIS:
        stack.start(name)
    stack.servers.join()


@pytest.fixture
async def store(nodes: Clusters) -> AsyncIterator[Store]:
    async with open_store(nodes.redis_url, reserve_percent=10) as store:
        await everywhere(store, "FLUSHALL")
        yield store


async def _kill(stack: Stack, name: str) -> None:
    os.kill(await asyncio.to_thread(stack.pid, name), signal.SIGKILL)


@contextmanager
def _frozen(stack: Stack, name: str) -> Iterator[None]:
    pid = stack.pid(name)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@asynccontextmanager
async def _posting(store: Store) -> AsyncIterator[list[str]]:
    """Tasks of which the store said that they are there. Whoever asks for room hears within two seconds."""
    accepted: list[str] = []

    async def post() -> None:
        while True:
            with suppress(Unavailable):
                async with asyncio.timeout(2):
                    await store.room.ticket(2)
                accepted.append(await pending(store))
            await asyncio.sleep(0.02)

    posters = [asyncio.create_task(post()) for _ in range(POSTERS)]
    try:
        yield accepted
    finally:
        for poster in posters:
            poster.cancel()
        ends = await asyncio.gather(*posters, return_exceptions=True)
    assert {type(end) for end in ends} == {asyncio.CancelledError}, ends


async def _until_more(accepted: list[str]) -> None:
    """Each shard may have some of these."""
    enough = len(accepted) + 50
    async with asyncio.timeout(30):
        while len(accepted) < enough:
            await asyncio.sleep(0.02)


async def test_a_killed_primary_takes_nothing_along(store: Store, stack: Stack, nodes: Clusters) -> None:
    """Posts are refused for a few seconds, in words that tell why; then its replica is the primary."""
    said: set[str | None] = set()
    uid = await in_state(store, RUNNING)
    async with _posting(store) as accepted:
        await _until_more(accepted)
        await _kill(stack, nodes.primary_of(keys.task(uid)))
        async with asyncio.timeout(30):
            while not said or store.pulse.missing:
                said |= {store.pulse.missing} - {None}
                await asyncio.sleep(0.05)
        await _until_more(accepted)
    assert "2 of 3 shards answer; another can't be reached" in said
    assert {await state_of(store, posted) for posted in accepted} == {State.PENDING}
    assert await state_of(store, uid) is RUNNING
    assert (await claimed(store, accepted[-1])).attempt == 1


async def test_a_primary_that_was_replaced_in_its_sleep(store: Store, stack: Stack, nodes: Clusters) -> None:
    """Awake again it takes itself for the primary for a moment: what it takes then isn't answered."""
    async with _posting(store) as accepted:
        await _until_more(accepted)
        primary = nodes.primaries()[0]
        with _frozen(stack, primary):
            async with asyncio.timeout(30):
                while primary in (await asyncio.to_thread(nodes.owners)).values():
                    await asyncio.sleep(0.05)
            await _until_more(accepted)
        await asyncio.to_thread(nodes.join)
        await _until_more(accepted)
    assert {await state_of(store, posted) for posted in accepted} == {State.PENDING}


async def test_what_no_replica_confirms_is_not_answered(store: Store, stack: Stack, nodes: Clusters) -> None:
    """One that stands still might be the next primary."""
    [frozen] = nodes.replicas_of(keys.DUE)
    with _frozen(stack, frozen):
        asked = time.monotonic()
        with pytest.raises(Unavailable, match="confirms"):
            await pending(store)
        assert time.monotonic() - asked < 2
    async with asyncio.timeout(10):
        await pending(store)


async def test_a_shard_without_a_replica_goes_on(store: Store, stack: Stack, nodes: Clusters) -> None:
    """And is counted, until there is one again. Nodes that have moved away have no say."""
    for port in range(1, 9):
        store.connection._servers.at(f"redis://127.0.0.1:{port}")
    [killed] = nodes.replicas_of(keys.DUE)
    await _kill(stack, killed)
    await pending(store)
    unreplicated = _unreplicated()
    await pending(store)
    assert _unreplicated() > unreplicated
    await asyncio.to_thread(stack.start, killed)
    await asyncio.to_thread(nodes.join)
    await pending(store)
    unreplicated = _unreplicated()
    await pending(store)
    assert _unreplicated() == unreplicated


def _unreplicated() -> float:
    [metric] = metrics.UNREPLICATED.collect()
    return next(sample.value for sample in metric.samples if sample.name.endswith("_total"))


async def test_the_first_of_the_list_is_away(stack: Stack, nodes: Clusters) -> None:
    """One that answers is enough, whichever it is."""
    url = nodes.redis_url.replace("redis+cluster://", "redis+cluster://127.0.0.1:1,")
    async with open_store(url, reserve_percent=10) as store:
        assert store.pulse.missing is None
        await pending(store)


async def test_a_node_that_stands_still_holds_nobody_up(store: Store) -> None:
    """Who is primary is asked of the next one a moment later, and the first answer counts."""
    servers = store.connection._servers

    async def look_seconds(port: int) -> float:
        servers.doubt(exceptions.MovedError(f"0 127.0.0.1:{port}"))
        asked = time.monotonic()
        await servers.layout()
        return time.monotonic() - asked

    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert min([await look_seconds(silent.getsockname()[1]) for _ in range(3)]) < LOOK_SECONDS


async def test_a_part_that_a_failover_lost_is_not_committed(store: Store) -> None:
    """A zip is looked at once more before a task may name it."""
    async with store.blobs.upload("owner", max_bytes=2**26) as upload:
        await upload.write(bytes(3 * 2**20))
        await store.connection.call("DEL", keys.chunk(upload.id, 1))  # as its shard's replica would not have it
        with pytest.raises(Unavailable):
            await upload.close()
        upload.withdraw()


async def test_a_slot_on_its_way_to_another_shard(store: Store, nodes: Clusters) -> None:
    """As when a cluster grows under load: what has moved already is asked for there."""
    uid = await pending(store)
    slot = key_slot(keys.task(uid).encode())
    source = nodes.primary_of(keys.task(uid))
    target = next(name for name in nodes.primaries() if name != source)
    with nodes.client(source) as giver, nodes.client(target) as taker:
        ids = {name: node.execute_command("CLUSTER MYID").decode() for name, node in ((source, giver), (target, taker))}
        taker.execute_command("CLUSTER SETSLOT", slot, "IMPORTING", ids[source])
        giver.execute_command("CLUSTER SETSLOT", slot, "MIGRATING", ids[target])
        giver.execute_command("MIGRATE", "127.0.0.1", nodes.port(target), keys.task(uid), 0, 1000)
        assert (await claimed(store, uid)).attempt == 1
        for node in (taker, giver):
            node.execute_command("CLUSTER SETSLOT", slot, "NODE", ids[target])
    assert await state_of(store, uid) is RUNNING


async def test_a_single_url_of_a_cluster_is_told(nodes: Clusters) -> None:
    """Whoever forgot the scheme reads so in /readyz."""
    for name in nodes.primaries():
        async with open_store(f"redis://127.0.0.1:{nodes.port(name)}/0", reserve_percent=10) as store:
            assert store.pulse.missing in (None, "is part of a cluster: REDIS_URL must begin with redis+cluster://")
