"""A Redis and a RabbitMQ of the session's, a fresh database and queues of its own for each test."""

import secrets
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from core.amqp import Broker, BrokerSettings
from core.contract.needs import ANY
from core.contract.options import Priority
from core.contract.zips import ZipLimits
from core.dispatch import Dispatch
from core.retention import Retention
from core.store import Store, open_store
from core.zipcheck import ZipCheck
from demo.stack import Stack
from tests.direct import rabbitmq_at
from tests.integration.making import PAIR

LEASE_SECONDS = 5.0
RESERVE_PERCENT = 25
KEEP = Retention(inputs_hours=0.5, outputs_hours=1, tasks_hours=2)
LOG_BYTES = 10_000
LIMITS = ZipLimits(max_total_bytes=2**30, max_ratio=200, max_entries=1000, verify_bytes=2**26)


@pytest.fixture
async def store(servers: Stack) -> AsyncIterator[Store]:
    """An empty database."""
    async with open_store(servers.redis_url, reserve_percent=RESERVE_PERCENT) as store:
        await store.connection.everywhere(("FLUSHDB",))
        yield store


@pytest.fixture
async def broker(servers: Stack) -> AsyncIterator[Broker]:
    """Connected, with queues that no other test has."""
    name = secrets.token_hex(4)
    settings = BrokerSettings(
        rabbitmq_url=SecretStr(servers.rabbitmq_url),
        unfinished_job_queue=f"{name}.unfinished",
        finished_job_queue=f"{name}.done",
    )
    async with Broker.open(settings) as broker:
        await broker.wait_connected()
        yield broker
    connection = await rabbitmq_at(servers.rabbitmq_url)
    channel = await connection.channel()
    own = {settings.queue_for(need, priority) for need in (ANY, PAIR) for priority in Priority}
    own |= {settings.finished_job_queue, *map(settings.gpu_queue_for, Priority)}
    for queue in own:
        await channel.queue_delete(queue)
    await connection.close()


@pytest.fixture
def dispatch(store: Store, broker: Broker) -> Dispatch:
    check = ZipCheck(store.blobs, LIMITS)
    return Dispatch(
        store,
        broker,
        lease_seconds=LEASE_SECONDS,
        max_upload_bytes=2**26,
        check_zip=check,
        keep=KEEP,
        log_bytes=LOG_BYTES,
    )
