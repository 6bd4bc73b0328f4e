"""An agent that stands still for longer than its lease, and goes on."""

from typing import Any

import pytest

from demo.image import docker
from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT
from tests.faults.gates import open_gate, runs
from tests.faults.kills import frozen
from tests.waiting import eventually
from tests.zips import files_of, zip_of


def _task(core: Api, uid: str) -> dict[str, Any]:
    task: dict[str, Any] = core.get(f"/api/tasks/{uid}").json()
    return task


@pytest.mark.parametrize("is_done", [False, True], ids=["its container still runs", "its container has ended"])
def test_its_attempt_is_over(is_done: bool, api: Api, core: Api, stack: Stack, gated: str) -> None:
    """What it has left goes, its output is refused, and the only result is its successor's."""
    uid = api.post(gated, INPUT)
    eventually(lambda: runs(stack, uid, 1))
    [attempt] = _task(core, uid)["attempts"]
    agent = attempt["agent"].split(".")[0]
    with frozen(stack, agent):
        if is_done:
            open_gate(stack, uid, 1)
            eventually(lambda: not runs(stack, uid, 1))
        eventually(lambda: runs(stack, uid, 2))
    eventually(lambda: not docker(stack.docker_host, "ps", "--all", "--quiet", "--filter", f"name={uid}-1"))
    eventually(lambda: not docker(stack.docker_host, "volume", "ls", "--quiet", "--filter", f"name={uid}-1"))
    late = core.call("POST", f"/api/tasks/{uid}/attempts/1/output", data=zip_of({"opened": b"late"}))
    assert late.status_code == 409
    assert _task(core, uid)["state"] == "running"
    open_gate(stack, uid, 2)
    answer = api.wait(uid)
    assert (answer.status_code, files_of(answer.content)["opened"]) == (200, b"2\n")
    lost, ended = _task(core, uid)["attempts"]
    assert (lost["failure"]["reason"], ended["failure"]) == ("agent_lost", None)
    assert lost["agent"] != ended["agent"]
