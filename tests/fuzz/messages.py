"""What an agent makes of whatever lies in its queues."""

import asyncio
import re
from datetime import UTC, datetime
from typing import Any, cast

import aiormq
from aiormq.abc import DeliveredMessage
from pamqp.header import ContentHeader

from core.amqp import Message
from core.observe import on_behalf_of
from gpu_agent.staging import is_readable
from tests.fuzz.choices import Choices

UID = re.compile(rb"[A-Za-z0-9_-]{16,64}")
VALUES: tuple[object, ...] = (None, True, -1, 2**63, 1.5, b"\xff", [], {"x": 1}, datetime(2026, 1, 1, tzinfo=UTC))
LOOP = asyncio.new_event_loop()


class Settlements:
    """A channel, as far as a message needs one."""

    def __init__(self) -> None:
        self.made: list[str] = []

    async def basic_ack(self, tag: int) -> None:
        self.made.append("ack")

    async def basic_reject(self, tag: int, *, requeue: bool) -> None:
        self.made.append("requeued" if requeue else "rejected")

    async def basic_nack(self, tag: int, *, requeue: bool) -> None:
        self.made.append("given back")


def check(data: bytes) -> None:
    """A body that can be a uid's is one, and can stand in a path; every other is rejected, once, and not requeued."""
    choices = Choices(data)
    value: object = choices.pick(VALUES) if choices.one_in(2) else choices.some(140).decode("latin-1")
    headers = None if choices.one_in(8) else {"request-id": value}
    channel = Settlements()
    delivery = aiormq.spec.Basic.Deliver("consumer", 1, choices.one_in(2), "", "unfinished_job_queue")
    properties = aiormq.spec.Basic.Properties(headers=cast(Any, headers))
    body = choices.rest()
    message = Message(DeliveredMessage(delivery, ContentHeader(0, len(body), properties), body, cast(Any, channel)))
    with on_behalf_of(message.request, task=message.uid):
        is_taken = LOOP.run_until_complete(is_readable(message))
    assert is_taken == bool(UID.fullmatch(body))
    assert channel.made == ([] if is_taken else ["rejected"])
    assert message.is_settled != is_taken
    assert re.fullmatch(r"[A-Za-z0-9._-]{0,128}", message.request)
