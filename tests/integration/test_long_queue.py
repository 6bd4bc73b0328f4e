"""The sweep leaves the tasks of a long queue alone, until their messages may be lost."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from pydantic import SecretStr

from core import watch
from core.amqp import Broker
from core.contract.needs import ANY
from core.contract.task import Blob, Failure, Reason
from core.dispatch import Dispatch
from core.reaper import BATCH, sweep
from core.store import Store, keys, open_store
from core.store.tasks import LOOK_SECONDS, NewTask, Turn
from core.watch import Watch
from demo.stack import Stack
from tests.direct import rabbitmq_at
from tests.integration.conftest import RESERVE_PERCENT
from tests.integration.making import claimed, everywhere
from tests.proxy import Proxies

TASKS = BATCH + 1
PUT_OFF_SECONDS = 10 * LOOK_SECONDS
CANCELLED = Failure(reason=Reason.CANCELLED, message="The task was cancelled")


@pytest.fixture(autouse=True)
def crowd(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if each of the tasks stood for many."""
    monkeypatch.setattr(watch, "LOOKS_PER_SECOND", TASKS / PUT_OFF_SECONDS)


Create = Callable[[], Awaitable[list[str]]]


@pytest.fixture
def create(dispatch: Dispatch) -> Create:
    """Makes tasks that nobody has rung or looked at, though it is time."""

    async def make() -> list[str]:
        uids = [secrets.token_urlsafe(32) for _ in range(TASKS)]
        for uid in uids:
            await dispatch.store.tasks.create(NewTask(uid, "copy", Blob(id=uid, size=1), need=ANY, max_attempts=3))
        await dispatch.store.tasks.look_at(dict.fromkeys(uids, 1.0))
        return uids

    return make


async def _seconds_to_looks(store: Store) -> list[float]:
    """The soonest first."""
    entries = await store.connection.call("ZRANGE", keys.DUE, 0, -1, "WITHSCORES")
    return [float(at) - time.time() for _, at in entries]


async def _messages(dispatch: Dispatch) -> int:
    return (await dispatch.broker.depth(dispatch.broker.settings.unfinished_job_queue)).messages


async def _long_ago(store: Store, uids: list[str]) -> None:
    """As if they had been rung then."""
    await store.connection.call_all(("HSET", keys.task(uid), "rung", 1) for uid in uids)


async def test_a_long_queue_costs_next_to_nothing(dispatch: Dispatch, create: Create) -> None:
    """Once looked at, its tasks are left alone for long, and a sweep at rest asks for a handful of things."""
    await create()
    watch = Watch(dispatch)
    await sweep(dispatch, watch)
    assert await _messages(dispatch) == TASKS
    await dispatch.store.tasks.bring_forward(until=time.time() + PUT_OFF_SECONDS)
    await sweep(dispatch, watch)
    assert (await _seconds_to_looks(dispatch.store))[0] > PUT_OFF_SECONDS - 10

    async def commands() -> int:
        return int(sum(info["total_commands_processed"] for info in await everywhere(dispatch.store, "INFO", "stats")))

    before = await commands()
    await sweep(dispatch, watch)
    assert await commands() - before < 20 * len(await everywhere(dispatch.store, "PING"))


async def test_what_an_emptied_queue_has_lost_is_rung_at_once(dispatch: Dispatch, create: Create) -> None:
    """Though the next look at each task is far off: one at the queue tells."""
    uids = await create()
    watch = Watch(dispatch)
    await sweep(dispatch, watch)
    await dispatch.store.tasks.bring_forward(until=time.time() + PUT_OFF_SECONDS)
    await sweep(dispatch, watch)
    connection = await rabbitmq_at(dispatch.broker.settings.rabbitmq_url.get_secret_value())
    await (await connection.channel()).queue_purge(dispatch.broker.settings.unfinished_job_queue)
    await connection.close()
    await _long_ago(dispatch.store, uids)
    await sweep(dispatch, watch)
    assert await _messages(dispatch) == TASKS
    await sweep(dispatch, watch)
    assert await _messages(dispatch) == TASKS


async def test_whoever_is_next_to_sweep_looks_at_what_was_put_off(dispatch: Dispatch, create: Create) -> None:
    """It can't know for which queues, and whether they were empty since."""
    [uid, *_] = await create()
    for _ in range(2):
        await sweep(dispatch, Watch(dispatch))
    await dispatch.store.connection.call("HDEL", keys.task(uid), "rung")
    await sweep(dispatch, Watch(dispatch))
    assert await dispatch.store.connection.call("HEXISTS", keys.task(uid), "rung")
    assert await _messages(dispatch) > TASKS  # where the broker is slow, some more than once


async def test_without_a_broker_the_sweep_waits_for_it(dispatch: Dispatch, servers: Stack, create: Create) -> None:
    """Tasks that it can't ring aren't looked at again and again, and are rung as soon as it is back."""
    [node, *_] = dispatch.broker.settings.rabbitmq_nodes
    with Proxies() as proxies:
        proxy = proxies.to((str(node.host), int(node.port or 0)))
        url = SecretStr(str(node.with_host("127.0.0.1").with_port(proxy.port)))
        async with Broker.open(dispatch.broker.settings.model_copy(update={"rabbitmq_url": url})) as broker:
            await broker.wait_connected()
            behind = replace(dispatch, broker=broker)
            watch = Watch(behind)
            with proxy.refusing():
                async with asyncio.timeout(10):
                    while broker.is_connected:
                        await asyncio.sleep(0.01)
                await create()
                await sweep(behind, watch)
                assert (await _seconds_to_looks(dispatch.store))[0] > LOOK_SECONDS / 2
                assert await _messages(dispatch) == 0
            await broker.wait_connected()
            await sweep(behind, watch)
            assert await _messages(dispatch) == TASKS


@pytest.mark.parametrize("taken", ["claimed", "started", "cancelled"])
async def test_what_happens_to_a_task_brings_its_look_forward(dispatch: Dispatch, create: Create, taken: str) -> None:
    """Before it happens: the core that does it may die right after."""
    [uid, *_] = await create()
    await dispatch.store.tasks.look_again(uid, after_seconds=PUT_OFF_SECONDS)
    match taken:
        case "claimed":
            await claimed(dispatch.store, uid, lease_seconds=9)
        case "started":
            await dispatch.store.tasks.start_without_lease(uid)
        case "cancelled":
            await dispatch.store.tasks.cancel(uid, CANCELLED)
    assert float(await dispatch.store.connection.call("ZSCORE", keys.DUE, uid)) < time.time() + 61


async def test_one_sweeps_at_a_time(servers: Stack, store: Store) -> None:
    """Until it is dead; then whoever asks first."""
    assert await store.tasks.turn(seconds=60) is Turn.BEGINS
    assert await store.tasks.turn(seconds=60) is Turn.GOES_ON
    async with open_store(servers.redis_url, reserve_percent=RESERVE_PERCENT) as other:
        assert await other.tasks.turn(seconds=60) is Turn.OTHERS
        assert await store.tasks.turn(seconds=0.001) is Turn.GOES_ON
        async with asyncio.timeout(5):
            while await other.tasks.turn(seconds=60) is Turn.OTHERS:
                await asyncio.sleep(0.001)
    assert await store.tasks.turn(seconds=60) is Turn.OTHERS
