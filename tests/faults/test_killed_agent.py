"""kill -9 of an agent, whatever it is at."""

from pathlib import Path

import pytest
from redis import Redis

from demo.stack import Stack
from tests.e2e.agents import own_agent
from tests.e2e.api import Api
from tests.faults.gates import open_gate, runs
from tests.faults.transfers import BEGUN_BYTES, FILES, LARGE, let_time_pass
from tests.leaks import Leaks
from tests.proxy import holding
from tests.waiting import eventually
from tests.zips import files_of

FILLING, RUNNING, DELIVERING = {"down_after": BEGUN_BYTES}, dict[str, int](), {"up_after": BEGUN_BYTES}


@pytest.mark.parametrize("phase", [FILLING, RUNNING, DELIVERING], ids=["filling", "running", "delivering"])
def test_its_task_runs_elsewhere(
    phase: dict[str, int], api: Api, core: Api, stack: Stack, leaks: Leaks, redis: Redis, gated: str, tmp_path: Path
) -> None:
    """Another agent ends it with the right bytes; what the dead one left goes when its name comes back."""
    work = stack.folder / "work"
    [name] = [lock.stem for lock in work.glob("agent-2.*.lock")]
    with (
        holding(stack.ports.core, **phase) as proxy,
        own_agent(stack, tmp_path, name, CORE_URL=proxy.url, WORK_DIR=str(work)) as agent,
    ):
        uid = api.post(gated, LARGE)
        if phase is DELIVERING:
            open_gate(stack, uid, 1)
        if phase is RUNNING:
            eventually(lambda: runs(stack, uid, 1))
        else:
            proxy.wait_until_it_holds()
        agent.process.kill()
        agent.process.wait()
        proxy.release()
        assert any(line.startswith(f"volume {name}") for line in leaks.found())
        stack.start("agent-1")
        open_gate(stack, uid, 2)
        answer = api.wait(uid)
        assert answer.status_code == 200
        assert files_of(answer.content) == {**FILES, "opened": b"2\n"}
    lost, ended = core.get(f"/api/tasks/{uid}").json()["attempts"]
    assert (lost["agent"], lost["failure"]["reason"]) == (f"{name}/cpu-1", "agent_lost")
    assert ended["agent"].startswith("agent-1.")
    assert ended["failure"] is None
    let_time_pass(redis)
