"""A RabbitMQ cluster of three whose nodes are killed."""

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Iterator

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from core.amqp import Broker, BrokerSettings
from core.contract.errors import Unavailable
from demo.stack import Stack
from tests.clusters import RABBITMQ, Clusters
from tests.conftest import started
from tests.direct import rabbitmq_at

AGAIN_SECONDS = 15
"""Until the queue has a new leader."""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with started(tmp_path_factory, only=("epmd", *RABBITMQ), clusters=True) as stack:
        yield stack


async def test_a_killed_node_takes_nothing_along(stack: Stack) -> None:
    """Who was connected to it is with another one at once; messages and slots that wait are still there."""
    assert isinstance(stack.servers, Clusters)
    name = secrets.token_hex(4)
    settings = BrokerSettings(rabbitmq_url=SecretStr(stack.rabbitmq_url), unfinished_job_queue=f"{name}.unfinished")
    queue = settings.unfinished_job_queue
    with capture_logs() as logs:
        async with Broker.open(settings) as broker:
            await broker.wait_connected()
            await _assert_quorum(stack, queue)
            await broker.publish(settings.gpu_queue_for(), "before")
            waiting = asyncio.create_task(_take(broker, queue))
            async with asyncio.timeout(10):
                while not (await broker.depth(queue)).consumers:
                    await asyncio.sleep(0.05)
            [connected] = [entry["node"] for entry in logs if entry["event"] == "broker.connected"]
            victim = stack.servers.broker_at(int(connected.rpartition(":")[2]))
            os.kill(await asyncio.to_thread(stack.pid, victim), signal.SIGKILL)
            killed = time.monotonic()
            await _published(broker, queue)
            async with asyncio.timeout(AGAIN_SECONDS):
                assert await waiting == "after"
                assert await _take(broker, settings.gpu_queue_for()) == "before"
            print(f"rung and heard {time.monotonic() - killed:.1f} s after the kill")
            await asyncio.to_thread(stack.start, victim)


async def _published(broker: Broker, queue: str) -> None:
    """As the sweep does: again, until it is confirmed."""
    async with asyncio.timeout(AGAIN_SECONDS):
        while True:
            try:
                await broker.publish(queue, "after")
            except Unavailable:
                await asyncio.sleep(0.1)
            else:
                return


async def _assert_quorum(stack: Stack, queue: str) -> None:
    """It was declared plainly, and may be declared as what it is."""
    connection = await rabbitmq_at(stack.rabbitmq_url)
    channel = await connection.channel()
    await channel.queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})
    await connection.close()


async def _take(broker: Broker, queue: str) -> str:
    async with broker.next_message([queue]) as message:
        await message.ack()
        return message.uid
