"""Core that stands still in the middle of a call."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from core.contract import queues
from demo.stack import Stack
from tests.e2e.agents import own_agent
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT
from tests.leaks import Leaks
from tests.waiting import eventually


def test_a_claim_in_flight_is_handed_back(
    api: Api, core: Api, stack: Stack, leaks: Leaks, copying: str, tmp_path: Path
) -> None:
    """An agent that is told to end while core makes its claim gives it back: it costs no try and waits for no lease."""
    for agent in ("agent-1", "agent-2"):
        stack.stop(agent)
    uid = api.post(copying, INPUT)
    leaks.purge(queues.UNFINISHED)
    frozen = stack.pid("core")
    try:
        with own_agent(stack, tmp_path, "claiming", DRAIN_SECONDS="0.2") as ending:
            eventually(lambda: leaks.consumers(queues.UNFINISHED) == 1)
            os.kill(frozen, signal.SIGSTOP)
            leaks.publish(queues.UNFINISHED, uid.encode())
            eventually(lambda: leaks.messages(queues.UNFINISHED) == 0)
            ending.process.send_signal(signal.SIGTERM)
            eventually(lambda: ending.said("agent.draining"))
            os.kill(frozen, signal.SIGCONT)
            assert ending.process.wait(timeout=60) == 0
            assert ending.said("task.handed_back")
            task = core.get(f"/api/tasks/{uid}").json()
            assert (task["state"], task["failure"]) == ("pending", None)
    finally:
        os.kill(frozen, signal.SIGCONT)
    assert api.wait(uid).status_code == 200


def test_who_waits_hears_of_the_end_through_another_core(api: Api, core: Api, stack: Stack, gated: str) -> None:
    """The one that was to tell of it is stopped and started meanwhile."""
    uid = api.post(gated, INPUT)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(api.call, "GET", f"/api/tasks/{uid}", params={"wait": "60"})
        time.sleep(0.5)
        stack.restart("core")
        assert not waiting.done()
        core.call("POST", f"/api/tasks/{uid}/cancel").raise_for_status()
        assert waiting.result().status_code == 552
