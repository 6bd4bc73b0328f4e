"""What the agent does with its folders when the disk below them fails."""

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from core.client import CoreAccess, CoreClient
from core.contract.http import Noted
from core.contract.model import Model
from core.contract.task import Task
from gpu_agent.engine import Engine, EngineAway
from gpu_agent.volumes import AttemptVolumes, OutputUnreadable, Volumes

SECONDS = 10
TASK = Task(uid="x" * 43, model_human_readable_id="m", datetime_created=datetime.now(UTC), attempt=1)
MODEL = Model(id=1, uid="y" * 43, human_readable_id="m", container_tag="m:1")
NO_ENGINE = "unix:///nowhere/docker.sock"


async def test_an_output_that_cannot_be_read_is_not_core_being_away(tmp_path: Path) -> None:
    """Core would be sent it for ever: it is the host that fails, whatever its disk says in the middle of the body."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response()

    output = tmp_path / "output"
    output.mkdir()
    (output / "a").write_bytes(os.urandom(2 << 20))
    (output / "b").touch()
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/{path:.*}", take)
    async with (
        asyncio.timeout(SECONDS),
        Engine.open(NO_ENGINE, slots=1, pull_stall_seconds=1) as engine,
        TestServer(app) as server,
        CoreClient.open(CoreAccess(core_url=str(server.make_url("")), core_token=SecretStr("token"))) as core,
    ):
        zip = await AttemptVolumes(TASK, MODEL, tmp_path, (), {}, engine, helper=None).output_zip()
        assert zip is not None
        await anext(zip)
        (output / "b").unlink()
        with pytest.raises(OutputUnreadable, match="No such file"):
            await core.finish(TASK.uid, 1, zip, Noted())


@pytest.mark.asyncio(loop_scope="function")  # with threads that begin here
async def test_what_cannot_be_removed_does_not_say_how_an_attempt_ended(unprivileged: Path) -> None:
    """Not in place of what ended it: the next sweep tries again."""
    stuck = unprivileged / "agents/a/name/stuck"
    stuck.mkdir(parents=True)
    (stuck / "file").touch()
    stuck.chmod(0o555)
    async with Engine.open(NO_ENGINE, slots=1, pull_stall_seconds=1) as engine:
        volumes = Volumes(engine, unprivileged, "a", is_shared=True)
        with pytest.raises(EngineAway):
            async with volumes.fresh("name", TASK, MODEL, {}) as fresh:
                await fresh.make()
        await volumes.remove_leftovers(set())
    assert stuck.exists()
