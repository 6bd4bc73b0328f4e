"""Tasks that need more than any one GPU, and the agents that may have it.

The GPUs here are names that the engine can't find: a container that is given them fails to start, and says by that what
it was given.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import SecretStr

from core.amqp import Broker
from core.client import CoreClient
from core.contract import queues
from core.contract.needs import Need
from demo.stack import Stack
from gpu_agent.agent import Agent
from gpu_agent.engine import Engine
from gpu_agent.gpus import Gpus
from gpu_agent.pool import Pool, Slot
from gpu_agent.settings import Settings
from tests.e2e.agents import own_agent
from tests.e2e.api import Api
from tests.e2e.conftest import COPY, INPUT, ModelMaker
from tests.leaks import GPU_QUEUE, Leaks
from tests.waiting import eventually

FIRST, SECOND = "GPU-4d7a1b2c-0000-1111-2222-333344445555", "GPU-00aa11bb-9999-8888-7777-666655554444"
THIRD = "GPU-00112233-4444-5555-6666-777788889999"
PAIR, TRIPLE = (queues.for_need(queues.UNFINISHED, Need(gpu_count=count)) for count in (2, 3))


@pytest.fixture(scope="module")
def pair(model: ModelMaker) -> str:
    """A model for two GPUs."""
    return model(COPY, use_gpu="true", gpu_count="2", max_attempts="1")


def _task(core: Api, uid: str) -> dict[str, Any]:
    task: dict[str, Any] = core.get(f"/api/tasks/{uid}").json()
    return task


def _waiting(leaks: Leaks) -> dict[str, int]:
    return {queue: count for queue in (queues.UNFINISHED, GPU_QUEUE, PAIR) if (count := leaks.messages(queue))}


def test_a_task_for_two_gpus_waits_for_an_agent_with_two(
    api: Api, core: Api, stack: Stack, copying: str, pair: str, leaks: Leaks, tmp_path: Path
) -> None:
    """An agent with one leaves it alone and does other tasks; the task says what is missing. Its clients see 551."""
    with own_agent(stack, tmp_path, "single", GPU_UUID=FIRST) as agent:
        uid = api.post(pair, INPUT)
        assert api.wait(api.post(copying, INPUT)).status_code == 200
        task = _task(core, uid)
        assert (task["state"], task["need"]) == ("pending", {"gpu_count": 2, "gpu_memory_mb": None})
        assert task["waits_for"] == "2 GPUs: the largest agent there has 1 of unknown memory"
        assert task in core.get("/api/tasks/").json()
        assert api.get(f"/api/tasks/{uid}").json() == {"detail": {"detail": "Job status is 'pending' or 'running'"}}
        assert _waiting(leaks) == {PAIR: 1}
        assert leaks.consumers(PAIR) == 0
        assert not agent.said("message.dropped")
    assert core.delete(uid).status_code == 200
    leaks.purge(PAIR)


def test_a_task_for_two_gpus_gets_both(
    api: Api, core: Api, stack: Stack, model: ModelMaker, pair: str, leaks: Leaks, tmp_path: Path
) -> None:
    """As soon as the task before it has ended, and nobody comes between; it was claimed once and asked nobody else."""
    with own_agent(stack, tmp_path, "pair", GPU_UUID=f"{FIRST},{SECOND}") as agent:
        before = api.post(model("sleep 1000"), INPUT)
        eventually(lambda: agent.said("container.started"))
        uid = api.post(pair, INPUT)
        eventually(lambda: _task(core, uid)["attempts"] and not _task(core, uid)["attempts"][0]["gpus"])
        between = api.post(pair, INPUT)
        assert _task(core, between)["waits_for"] is None
        [known] = [known for known in core.get("/api/agents/").json() if known["name"] == "pair"]
        assert ([gpu["uuid"] for gpu in known["gpus"]], known["slots"]) == ([FIRST, SECOND], 2)
        assert known["is_there"]
        eventually(lambda: _waiting(leaks) == {PAIR: 1})  # a busy slot may have looked at it
        assert core.call("POST", f"/api/tasks/{before}/cancel").status_code == 200
        assert api.wait(uid).status_code == 552
        [attempt] = _task(core, uid)["attempts"]
        assert sorted(attempt["gpus"]) == sorted([FIRST, SECOND])
        assert attempt["failure"]["reason"] == "gpu_unavailable"
        assert not agent.said("message.dropped")
        assert core.delete(between).status_code == 200
    leaks.purge(PAIR)


def test_a_drained_agent_hands_back_what_waits_for_gpus(
    api: Api, core: Api, stack: Stack, model: ModelMaker, pair: str, leaks: Leaks, tmp_path: Path
) -> None:
    """At once: it would only begin when the agent is to end. What runs may end."""
    with own_agent(stack, tmp_path, "drained", GPU_UUID=f"{FIRST},{SECOND}") as agent:
        running = api.post(model("sleep 1000"), INPUT)
        eventually(lambda: agent.said("container.started"))
        uid = api.post(pair, INPUT)
        eventually(lambda: _task(core, uid)["state"] == "running")
        agent.process.terminate()
        eventually(lambda: _task(core, uid)["state"] == "pending")
        assert _task(core, running)["state"] == "running"
        assert _waiting(leaks) == {PAIR: 1}
        for task in (uid, running):
            assert core.delete(task).status_code == 200
    leaks.purge(PAIR)


@pytest.fixture
async def driver(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Path]:
    """An agent in this process, beside the stack's: the folder of its driver, which has three GPUs."""
    driver = tmp_path / "driver"
    for address, uuid in (("0000:19:00.0", FIRST), ("0000:8a:00.0", SECOND), ("0000:b0:00.0", THIRD)):
        (driver / "gpus" / address).mkdir(parents=True)
        (driver / "gpus" / address / "information").write_text(f"Model: NVIDIA H200\nGPU UUID: {uuid}\n")
    (driver / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19\n")
    for seconds in ("GPU_SECONDS", "REPORT_SECONDS"):
        monkeypatch.setattr(f"gpu_agent.agent.{seconds}", 0.1)
    settings = Settings(
        core_url=stack.core_url,
        core_token_file=stack.token_file,
        rabbitmq_url=SecretStr(stack.rabbitmq_url),
        docker_host=stack.docker_host,
        agent_name="watched",
        work_dir=tmp_path,
    )
    gpus = await Gpus.of(settings, driver=driver)
    pool = Pool(Slot(gpu.uuid, gpu) for gpu in gpus.all)
    async with (
        CoreClient.open(settings) as core,
        Broker.open(settings) as broker,
        Engine.open(stack.docker_host, slots=3, pull_stall_seconds=1) as engine,
    ):
        running = asyncio.create_task(Agent(settings, gpus, pool, core, broker, engine).run())
        yield driver
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_a_gpu_that_vanishes_is_drained_and_reported(
    driver: Path, api: Api, core: Api, model: ModelMaker, leaks: Leaks
) -> None:
    """Nobody listens with it, core and the tasks say why, and the others go on; until it is back. Models that are
    registered meanwhile are listened for at once.
    """
    triple = model(COPY, use_gpu="true", gpu_count="3", max_attempts="1")

    def watched() -> dict[str, Any]:
        [known] = [known for known in core.get("/api/agents/").json() if known["name"] == "watched"]
        return cast(dict[str, Any], known)

    def listen(gpu: int, triple: int) -> bool:
        return (leaks.consumers(GPU_QUEUE), leaks.consumers(TRIPLE)) == (gpu, triple)

    async def soon(condition: Callable[[], object]) -> None:
        await asyncio.to_thread(eventually, condition)

    await soon(lambda: listen(gpu=3, triple=3))
    assert (watched()["driver"], watched()["gpus"][1]["name"]) == ("535.129.03", "NVIDIA H200")
    information = driver / "gpus" / "0000:8a:00.0" / "information"
    text = information.read_text()
    information.unlink()
    await soon(lambda: listen(gpu=2, triple=0))
    await soon(lambda: [bool(gpu["problem"]) for gpu in watched()["gpus"]] == [False, True, False])
    uid = await asyncio.to_thread(api.post, triple, INPUT)
    words = _task(core, uid)["waits_for"]
    assert words.startswith(f"3 GPUs that are well: watched: {SECOND}: ")
    information.write_text(text)
    await soon(lambda: _task(core, uid)["attempt"])
    await soon(lambda: _task(core, uid)["state"] == "failed")
    assert sorted(_task(core, uid)["attempts"][0]["gpus"]) == sorted([FIRST, SECOND, THIRD])
    assert _task(core, uid)["attempts"][0]["driver"] == "535.129.03"
