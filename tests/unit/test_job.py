"""How an attempt ends whose engine fails meanwhile."""

from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from core.client import CoreClient
from core.contract.model import Model
from core.contract.task import Reason, State, Task
from gpu_agent.disks import Disks
from gpu_agent.engine import Engine
from gpu_agent.host import Host
from gpu_agent.images import Images
from gpu_agent.job import Job
from gpu_agent.settings import Settings
from gpu_agent.volumes import Volumes


async def test_why_it_was_stopped_stands_without_its_log(tmp_path: Path) -> None:
    """The model's fault is none of an engine's that neither kills nor tells what the container printed."""

    async def fail(_: web.Request) -> web.Response:
        return web.json_response({"message": "out of order"}, status=500)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fail)
    settings = Settings(core_token=SecretStr("token"), agent_name="agent", work_dir=tmp_path)
    task = Task(uid="x" * 43, model_human_readable_id="m", state=State.RUNNING, datetime_created=datetime.now(UTC))
    model = Model(id=1, uid="y" * 43, human_readable_id="m", container_tag="m")
    async with (
        TestServer(app) as server,
        CoreClient.open(settings) as core,
        Engine.open(f"http://{server.host}:{server.port}", slots=1, pull_stall_seconds=1) as engine,
    ):
        volumes = Volumes(engine, tmp_path, "agent", is_shared=False)
        host = Host(settings, core, engine, volumes, Images(engine, tmp_path), Disks(tmp_path, min_free_mb=0))
        job = Job(task, model, host)
        async with job._telling:
            stopped = await job._stopped(Reason.DISK_LIMIT, "The model wrote too much")
    assert (stopped.failure.reason, stopped.failure.message) == (Reason.DISK_LIMIT, "The model wrote too much")
