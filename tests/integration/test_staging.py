"""When a busy slot listens for its next task, and for how long it keeps the message."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr
from structlog.testing import capture_logs

from core.amqp import Broker, Depth
from core.client import CoreClient
from core.contract.http import Staged
from core.contract.model import Model
from core.contract.needs import ANY
from core.contract.task import Task
from gpu_agent import staging
from gpu_agent.disks import Disks
from gpu_agent.engine import Engine
from gpu_agent.host import Host
from gpu_agent.images import Images
from gpu_agent.job import Job
from gpu_agent.pool import Hold, Pool, Slot
from gpu_agent.settings import Settings
from gpu_agent.staging import Stage
from gpu_agent.volumes import Volumes

TASK = Task(uid=secrets.token_urlsafe(32), model_human_readable_id="m", datetime_created=datetime.now(UTC))
MODEL = Model(id=1, uid="y" * 43, human_readable_id="m", container_tag="m:1", use_gpu=False)
SECONDS = 10


@asynccontextmanager
async def _host(folder: Path, *, stages: bool = True) -> AsyncIterator[Host]:
    """Its core shows the task, if it is new enough to; its engine is away, so that nothing is ever ready."""

    async def stage(_: web.Request) -> web.Response:
        return web.json_response(text=Staged(task=TASK, model=MODEL).model_dump_json())

    app = web.Application()
    if stages:
        app.router.add_post("/api/tasks/{uid}/stage", stage)
    async with TestServer(app) as server, Engine.open("unix:///nowhere", slots=1, pull_stall_seconds=1) as engine:
        settings = Settings(core_url=str(server.make_url("")), core_token=SecretStr("token"), work_dir=folder)
        async with CoreClient.open(settings) as core:
            volumes = Volumes(engine, folder, settings.agent_name, is_shared=True)
            yield Host(settings, core, engine, volumes, Images(engine, folder), Disks(folder, min_free_mb=0))


@asynccontextmanager
async def _behind(broker: Broker, host: Host) -> AsyncIterator[tuple[Job, "asyncio.Task[str | None]"]]:
    """A job whose container runs, and whose message is staged behind it when its GPUs are free."""
    job = Job(TASK, MODEL, host)
    job.ready.set()
    queue = broker.settings.unfinished_job_queue
    slot = Slot("cpu-1")
    stage = Stage(host, broker, Pool([slot]), Hold((slot,)), lambda _: {queue: ANY}, stop=asyncio.Event())

    async def after() -> str | None:
        async with stage.after(job, earlier=None) as staged:
            return staged.message.uid if staged else None

    async with asyncio.timeout(SECONDS):
        waiting = asyncio.create_task(after())
        yield job, waiting
        job.freed.set()
        await waiting


async def _until(broker: Broker, *, messages: int, consumers: int) -> None:
    queue = broker.settings.unfinished_job_queue
    while (depth := await broker.depth(queue)).messages != messages or depth.consumers != consumers:
        await asyncio.sleep(0.01)


async def test_a_message_is_kept_until_the_gpu_is_free(broker: Broker, tmp_path: Path) -> None:
    """Whatever else failed: the claim will tell. Unless it is claimed, it goes back."""
    await broker.publish(broker.settings.unfinished_job_queue, TASK.uid)
    with capture_logs() as logs:
        async with _host(tmp_path) as host, _behind(broker, host) as (job, waiting):
            while not any(line["event"] == "task.staged" for line in logs):
                await asyncio.sleep(0.01)
            assert await broker.depth(broker.settings.unfinished_job_queue) == Depth(messages=0, consumers=0)
            job.freed.set()
            assert await waiting == TASK.uid
            await _until(broker, messages=1, consumers=0)


async def test_a_message_is_kept_for_a_while_only(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it goes back, and the slot, to which it would be redelivered first, listens no more."""
    monkeypatch.setattr(staging, "STAGED_SECONDS", 0.2)
    await broker.publish(broker.settings.unfinished_job_queue, TASK.uid)
    async with _host(tmp_path) as host, _behind(broker, host) as (job, waiting):
        await _until(broker, messages=0, consumers=0)
        await _until(broker, messages=1, consumers=0)
        job.freed.set()
        assert await waiting is None


async def test_behind_a_long_task_nobody_listens(broker: Broker, tmp_path: Path) -> None:
    """Until its end is near, by what its model took the last time."""
    await broker.publish(broker.settings.unfinished_job_queue, TASK.uid)
    async with _host(tmp_path) as host:
        host.seconds[MODEL.uid] = 1000
        async with _behind(broker, host) as (job, waiting):
            await _until(broker, messages=1, consumers=0)
            job.freed.set()
            assert await waiting is None


async def test_a_core_of_an_older_version_shows_no_task(broker: Broker, tmp_path: Path) -> None:
    """Its agents stage nothing."""
    async with _host(tmp_path, stages=False) as host, _behind(broker, host) as (job, waiting):
        await _until(broker, messages=0, consumers=1)
        await broker.publish(broker.settings.unfinished_job_queue, TASK.uid)
        await _until(broker, messages=1, consumers=0)
        job.freed.set()
        assert await waiting is None
