"""The broker's consumer timeout, which is half an hour by default and ten seconds here."""

import asyncio

import aiormq
from aiormq.abc import DeliveredMessage

from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT
from tests.faults.gates import open_gate, runs
from tests.waiting import eventually

CUT_OFF_WITHIN_SECONDS = 30


async def _hold(message: DeliveredMessage) -> None:
    """No acknowledgement."""


async def test_a_task_may_run_for_longer(api: Api, core: Api, stack: Stack, gated: str) -> None:
    """A consumer that holds its message for as long is cut off; the task runs on, once."""
    uid = api.post(gated, INPUT)
    eventually(lambda: runs(stack, uid, 1))
    connection = await aiormq.connect(stack.rabbitmq_url)
    channel = await connection.channel()
    queue = (await channel.queue_declare(exclusive=True)).queue or ""
    await channel.basic_consume(queue, _hold)
    await channel.basic_publish(b"held", routing_key=queue)
    await asyncio.wait({channel.closing}, timeout=CUT_OFF_WITHIN_SECONDS)
    assert "timed out" in str(channel.closing.exception())
    await connection.close()
    open_gate(stack, uid, 1)
    assert api.wait(uid).status_code == 200
    assert core.get(f"/api/tasks/{uid}").json()["attempt"] == 1
