"""Tasks that need more than any one GPU, and the agents that may have it.

The GPUs here are names that the engine can't find: a container that is given them fails to start, and says by that what
it was given.
"""

from pathlib import Path
from typing import Any

import pytest

from core.contract import queues
from core.contract.needs import Need
from demo.stack import Stack
from tests.e2e.agents import own_agent
from tests.e2e.api import Api
from tests.e2e.conftest import COPY, INPUT, ModelMaker
from tests.leaks import GPU_QUEUE, Leaks
from tests.waiting import eventually

FIRST, SECOND = "GPU-4d7a1b2c-0000-1111-2222-333344445555", "GPU-00aa11bb-9999-8888-7777-666655554444"
PAIR = queues.for_need(queues.UNFINISHED, Need(gpu_count=2))


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
        assert _waiting(leaks) == {PAIR: 1}
        assert core.call("POST", f"/api/tasks/{before}/cancel").status_code == 200
        assert api.wait(uid).status_code == 552
        [attempt] = _task(core, uid)["attempts"]
        assert sorted(attempt["gpus"]) == sorted([FIRST, SECOND])
        assert attempt["failure"]["reason"] == "gpu_unavailable"
        assert not agent.said("message.dropped")
        assert core.delete(between).status_code == 200
    leaks.purge(PAIR)


def test_agents_learn_of_new_needs(api: Api, stack: Stack, model: ModelMaker, leaks: Leaks, tmp_path: Path) -> None:
    """Those who can serve a model that is registered while they run listen for its tasks soon."""
    queue = queues.for_need(queues.UNFINISHED, Need(gpu_count=3))
    with own_agent(stack, tmp_path, "triple", GPU_UUID=f"{FIRST},{SECOND},GPU-3"):
        triple = model(COPY, use_gpu="true", gpu_count="3", max_attempts="1")
        assert api.wait(api.post(triple, INPUT)).status_code == 552
        assert leaks.messages(queue) == 0


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
