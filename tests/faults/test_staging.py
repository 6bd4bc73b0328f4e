"""A task that is made ready behind the one that runs: it starts when that has ended, and is nobody's until then."""

import signal
from pathlib import Path
from typing import Any

from redis import Redis

from core.contract import queues
from demo.image import docker
from demo.stack import Stack
from tests.e2e.agents import OwnAgent, own_agent
from tests.e2e.api import Api
from tests.e2e.conftest import AGENTS, INPUT
from tests.faults.gates import open_gate, runs
from tests.faults.transfers import let_time_pass
from tests.leaks import Leaks
from tests.waiting import eventually
from tests.zips import files_of

OUTPUT = {**files_of(INPUT), "measurements/": b"", "opened": b"1\n"}
"""Of a first attempt."""


def _output(api: Api, uid: str) -> dict[str, bytes]:
    return files_of(api.wait(uid).content)


def _task(core: Api, uid: str) -> dict[str, Any]:
    task: dict[str, Any] = core.get(f"/api/tasks/{uid}").json()
    return task


def _containers(stack: Stack, uid: str) -> list[str]:
    """State and the agent's name of each, whatever the attempt."""
    named = f"name=^/inference-server-{uid}-"
    form = '{{.State}} {{.Label "inference-server.agent"}}'
    return sorted(docker(stack.docker_host, "ps", "--all", "--filter", named, "--format", form).splitlines())


def _two(api: Api, stack: Stack, agent: OwnAgent, gated: str) -> tuple[str, str]:
    """One that runs, and one that is ready behind it."""
    first = api.post(gated, INPUT)
    eventually(lambda: runs(stack, first, 1))
    second = api.post(gated, INPUT)
    eventually(lambda: _containers(stack, second) == [f"created {agent.environment['AGENT_NAME']}"])
    return first, second


def test_it_starts_as_soon_as_the_one_before_has_ended(
    api: Api, core: Api, stack: Stack, gated: str, leaks: Leaks, tmp_path: Path
) -> None:
    """What was made ready is what runs; until then the task is pending, and its message in no queue."""
    with own_agent(stack, tmp_path, "staging") as agent:
        first, second = _two(api, stack, agent, gated)
        assert (_task(core, second)["state"], leaks.messages(queues.UNFINISHED)) == ("pending", 0)
        [id] = docker(stack.docker_host, "ps", "-aq", "--filter", f"name={second}").split()
        open_gate(stack, first, 1)
        eventually(lambda: runs(stack, second, 1))
        assert docker(stack.docker_host, "ps", "-q", "--filter", f"name={second}").split() == [id]
        open_gate(stack, second, 1)
        assert [_output(api, uid) for uid in (first, second)] == [OUTPUT, OUTPUT]
        assert agent.times_said("container.started") == 2


def test_it_goes_back_when_its_agent_stops(
    api: Api, core: Api, stack: Stack, gated: str, leaks: Leaks, tmp_path: Path
) -> None:
    """At once, and nothing of it stays, though the other one runs on."""
    with own_agent(stack, tmp_path, "stopping") as agent:
        first, second = _two(api, stack, agent, gated)
        agent.process.send_signal(signal.SIGTERM)
        eventually(lambda: not _containers(stack, second) and leaks.messages(queues.UNFINISHED) == 1)
        assert runs(stack, first, 1)
        open_gate(stack, first, 1)
        assert agent.process.wait(timeout=60) == 0
        assert (api.get(f"/api/tasks/{first}").status_code, _task(core, second)["attempt"]) == (200, 0)
    open_gate(stack, second, 1)
    assert api.wait(second).status_code == 200


def test_its_client_may_delete_it(api: Api, stack: Stack, gated: str, tmp_path: Path) -> None:
    """It never starts, and the slot takes the next one."""
    with own_agent(stack, tmp_path, "deleted") as agent:
        first, second = _two(api, stack, agent, gated)
        assert api.delete(second).status_code == 200
        third = api.post(gated, INPUT)
        open_gate(stack, first, 1)
        open_gate(stack, third, 1)
        assert [api.wait(uid).status_code for uid in (first, third)] == [200, 200]
        assert not _containers(stack, second)
        assert agent.times_said("container.started") == 2


def test_a_killed_agent_loses_and_leaves_nothing(
    api: Api, core: Api, stack: Stack, gated: str, leaks: Leaks, redis: Redis, tmp_path: Path
) -> None:
    """kill -9 with one that runs and one that is staged: both end elsewhere, the second as its first attempt."""
    work = stack.folder / "work"
    [name] = [lock.stem for lock in work.glob("agent-2.*.lock")]
    with own_agent(stack, tmp_path, name, WORK_DIR=str(work)) as agent:
        first, second = _two(api, stack, agent, gated)
        agent.process.kill()
        agent.process.wait()
        assert len([line for line in leaks.found() if line.startswith(f"container {name}")]) == 2
        stack.start("agent-1")
        open_gate(stack, second, 1)
        open_gate(stack, first, 2)
        assert [api.wait(uid).status_code for uid in (first, second)] == [200, 200]
    assert [len(_task(core, uid)["attempts"]) for uid in (first, second)] == [2, 1]
    let_time_pass(redis)


def test_two_agents_may_stage_the_same(api: Api, core: Api, stack: Stack, gated: str, leaks: Leaks) -> None:
    """On one engine, because its message was doubled: one of them runs it, on its own input, and the other drops it."""
    running = [api.post(gated, INPUT) for _ in AGENTS]
    eventually(lambda: all(runs(stack, uid, 1) for uid in running))
    both = api.post(gated, INPUT)
    leaks.publish(queues.UNFINISHED, both.encode())
    eventually(lambda: [line.split()[0] for line in _containers(stack, both)] == ["created", "created"])
    open_gate(stack, running[0], 1)
    eventually(lambda: runs(stack, both, 1))
    open_gate(stack, running[1], 1)
    eventually(lambda: len(_containers(stack, both)) == 1)
    open_gate(stack, both, 1)
    assert _output(api, both) == OUTPUT
    assert len(_task(core, both)["attempts"]) == 1
    assert [api.wait(uid).status_code for uid in running] == [200, 200]
