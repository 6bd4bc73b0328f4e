"""What an agent and a core of another version make of each other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr
from structlog.testing import capture_logs

from core.amqp import Broker
from core.client import CoreClient
from core.contract.agent import AgentReport, Wanted
from core.contract.needs import Need
from gpu_agent.agent import Agent
from gpu_agent.engine import Engine
from gpu_agent.gpus import Gpus
from gpu_agent.pool import Pool, Slot
from gpu_agent.settings import Settings

PAIR = Need(gpu_count=2)


@asynccontextmanager
async def _agent(core_url: str, folder: Path) -> AsyncIterator[Agent]:
    """Without a broker and an engine."""
    settings = Settings(
        core_url=core_url, core_token=SecretStr("token"), work_dir=folder, agent_name="a", gpu_uuid="GPU-1,GPU-2"
    )
    gpus = await Gpus.of(settings, driver=folder / "none")
    pool = Pool(Slot(gpu.uuid, gpu) for gpu in gpus.all)
    async with (
        CoreClient.open(settings) as core,
        Engine.open("unix:///nowhere", slots=2, pull_stall_seconds=1) as engine,
    ):
        yield Agent(settings, gpus, pool, core, Broker(settings), engine)


def _core(*, hears: bool) -> tuple[TestServer, list[AgentReport]]:
    reports: list[AgentReport] = []

    async def hear(request: web.Request) -> web.Response:
        reports.append(AgentReport.model_validate_json(await request.read()))
        return web.json_response(text=Wanted(needs=(PAIR,)).model_dump_json())

    app = web.Application()
    if hears:
        app.router.add_post("/api/agents/", hear)
    return TestServer(app), reports


async def test_core_hears_who_the_agent_is(tmp_path: Path) -> None:
    """With what keeps it from taking tasks; the agent hears for what it may listen."""
    server, reports = _core(hears=True)
    async with server, _agent(str(server.make_url("")), tmp_path) as agent:
        await agent._report()
        queues = agent._queues(agent.pool.slots[0])
        assert queues[agent.broker.settings.queue_for(PAIR)] == PAIR
    [report] = reports
    assert ([gpu.uuid for gpu in report.gpus], report.slots, report.name) == (["GPU-1", "GPU-2"], 2, "a")
    assert report.problems.keys() >= {"engine", "broker"}


@pytest.mark.parametrize("is_there", [True, False])
async def test_a_core_that_doesnt_hear_disturbs_nothing(tmp_path: Path, is_there: bool) -> None:
    """It is away, or of an older version: the agent listens as before."""
    server, _ = _core(hears=False)
    async with server, _agent(str(server.make_url("")), tmp_path) as agent:
        before = agent._queues(agent.pool.slots[0])
        if not is_there:
            await server.close()
        with capture_logs() as logs:
            await agent._report()
        assert "agent.unheard" in [entry["event"] for entry in logs]
        assert agent._queues(agent.pool.slots[0]) == before
