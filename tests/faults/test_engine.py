"""A Docker engine that goes away under tasks that wait for it."""

import pytest

from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT
from tests.waiting import eventually

TASKS = 6
AGENTS = ("agent-1", "agent-2")


def test_a_host_without_its_engine_uses_up_no_tasks(api: Api, core: Api, stack: Stack, copying: str) -> None:
    """Its slots pause instead of failing one task after the other; when the engine is back, all of them run."""
    if "dockerd" not in {process.name for process in stack.status()}:
        pytest.skip("the machine's own engine isn't the tests' to stop: they have one of their own as root")

    def times_paused(name: str) -> int:
        return stack.log(name).read_text().count('"slot.paused"')

    before = {name: times_paused(name) for name in AGENTS}
    stack.stop("dockerd")
    try:
        uids = [api.post(copying, INPUT) for _ in range(TASKS)]
        eventually(lambda: all(times_paused(name) > before[name] for name in AGENTS))
        states = [core.get(f"/api/tasks/{uid}").json()["state"] for uid in uids]
        assert "failed" not in states
    finally:
        stack.start("dockerd")
    assert [api.wait(uid).status_code for uid in uids] == [200] * TASKS
