"""A Docker engine that goes away, and containers that end for others' reasons than their own."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from core.contract import queues
from demo.image import docker
from demo.stack import Stack
from tests.e2e.agents import OwnAgent, own_agent
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT, ModelMaker
from tests.lacking import needs_root
from tests.leaks import Leaks
from tests.waiting import eventually
from tests.zips import files_of

TASKS = 6
AGENTS = ("agent-1", "agent-2")
SLOW = "sleep 5; cp -R /input/. /output/"


@pytest.fixture
def own_engine() -> None:
    needs_root("start an engine that may be stopped")


def _started(stack: Stack, agent: OwnAgent) -> str:
    """The container of the agent's first attempt."""
    eventually(lambda: agent.said("container.started"))
    label = "label=inference-server.agent=" + agent.environment["AGENT_NAME"]
    return docker(stack.docker_host, "ps", "-q", "--filter", label).strip()


def _left(stack: Stack) -> str:
    of_agent = "label=inference-server.agent=ended"
    return docker(stack.docker_host, "ps", "--all", "--quiet", "--filter", of_agent) + docker(
        stack.docker_host, "volume", "ls", "--quiet", "--filter", of_agent
    )


def _restart_engine(stack: Stack, _: str) -> None:
    stack.restart("dockerd")


def _kill_engine(stack: Stack, container: str) -> None:
    """And the container, so that it is dead when the engine comes back."""
    pid = int(docker(stack.docker_host, "inspect", "--format", "{{.State.Pid}}", container))
    os.kill(stack.pid("dockerd"), signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)


def _kill_only_engine(stack: Stack, _: str) -> None:
    os.kill(stack.pid("dockerd"), signal.SIGKILL)


def _remove(stack: Stack, container: str) -> None:
    docker(stack.docker_host, "rm", "--force", container)


def _stop(stack: Stack, container: str) -> None:
    docker(stack.docker_host, "stop", "--time", "1", container)


@pytest.mark.usefixtures("own_engine")
def test_a_host_without_its_engine_uses_up_no_tasks(
    api: Api, core: Api, stack: Stack, leaks: Leaks, copying: str
) -> None:
    """Its slots pause instead of failing one task after the other; when the engine is back, all of them run."""

    def times_said(name: str, event: str) -> int:
        return stack.log(name).read_text().count(f'"{event}"')

    eventually(lambda: leaks.consumers(queues.UNFINISHED) == len(AGENTS))
    before = {name: times_said(name, "host.paused") for name in AGENTS}
    stack.stop("dockerd")
    try:
        uids = [api.post(copying, INPUT) for _ in range(TASKS)]
        eventually(lambda: all(times_said(name, "host.paused") > before[name] for name in AGENTS))
        states = [core.get(f"/api/tasks/{uid}").json()["state"] for uid in uids]
        assert "failed" not in states
    finally:
        stack.start("dockerd")
    assert [api.wait(uid).status_code for uid in uids] == [200] * TASKS


@pytest.mark.usefixtures("own_engine")
@pytest.mark.parametrize("end", [_restart_engine, _kill_engine, _kill_only_engine, _remove, _stop])
def test_what_others_end_is_tried_again(
    api: Api, core: Api, stack: Stack, model: ModelMaker, tmp_path: Path, end: Callable[[Stack, str], None]
) -> None:
    """An attempt whose container goes down with the engine, or by an operator's hand, is no fault of the model's."""
    with own_agent(stack, tmp_path, "ended") as agent:
        uid = api.post(model(SLOW), INPUT)
        end(stack, _started(stack, agent))
        result = api.wait(uid)
        assert result.status_code == 200
        assert files_of(result.content)["hello.txt"] == files_of(INPUT)["hello.txt"]
        task = core.get(f"/api/tasks/{uid}").json()
        assert (task["attempt"], agent.times_said("container.started")) == (2, 2)
        eventually(lambda: not _left(stack))
        assert agent.process.poll() is None


def test_a_container_that_ignores_sigterm_ends_all_the_same(api: Api, stack: Stack, model: ModelMaker) -> None:
    """When its time is over it is killed."""
    stubborn = model("trap '' TERM INT; echo begun; while true; do sleep 1; done", timeout_seconds="2")
    failure = api.failure(stubborn, INPUT)
    assert failure["reason"] == "timeout"
    assert "begun" in failure["message"]
