"""The bell: confirmed messages, one at a time, over a connection that comes back."""

import asyncio
import secrets

import pytest

from core import amqp
from core.amqp import Broker
from core.contract import queues
from core.contract.errors import Unavailable
from core.contract.needs import ANY
from core.contract.queues import IN_TURN
from core.contract.task import UID
from core.observe import on_behalf_of
from demo.stack import Stack
from tests.direct import rabbitmq_at


async def _take(broker: Broker, queue: str, priority: int = 0) -> str:
    async with broker.next_message([queue], priority=priority) as message:
        await message.ack()
        return message.uid


async def _ready(broker: Broker, queue: str) -> int:
    return (await broker.depth(queue)).messages


async def _until(broker: Broker, queue: str, messages: int) -> None:
    async with asyncio.timeout(10):
        while await _ready(broker, queue) != messages:
            await asyncio.sleep(0.05)


async def test_messages_are_as_version_1_reads_them(broker: Broker, servers: Stack) -> None:
    """A plain, equal declaration is accepted; the body is the raw uid; the message outlives the broker."""
    queue, uid = broker.settings.unfinished_job_queue, secrets.token_urlsafe(32)
    await broker.publish(queue, uid)
    connection = await rabbitmq_at(servers.rabbitmq_url)
    channel = await connection.channel()
    await channel.queue_declare(queue, durable=True)
    message = await channel.basic_get(queue)
    properties = message.header.properties
    assert message.body == uid.encode()
    assert (properties.delivery_mode, properties.content_type, properties.message_id) == (2, "text/plain", uid)
    await connection.close()


async def test_a_message_says_which_request_led_to_it(broker: Broker) -> None:
    """Who reads only the body isn't disturbed by it, and a message without it is as good."""
    queue = broker.settings.unfinished_job_queue
    with on_behalf_of("from-client"):
        await broker.publish(queue, "task-1")
    await broker.publish(queue, "task-2")
    requests = {}
    for _ in range(2):
        async with broker.next_message([queue]) as message:
            await message.ack()
            requests[message.uid] = message.request
    assert requests == {"task-1": "from-client", "task-2": ""}


async def test_a_busy_slot_holds_one_message(broker: Broker) -> None:
    """Inside the context nothing else is delivered: the other messages wait for idle slots."""
    queue = broker.settings.unfinished_job_queue
    for number in range(3):
        await broker.publish(queue, f"task-{number}")
    async with broker.next_message([queue]) as message:
        await message.ack()
        await _until(broker, queue, 2)
        assert await _take(broker, queue) == "task-1"


async def test_an_unsettled_message_goes_back(broker: Broker) -> None:
    """Whatever ended the context, the message rings elsewhere, and says that it did before."""
    queue = broker.settings.unfinished_job_queue
    await broker.publish(queue, "task")
    with pytest.raises(RuntimeError):
        async with broker.next_message([queue]):
            raise RuntimeError
    async with broker.next_message([queue]) as message:
        assert message.redelivered
        await message.ack()
    await _until(broker, queue, 0)


async def test_of_two_queues_one_message_is_taken(broker: Broker) -> None:
    """An agent with a GPU listens on both; what came from the other one in the same moment goes back."""
    main, gpu = broker.settings.unfinished_job_queue, broker.settings.gpu_queue_for()
    await broker.publish(main, "from-main")
    await broker.publish(gpu, "from-gpu")
    async with broker.next_message([main, gpu]) as message:
        await message.ack()
        first = message.uid
    async with broker.next_message([main, gpu]) as message:
        await message.ack()
        assert {first, message.uid} == {"from-main", "from-gpu"}


async def test_the_first_queue_that_has_a_message_comes_first(broker: Broker) -> None:
    """Whatever waits in the others, and however long it has."""
    settings = broker.settings
    names = [settings.queue_for(ANY, priority) for priority in IN_TURN]
    for name in reversed(names):
        for number in range(2):
            await broker.publish(name, f"{name} {number}")
    taken = []
    for _ in range(6):
        async with broker.next_message(names) as message:
            await message.ack()
            taken.append(message.uid)
    assert taken == [f"{name} {number}" for name in names for number in range(2)]


async def test_who_stops_looking_disturbs_nobody(broker: Broker) -> None:
    """A slot that is cancelled just as it takes a message leaves it to others, and the connection as it is."""
    queue = broker.settings.unfinished_job_queue
    await broker.publish(queue, "task")
    for step in range(20):
        taking = asyncio.create_task(_take(broker, queue))
        for _ in range(step):
            await asyncio.sleep(0)
        taking.cancel()
        await asyncio.wait({taking})
        if not taking.cancelled():
            await broker.publish(queue, "task")
    assert await _take(broker, queue) == "task"
    assert broker.is_connected


async def test_the_idle_come_before_the_busy(broker: Broker) -> None:
    """Who listens with a lower priority gets a message when nobody else waits for one."""
    queue = broker.settings.unfinished_job_queue
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        busy = group.create_task(_take(broker, queue, -1))
        while (await broker.depth(queue)).consumers < 1:
            await asyncio.sleep(0.02)
        idle = group.create_task(_take(broker, queue))
        while (await broker.depth(queue)).consumers < 2:
            await asyncio.sleep(0.02)
        await broker.publish(queue, "first")
        assert await idle == "first"
        await broker.publish(queue, "second")
        assert await busy == "second"


async def test_waiting_costs_nothing_to_stop(broker: Broker) -> None:
    """A slot that waits can be cancelled, and takes no message with it."""
    queue = broker.settings.unfinished_job_queue
    waiting = asyncio.create_task(_take(broker, queue))
    async with asyncio.timeout(10):
        while (await broker.depth(queue)).consumers == 0:
            await asyncio.sleep(0.02)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await broker.publish(queue, "task")
    assert await _take(broker, queue) == "task"


async def test_the_connection_comes_back(broker: Broker, servers: Stack, clusters: bool) -> None:
    """While the broker is away a call says so at once; a slot that waited across it gets the next message."""
    if clusters:
        pytest.skip("there are others: tests/clusters")
    queue = broker.settings.unfinished_job_queue
    waiting = asyncio.create_task(_take(broker, queue))
    await asyncio.to_thread(servers.stop, "rabbitmq")
    async with asyncio.timeout(15):
        while broker.is_connected:
            await asyncio.sleep(0.05)
    with pytest.raises(Unavailable):
        await broker.publish(queue, "lost")
    await asyncio.to_thread(servers.start, "rabbitmq")
    async with asyncio.timeout(60):
        await broker.wait_connected()
        await broker.publish(queue, "after")
        assert await waiting == "after"


async def test_a_deleted_queue_comes_back(
    broker: Broker, servers: Stack, clusters: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who listened there declares it again, and hears what comes; of a quorum queue after a while."""
    if clusters:
        monkeypatch.setattr(amqp, "LISTEN_SECONDS", 1.0)
    queue = broker.settings.unfinished_job_queue
    waiting = asyncio.create_task(_take(broker, queue))
    async with asyncio.timeout(10):
        while (await broker.depth(queue)).consumers == 0:
            await asyncio.sleep(0.02)
    connection = await rabbitmq_at(servers.rabbitmq_url)
    channel = await connection.channel()
    await channel.queue_delete(queue)
    await connection.close()
    await broker.publish(queue, "after")
    async with asyncio.timeout(10):
        assert await waiting == "after"


async def test_a_message_may_be_anything(broker: Broker, servers: Stack) -> None:
    """Bytes that were never a uid are told from one, and can be rejected."""
    queue = broker.settings.unfinished_job_queue
    connection = await rabbitmq_at(servers.rabbitmq_url)
    channel = await connection.channel()
    await channel.basic_publish(b"\xff\xfe", routing_key=queue)
    await connection.close()
    async with broker.next_message([queue]) as message:
        assert not UID.fullmatch(message.uid)
        await message.reject()
    await _until(broker, queue, 0)


def test_the_gpu_queue_is_ours_alone() -> None:
    """Version 1's consumers never listen there."""
    assert queues.for_gpus(queues.UNFINISHED) not in (queues.UNFINISHED, queues.FINISHED)
