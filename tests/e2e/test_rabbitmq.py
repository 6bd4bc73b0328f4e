"""The queues, as version 1's consumers know them, and such a consumer working unchanged."""

from collections.abc import AsyncIterator
from typing import Any

import aiormq
import pytest
from aiormq.abc import AbstractChannel, DeliveredMessage

from core.contract import queues
from demo.stack import Stack
from tests.direct import rabbitmq_at
from tests.e2e.api import Api
from tests.e2e.conftest import COPY, INPUT, ModelMaker
from tests.e2e.version_1 import OUTPUT, Version1Consumer
from tests.leaks import Leaks
from tests.waiting import eventually
from tests.zips import files_of

QUEUES = [queues.UNFINISHED, queues.FINISHED]


@pytest.fixture
async def channel(stack: Stack) -> AsyncIterator[AbstractChannel]:
    connection = await rabbitmq_at(stack.rabbitmq_url)
    yield await connection.channel()
    await connection.close()


async def message_of(channel: AbstractChannel, queue: str, uid: str) -> DeliveredMessage:
    """The message of that task; others before it are taken away."""
    while True:
        message = await channel.basic_get(queue, no_ack=True)
        assert isinstance(message.delivery, aiormq.spec.Basic.GetOk), f"no message of {uid} in {queue}"
        if message.body == uid.encode():
            return message


@pytest.mark.parametrize("queue", QUEUES)
async def test_queues_can_be_declared_plainly(channel: AbstractChannel, stack: Stack, queue: str) -> None:
    """Durable and nothing else, as version 1's consumers declare them."""
    await channel.queue_declare(queue, passive=True)
    await channel.queue_declare(queue, durable=True)


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize(
    "other",
    [{"durable": False}, {"durable": True, "auto_delete": True}, {"durable": True, "arguments": {"x-max-length": 10}}],
)
async def test_queues_are_nothing_but_durable(channel: AbstractChannel, queue: str, other: dict[str, Any]) -> None:
    """Any other declaration is another queue's, and refused."""
    with pytest.raises(aiormq.exceptions.ChannelPreconditionFailed):
        await channel.queue_declare(queue, **other)


async def test_the_message_of_a_task(no_agents: None, channel: AbstractChannel, api: Api, waiting: str) -> None:
    """The raw uid, persistent, in the default exchange."""
    message = await message_of(channel, queues.UNFINISHED, uid := api.post(waiting, INPUT))
    properties = message.header.properties
    assert (message.exchange, message.routing_key) == ("", queues.UNFINISHED)
    assert (properties.delivery_mode, properties.message_id) == (2, uid)
    assert properties.content_type
    assert properties.expiration is None


@pytest.mark.parametrize(("script", "status"), [(COPY, 200), ("exit 1", 552)], ids=["finished", "failed"])
async def test_the_message_of_an_end(
    channel: AbstractChannel, leaks: Leaks, api: Api, model: ModelMaker, script: str, status: int
) -> None:
    """The raw uid, persistent; nobody need read it, so it expires."""
    uid = api.post(model(script), INPUT)
    assert api.wait(uid).status_code == status
    eventually(lambda: leaks.messages(queues.FINISHED))
    properties = (await message_of(channel, queues.FINISHED, uid)).header.properties
    assert properties.delivery_mode == 2
    assert properties.expiration is not None
    assert int(properties.expiration) > 0


@pytest.fixture
def consumer(stack: Stack) -> Version1Consumer:
    return Version1Consumer(stack)


async def test_a_consumer_of_version_1_works_unchanged(
    no_agents: None, consumer: Version1Consumer, api: Api, leaks: Leaks, channel: AbstractChannel, waiting: str
) -> None:
    """It takes each task once, in order, and its outputs are what clients get; the ends are told."""
    uids = [api.post(waiting, INPUT) for _ in range(3)]
    await consumer.work(until=lambda: len(consumer.done) == 3)
    assert consumer.done == uids
    assert leaks.messages(queues.UNFINISHED) == 0
    for uid in uids:
        answer = api.get(f"/api/tasks/{uid}")
        assert (answer.status_code, answer.content) == (200, OUTPUT)
        await message_of(channel, queues.FINISHED, uid)


async def test_what_a_dead_consumer_held_is_run_by_an_agent(
    no_agents: None, stack: Stack, consumer: Version1Consumer, api: Api, copying: str
) -> None:
    """The broker redelivers the message, and the task that was set running runs again."""
    uid = api.post(copying, INPUT)
    async with consumer.working() as held:
        assert held == uid
    assert api.get(f"/api/tasks/{uid}").status_code == 551
    stack.start("agent-1")
    answer = api.wait(uid)
    assert answer.status_code == 200
    assert files_of(answer.content).items() >= files_of(INPUT).items()


@pytest.mark.parametrize("body", [b"", b"\xff\xfe", b"../../etc/passwd", b"A" * 10_000, b"{uid}"])
def test_what_is_no_uid_is_dropped(api: Api, stack: Stack, leaks: Leaks, copying: str, body: bytes) -> None:
    """It harms no agent, and holds no task up."""
    agents = [stack.pid(f"agent-{number}") for number in (1, 2)]
    leaks.publish(queues.UNFINISHED, body)
    assert api.wait(api.post(copying, INPUT)).status_code == 200
    eventually(lambda: leaks.messages(queues.UNFINISHED) == 0)
    assert [stack.pid(f"agent-{number}") for number in (1, 2)] == agents
