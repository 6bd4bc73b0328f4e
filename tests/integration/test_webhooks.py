"""The outbox of webhooks: whose turn it is, and which of a task's ends is told."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from core.contract.needs import ANY
from core.contract.options import Options
from core.contract.task import Failure, Reason, State
from core.dispatch import Dispatch
from core.store import Store, keys
from core.store.tasks import NewTask, Retried
from core.webhooks import ANSWER_SECONDS, AT_ONCE, AT_ONCE_TO_A_HOST, OUTPUT_SECONDS, Guard, Postman
from tests.integration.making import stored_blob
from tests.waiting import eventually_async
from tests.zips import zip_of

CANCELLED = Failure(reason=Reason.CANCELLED, message="")
HERE = Guard.of("127.0.0.0/8")


@dataclass
class Receiver:
    """Takes what it is told, when it has done what the test wants first."""

    first: Callable[[], Awaitable[None]] | None = None
    status: int = 204
    told: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    open: int = 0
    most_open: int = 0
    port: int = 0

    @asynccontextmanager
    async def listening(self, host: str = "127.0.0.1") -> AsyncIterator["Receiver"]:
        app = web.Application()
        app.router.add_post("/", self._take)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, host, 0)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            event = json.loads(await request.read())
            if self.first:
                await self.first()
        finally:
            self.open -= 1
        self.told.append(event)
        self.ids.append(request.headers["webhook-id"])
        return web.Response(status=self.status)


@asynccontextmanager
async def _delivering(store: Store) -> AsyncIterator[None]:
    async with Postman.open(store.webhooks, HERE) as postman:
        delivering = asyncio.create_task(postman.deliver_for_ever())
        try:
            yield
        finally:
            delivering.cancel()
            await asyncio.wait([delivering])


async def _pending(store: Store, receiver: Receiver, host: str = "127.0.0.1") -> str:
    uid = secrets.token_urlsafe(32)
    options = Options(webhook=f"http://{host}:{receiver.port}/", webhook_secret="s" * 24)
    await store.tasks.create(NewTask(uid, "copy", await stored_blob(store, uid), ANY, 3, options))
    return uid


async def _cancelled(store: Store, receiver: Receiver, host: str = "127.0.0.1") -> str:
    uid = await _pending(store, receiver, host)
    await store.tasks.cancel(uid, CANCELLED)
    await store.webhooks.add(uid, has_just_ended=True)
    return uid


async def _due_in(store: Store, uid: str) -> float | None:
    """Seconds."""
    now, _ = await store.connection.call("TIME")
    score = await store.connection.call("ZSCORE", keys.WEBHOOKS, uid)
    return None if score is None else float(score) - now


async def test_who_never_answers_holds_up_nobody_else(store: Store) -> None:
    """However many of its tasks have ended: it has few of the places, and no other waits for it."""
    never = asyncio.Event()

    async def wait() -> None:
        await never.wait()

    async with Receiver(wait).listening() as slow, Receiver().listening("127.0.0.2") as quick:
        for _ in range(AT_ONCE + 8):
            await _cancelled(store, slow)
        async with _delivering(store):
            await eventually_async(lambda: slow.open)
            uid = await _cancelled(store, quick, "127.0.0.2")
            await eventually_async(lambda: quick.told, within_seconds=ANSWER_SECONDS / 2)
        assert quick.told[0]["data"]["uid"] == uid
        assert slow.most_open == AT_ONCE_TO_A_HOST


async def test_who_is_quick_is_told_all(store: Store) -> None:
    """Also of more ends than it is told at once."""
    async with Receiver().listening() as receiver, _delivering(store):
        uids = {await _cancelled(store, receiver) for _ in range(3 * AT_ONCE_TO_A_HOST)}
        await eventually_async(lambda: len(receiver.told) == len(uids))
    assert {event["data"]["uid"] for event in receiver.told} == uids


@pytest.mark.parametrize("status", [204, 500])
async def test_an_end_is_told_that_comes_while_the_one_before_is(store: Store, status: int) -> None:
    """The task is tried again and cancelled again, the same attempt, before the receiver has answered."""
    uid = ""

    async def again() -> None:
        receiver.first = None
        assert await store.tasks.retry(uid) is Retried.PENDING
        await store.tasks.cancel(uid, CANCELLED)
        await store.webhooks.add(uid, has_just_ended=True)

    async with Receiver(again, status).listening() as receiver:
        uid = await _cancelled(store, receiver)
        async with _delivering(store):
            await eventually_async(lambda: len(receiver.told) == 2, within_seconds=5)
        assert len(set(receiver.ids)) == 2


@pytest.mark.parametrize("status", [204, 500])
async def test_how_an_earlier_end_was_told_is_not_noted(store: Store, status: int) -> None:
    """The task was tried again before the receiver has answered, and its next end is told from the start."""
    async with Receiver().listening() as receiver:
        uid = await _cancelled(store, receiver)
        [leased] = await store.webhooks.due(limit=1, lease_seconds=60)
        entry = await store.webhooks.entry(leased)
        assert entry is not None
        await store.tasks.retry(uid)
        await (store.webhooks.told(entry) if status == 204 else store.webhooks.again(entry, after_seconds=600))
        await store.tasks.cancel(uid, CANCELLED)
        await store.webhooks.add(uid, has_just_ended=True)
        async with _delivering(store):
            await eventually_async(lambda: receiver.told, within_seconds=5)


async def test_whoever_had_a_task_whose_next_end_has_come_leaves_its_entry(store: Store) -> None:
    """It saw the task while that was pending again, say."""
    async with Receiver().listening() as receiver:
        uid = await _cancelled(store, receiver)
    [leased] = await store.webhooks.due(limit=1, lease_seconds=60)
    await store.webhooks.add(uid, has_just_ended=True)
    await store.webhooks.postpone(leased, seconds=600)
    await store.webhooks.remove(leased)
    assert [entry.uid for entry in await store.webhooks.due(limit=1, lease_seconds=60)] == [uid]


async def test_an_output_that_comes_after_the_end_is_told(dispatch: Dispatch) -> None:
    """A consumer of version 1 sets the status first: the end waits a while for the output, and is told with it."""
    store = dispatch.store
    zip = zip_of({"scan.txt": b"content"})

    async def pieces() -> AsyncIterator[bytes]:
        yield zip

    async with Receiver().listening() as receiver:
        uid = await _pending(store, receiver)
        await dispatch.set_status(uid, State.RUNNING)
        await dispatch.set_status(uid, State.FINISHED)
        async with _delivering(store):
            async with asyncio.timeout(10):
                while not 30 < (await _due_in(store, uid) or 0) < OUTPUT_SECONDS - 0.5:
                    await asyncio.sleep(0.02)
            assert not receiver.told
            await dispatch.finish(uid, None, pieces())
            await eventually_async(lambda: receiver.told, within_seconds=5)
    [event] = receiver.told
    assert event["data"]["output_bytes"] == len(zip)


async def test_an_end_without_an_output_is_told_as_it_is(dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.webhooks.OUTPUT_SECONDS", 1)
    async with Receiver().listening() as receiver:
        uid = await _pending(dispatch.store, receiver)
        await dispatch.set_status(uid, State.FINISHED)
        async with _delivering(dispatch.store):
            await eventually_async(lambda: receiver.told, within_seconds=10)
    assert (receiver.told[0]["type"], receiver.told[0]["data"]["output_bytes"]) == ("task.finished", None)
