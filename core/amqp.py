"""RabbitMQ, the bell: a connection that comes back by itself, confirmed publishing, one message at a time.

The only importer of aiormq; core publishes with it, agents listen with it.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

import aiormq
import structlog
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from pydantic_settings import BaseSettings
from yarl import URL

from core.contract import queues
from core.contract.errors import Unavailable

log = structlog.get_logger()

CONFIRM_SECONDS: Final = 2.0
"""A post waits this long for the broker; then the task is answered unrung and the reaper rings it."""

CALL_SECONDS: Final = 10.0
HEARTBEAT_SECONDS: Final = 10
FIRST_RETRY_SECONDS: Final = 0.2
LAST_RETRY_SECONDS: Final = 2.0
FINISHED_EXPIRE_MS: Final = 24 * 3600 * 1000
"""Nobody need read the finished queue: what lies there for a day goes."""

LOST: Final = (aiormq.exceptions.AMQPError, aiormq.exceptions.ChannelInvalidStateError, OSError, TimeoutError)
"""How aiormq says that the broker, the connection or the channel went away."""


class BrokerSettings(BaseSettings):
    """`RABBITMQ_URL`, and the names of the queues."""

    rabbitmq_url: str = "amqp://guest:guest@rabbitmq:5672/"
    unfinished_job_queue: str = queues.UNFINISHED
    finished_job_queue: str = queues.FINISHED

    @property
    def gpu_job_queue(self) -> str:
        return queues.for_gpus(self.unfinished_job_queue)


@dataclass(frozen=True)
class Depth:
    """What a queue holds for whom."""

    messages: int
    consumers: int


@dataclass(frozen=True)
class Link:
    """A connection that lives, and the channel on it that publishes and asks."""

    connection: AbstractConnection
    publishing: AbstractChannel


class Message:
    """A uid from a queue. Unless it is acknowledged, it goes back when its context ends."""

    def __init__(self, delivered: DeliveredMessage) -> None:
        self._delivered = delivered
        self._tag = delivered.delivery_tag or 0
        self.is_settled = False

    @property
    def uid(self) -> str:
        """Raises UnicodeDecodeError for a body that was never a uid."""
        return self._delivered.body.decode("ascii")

    @property
    def redelivered(self) -> bool:
        return bool(self._delivered.redelivered)

    async def ack(self) -> None:
        await self._settle(self._delivered.channel.basic_ack(self._tag))

    async def reject(self) -> None:
        """For a body that can't be a uid: to the dead letters, if the operator's policy keeps them."""
        await self._settle(self._delivered.channel.basic_reject(self._tag, requeue=False))

    async def give_back(self) -> None:
        await self._settle(self._delivered.channel.basic_nack(self._tag, requeue=True))

    async def _settle(self, answer: Awaitable[object]) -> None:
        """When the channel is gone, the broker redelivers: the claim in Redis decides, not the acknowledgement."""
        self.is_settled = True
        with suppress(*LOST):
            await answer


class Broker:
    """Open with `async with Broker.open(settings)`. While the broker is away, calls raise Unavailable at once."""

    def __init__(self, settings: BrokerSettings) -> None:
        self.settings = settings
        self._link: Link | None = None
        self._connected = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: BrokerSettings) -> AsyncIterator["Broker"]:
        """Returns before the broker answers: who starts first doesn't matter."""
        broker = cls(settings)
        keeper = asyncio.create_task(broker._keep_connected(), name="amqp")
        try:
            yield broker
        finally:
            keeper.cancel()
            with suppress(asyncio.CancelledError):
                await keeper

    @property
    def is_connected(self) -> bool:
        return self._connected.is_set()

    async def wait_connected(self) -> None:
        await self._connected.wait()

    async def publish(self, queue: str, uid: str, *, expire_ms: int | None = None) -> None:
        """Returns when the broker has confirmed the message. Unavailable: not in time, yet it may arrive."""
        properties = aiormq.spec.Basic.Properties(
            content_type="text/plain",
            delivery_mode=2,
            message_id=uid,
            expiration=str(expire_ms) if expire_ms else None,
        )
        try:
            await self._live.publishing.basic_publish(
                uid.encode(), routing_key=queue, properties=properties, mandatory=True, timeout=CONFIRM_SECONDS
            )
        except LOST as error:
            raise Unavailable("RabbitMQ did not confirm the message") from error
        except asyncio.CancelledError as error:
            # aiormq cancels its own futures when heartbeats fail; only a cancellation of ours goes further.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
            raise Unavailable("RabbitMQ was lost while publishing") from error

    async def depth(self, queue: str) -> Depth:
        """How many messages wait in a queue, and how many consumers listen."""
        try:
            declared = await self._live.publishing.queue_declare(queue, passive=True, timeout=CALL_SECONDS)
        except LOST as error:
            raise Unavailable("RabbitMQ did not answer") from error
        return Depth(messages=declared.message_count or 0, consumers=declared.consumer_count or 0)

    @asynccontextmanager
    async def next_message(self, names: Sequence[str]) -> AsyncIterator[Message]:
        """Wait, across reconnects, for one message of any of the queues.

        Inside the context nothing listens any more, so that a busy slot never holds a second message that an idle
        slot elsewhere could have.
        """
        while True:
            await self.wait_connected()
            try:
                channel = await self._live.connection.channel()
            except (*LOST, Unavailable):
                await asyncio.sleep(FIRST_RETRY_SECONDS)
                continue
            try:
                message = await _one_message(channel, names)
                if message is not None:
                    try:
                        yield message
                    finally:
                        if not message.is_settled:
                            await message.give_back()
                    return
            finally:
                with suppress(*LOST):
                    await channel.close()

    @property
    def _live(self) -> "Link":
        if self._link is None or self._link.publishing.is_closed:
            raise Unavailable("RabbitMQ is not reachable at the moment")
        return self._link

    async def _keep_connected(self) -> None:
        wait_seconds = FIRST_RETRY_SECONDS
        while True:
            try:
                async with self._linked() as link:
                    wait_seconds = FIRST_RETRY_SECONDS
                    log.info("broker.connected")
                    ends = {link.connection.closing, link.publishing.closing}
                    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                    log.warning("broker.lost")
            except LOST as error:
                log.warning("broker.unreachable", error=repr(error), retry_seconds=round(wait_seconds, 1))
            await asyncio.sleep(wait_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            wait_seconds = min(2 * wait_seconds, LAST_RETRY_SECONDS)

    @asynccontextmanager
    async def _linked(self) -> AsyncIterator["Link"]:
        url = URL(self.settings.rabbitmq_url)
        url = url if "heartbeat" in url.query else url.update_query(heartbeat=HEARTBEAT_SECONDS)
        async with asyncio.timeout(CALL_SECONDS):
            connection = await aiormq.connect(url)
        try:
            link = Link(connection, await connection.channel(publisher_confirms=True))
            await self._declare(link.publishing)
            self._link = link
            self._connected.set()
            yield link
        finally:
            self._connected.clear()
            self._link = None
            with suppress(*LOST):
                await connection.close()

    async def _declare(self, channel: AbstractChannel) -> None:
        settings = self.settings
        for name in (settings.unfinished_job_queue, settings.gpu_job_queue, settings.finished_job_queue):
            await channel.queue_declare(name, **queues.DECLARATION, timeout=CALL_SECONDS)


async def _one_message(channel: AbstractChannel, names: Sequence[str]) -> Message | None:
    """The first delivery of any of the queues; None when the channel is lost. Others go back at once."""
    delivered: asyncio.Queue[DeliveredMessage] = asyncio.Queue()
    try:
        await channel.basic_qos(prefetch_count=1)
        consumers = [await channel.basic_consume(name, delivered.put) for name in names]
        first = asyncio.create_task(delivered.get(), name="amqp delivery")
        try:
            await asyncio.wait({first, channel.closing}, return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                return None
        finally:
            first.cancel()
        for consumer in consumers:
            await channel.basic_cancel(consumer.consumer_tag or "")
        while not delivered.empty():
            await Message(delivered.get_nowait()).give_back()
        return Message(first.result())
    except LOST:
        return None
