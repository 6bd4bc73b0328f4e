"""RabbitMQ, the bell: a connection that comes back by itself, confirmed publishing, one message at a time.

The only importer of aiormq; core publishes with it, agents listen with it.
"""

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Final, cast

import aiormq
import structlog
from aiormq.abc import AbstractChannel, AbstractConnection, ArgumentsType, DeliveredMessage
from pydantic import SecretStr
from yarl import URL

from core.contract import queues
from core.contract.errors import Unavailable
from core.contract.needs import ANY, Need
from core.contract.options import Priority
from core.deadline import Deadline
from core.observe import REQUEST, request_id
from core.secrets import SecretsInFiles, with_password
from core.trust import is_untrusted

log = structlog.get_logger()

CONFIRM_SECONDS: Final = 2.0
"""A post waits this long for the broker; then the task is answered unrung and the reaper rings it."""

CALL_SECONDS: Final = 10.0
HEARTBEAT_SECONDS: Final = 10
REFUSED_SECONDS: Final = 1.0
"""A connection isn't given up sooner for what a queue refuses: it may be full."""

FIRST_RETRY_SECONDS: Final = 0.2
LAST_RETRY_SECONDS: Final = 2.0
LISTEN_SECONDS: Final = 30.0
"""Whoever waits for so long listens anew. RabbitMQ doesn't tell the consumers of a quorum queue that it was deleted if
somebody declares it again at once.
"""

_REQUEST: Final = "request-id"
_BETWEEN_URLS: Final = re.compile(r"\s*,\s*(?=amqps?://)")
LOST: Final = (aiormq.exceptions.AMQPError, aiormq.exceptions.ChannelInvalidStateError, OSError, TimeoutError)
"""How aiormq says that the broker, the connection or the channel went away."""


class BrokerSettings(SecretsInFiles):
    """`RABBITMQ_URL`: one node or several, with commas between; a password from elsewhere; the queues' names."""

    rabbitmq_url: SecretStr = SecretStr("amqp://guest@rabbitmq:5672/")
    rabbitmq_password: SecretStr = SecretStr("guest")
    rabbitmq_password_file: Path | None = None
    unfinished_job_queue: str = queues.UNFINISHED
    finished_job_queue: str = queues.FINISHED

    @property
    def rabbitmq_nodes(self) -> list[URL]:
        """In a random order: cores and agents spread over the nodes."""
        urls = _BETWEEN_URLS.split(self.rabbitmq_url.get_secret_value().strip())
        nodes = [URL(with_password(url, self.rabbitmq_password.get_secret_value())) for url in urls]
        return random.sample(nodes, len(nodes))

    def queue_for(self, need: Need, priority: Priority = Priority.NORMAL) -> str:
        return queues.for_need(self.unfinished_job_queue, need, priority)

    def gpu_queue_for(self, priority: Priority = Priority.NORMAL) -> str:
        return queues.for_gpus(self.unfinished_job_queue, priority)


@dataclass(frozen=True)
class Depth:
    """What a queue holds for whom."""

    messages: int
    consumers: int


@dataclass(frozen=True)
class Link:
    """A connection that lives, and the channel on it that publishes and asks."""

    connection: AbstractConnection
    publishing: aiormq.Channel
    refused: asyncio.Event = field(default_factory=asyncio.Event)
    since: float = field(default_factory=time.monotonic)

    @property
    def age_seconds(self) -> float:
        return time.monotonic() - self.since

    async def end(self) -> None:
        """Returns when it is lost, or of no use any more."""
        refused = asyncio.create_task(self.refused.wait(), name="amqp refused")
        try:
            ends = {self.connection.closing, self.publishing.closing, refused}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            refused.cancel()


class Message:
    """A uid from a queue. Unless it is acknowledged, it goes back when its context ends."""

    def __init__(self, delivered: DeliveredMessage) -> None:
        self._delivered = delivered
        self._tag = cast(int, delivered.delivery_tag)
        self.is_settled = False

    @property
    def uid(self) -> str:
        """Whatever somebody put there; check that it can be a uid."""
        return self._delivered.body.decode("ascii", errors="replace")

    @property
    def request(self) -> str:
        """The id of the request that led to it; empty if nobody said so."""
        headers = self._delivered.header.properties.headers or {}
        return request_id(str(headers.get(_REQUEST, "")))

    @property
    def queue(self) -> str:
        return self._delivered.routing_key or ""

    @property
    def redelivered(self) -> bool:
        return bool(self._delivered.redelivered)

    async def ack(self) -> None:
        await self._settle(self._delivered.channel.basic_ack(self._tag))

    async def reject(self) -> None:
        """For a body that can't be a uid: to the dead letters, by the server's policy (docs/operate.md)."""
        await self._settle(self._delivered.channel.basic_reject(self._tag, requeue=False))

    async def give_back(self) -> None:
        await self._settle(self._delivered.channel.basic_nack(self._tag, requeue=True))

    async def _settle(self, answer: Awaitable[object]) -> None:
        """When the channel is gone, the broker redelivers: the claim in Redis decides, not the acknowledgement."""
        self.is_settled = True
        with suppress(Unavailable):
            async with _answered():
                await answer


class Broker:
    """Open with `async with Broker.open(settings)`.

    While there is no connection calls raise Unavailable at once; while the broker is silent, after their deadline.
    """

    def __init__(self, settings: BrokerSettings) -> None:
        self.settings = settings
        self.missing: str | None = "has not answered yet"
        """Why there is no connection, in words; None while there is one."""
        self._link: Link | None = None
        self._connected = asyncio.Event()
        self._empty_at: dict[str, float] = {}

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: BrokerSettings) -> AsyncIterator["Broker"]:
        """Returns before the broker answers: who starts first doesn't matter."""
        broker = cls(settings)
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(broker._keep_connected(), name="amqp")
            yield broker
            keeper.cancel()

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
            headers={_REQUEST: REQUEST.get()} if REQUEST.get() else None,
            expiration=str(expire_ms) if expire_ms else None,
        )
        try:
            await self._publish(queue, uid, properties)
        except aiormq.exceptions.PublishError:  # somebody deleted the queue, or nobody has needed it yet
            async with _answered():
                await self._declare(self._live.publishing, queue)
            async with _answered(CONFIRM_SECONDS):
                await self._publish(queue, uid, properties)

    async def _publish(self, queue: str, uid: str, properties: aiormq.spec.Basic.Properties) -> None:
        """Raises PublishError when there is no such queue. aiormq mutates the properties."""
        link = self._live
        try:
            async with _answered(CONFIRM_SECONDS, but=aiormq.exceptions.PublishError):
                # Written when the loop comes to it: others' messages needn't wait for that, and the confirmation does.
                await link.publishing.basic_publish(
                    uid.encode(), routing_key=queue, properties=copy(properties), mandatory=True, wait=False
                )
        except Unavailable as error:
            # A channel that met a quorum queue without a leader may refuse for ever: a new one finds the new leader.
            if isinstance(error.__cause__, aiormq.exceptions.DeliveryError) and link.age_seconds > REFUSED_SECONDS:
                link.refused.set()
            raise

    async def depth(self, queue: str) -> Depth:
        """How many messages wait in a queue, and how many consumers listen. One that isn't there is made."""
        async with _answered():
            declared = await self._live.publishing.queue_declare(queue, **queues.DECLARATION)
        return self._noted(queue, declared)

    def empty_at(self, queue: str) -> float:
        """Epoch second at which the queue was last seen empty: what was rung before and waits has lost its message."""
        return self._empty_at.get(queue, 0.0)

    def _noted(self, queue: str, declared: aiormq.spec.Queue.DeclareOk) -> Depth:
        depth = Depth(messages=declared.message_count or 0, consumers=declared.consumer_count or 0)
        if not depth.messages:
            self._empty_at[queue] = time.time()
        return depth

    @asynccontextmanager
    async def next_message(self, names: Sequence[str], *, priority: int = 0) -> AsyncIterator[Message]:
        """Wait, across reconnects, for one message of the queues: of the first where one waits, else the next that
        comes. Whoever listens with a lower priority gets one when nobody with a higher one waits for it.

        Inside the context nothing listens any more, so that nobody ever holds a second message that an idle slot
        elsewhere could have.
        """
        is_anew = False
        while True:
            await self.wait_connected()
            try:
                async with _answered():
                    channel = await self._live.connection.channel()
                    if is_anew:
                        await self._declare(channel, *names)
            except Unavailable:
                await asyncio.sleep(FIRST_RETRY_SECONDS)
                continue
            try:
                message = await self._one_message(channel, names, priority)
                if message is not None:
                    try:
                        yield message
                    finally:
                        if not message.is_settled:
                            await message.give_back()
                    return
                is_anew = True
            finally:
                with suppress(Unavailable):
                    async with _answered():
                        await channel.close()

    async def _one_message(self, channel: AbstractChannel, names: Sequence[str], priority: int) -> Message | None:
        """What waits in the first queue that has something, or the first delivery of any, when others go back. None:
        listen anew, channel or queue may be lost.
        """
        delivered: asyncio.Queue[DeliveredMessage | None] = asyncio.Queue()
        # The broker cancels the consumers of a queue that is deleted.
        channel.on_consumer_cancel_callbacks.add(lambda _: delivered.put_nowait(None))
        try:
            async with _answered():
                if waiting := await _taken(channel, names):
                    return Message(waiting)
                await channel.basic_qos(prefetch_count=1)
                arguments: ArgumentsType = {"x-priority": priority}
                consumers = [await channel.basic_consume(name, delivered.put, arguments=arguments) for name in names]
            first = asyncio.create_task(delivered.get(), name="amqp delivery")
            try:
                ends = {first, channel.closing}
                await asyncio.wait(ends, timeout=LISTEN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            finally:
                first.cancel()
            async with _answered():
                for consumer in consumers:
                    await channel.basic_cancel(cast(str, consumer.consumer_tag))
        except Unavailable:
            return None
        came = [first.result()] if first.done() and not first.cancelled() else []
        while not delivered.empty():
            came.append(delivered.get_nowait())
        messages = [Message(message) for message in came if message is not None]
        for other in messages[1:]:
            await other.give_back()
        return messages[0] if messages else None

    @property
    def _live(self) -> "Link":
        if self._link is None or self._link.publishing.is_closed:
            raise Unavailable("RabbitMQ is not reachable at the moment")
        return self._link

    async def _keep_connected(self) -> None:
        """With the next node at once when one is lost; after a round of them a moment later, and each round later."""
        nodes = self.settings.rabbitmq_nodes
        wait_seconds = FIRST_RETRY_SECONDS
        while True:
            for node in nodes:
                try:
                    async with self._linked(node) as link:
                        wait_seconds = FIRST_RETRY_SECONDS
                        log.info("broker.connected", node=f"{node.host}:{node.port}")
                        await link.end()
                        self.missing = "is away"
                        log.warning("broker.lost")
                except Unavailable as error:
                    self.missing = _words(error.__cause__)
                    log.warning("broker.unreachable", error=repr(error.__cause__), broker=self.missing)
            await asyncio.sleep(wait_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            wait_seconds = min(2 * wait_seconds, LAST_RETRY_SECONDS)

    @asynccontextmanager
    async def _linked(self, node: URL) -> AsyncIterator["Link"]:
        url = node if "heartbeat" in node.query else node.update_query(heartbeat=HEARTBEAT_SECONDS)
        async with _answered():
            connection = await aiormq.connect(url)
        try:
            async with _answered():
                link = Link(connection, cast(aiormq.Channel, await connection.channel(publisher_confirms=True)))
                await self._declare(link.publishing)
            self._link = link
            self.missing = None
            self._connected.set()
            yield link
        finally:
            self._connected.clear()
            self._link = None
            with suppress(Unavailable):
                async with _answered():
                    await connection.close()

    async def _declare(self, channel: AbstractChannel, *others: str) -> None:
        settings = self.settings
        names = {settings.finished_job_queue, *others}
        names |= {queue for rank in Priority for queue in (settings.queue_for(ANY, rank), settings.gpu_queue_for(rank))}
        for name in names:
            self._noted(name, await channel.queue_declare(name, **queues.DECLARATION))


async def _taken(channel: AbstractChannel, names: Sequence[str]) -> DeliveredMessage | None:
    """The first message that waits in the first of the queues that has any."""

    async def taken() -> DeliveredMessage | None:
        for name in names:
            got = await channel.basic_get(name)
            if isinstance(got.delivery, aiormq.spec.Basic.GetOk):
                return got
        return None

    # aiormq's channel breaks on the answer to a call that was cancelled; this one is closed soon, and the message back.
    taking = asyncio.create_task(taken(), name="amqp get")
    try:
        return await asyncio.shield(taking)
    except asyncio.CancelledError:
        taking.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        raise


def _words(error: BaseException | None) -> str:
    """For operators, as Redis's are (core/store/pulse.py)."""
    if is_untrusted(error):
        return "has a certificate that is not trusted"
    if isinstance(error, aiormq.exceptions.AuthenticationError | aiormq.exceptions.ProbableAuthenticationError):
        return "does not accept the user or the password"
    return "is away"


def _unanswered() -> Unavailable:
    return Unavailable("RabbitMQ did not answer")


class _Answer(Deadline):
    __slots__ = ("_but",)

    def __init__(self, seconds: float, but: type[Exception] | tuple[()]) -> None:
        super().__init__(seconds, _unanswered)
        self._but = but

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, traceback)
        if isinstance(error, LOST) and not isinstance(error, self._but):
            raise _unanswered() from error
        # aiormq cancels what waits when heartbeats fail; only a cancellation of the task itself goes further.
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task and not task.cancelling():
            raise Unavailable("RabbitMQ was lost") from error


def _answered(seconds: float = CALL_SECONDS, *, but: type[Exception] | tuple[()] = ()) -> _Answer:
    """A deadline, and every way in which aiormq says that the broker went away, as Unavailable. `but` passes."""
    return _Answer(seconds, but)
