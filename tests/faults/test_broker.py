"""RabbitMQ that stands still: it answers nothing, and its connections stay open."""

import time

from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT, ModelMaker
from tests.faults.kills import frozen
from tests.waiting import eventually

PROMPT_SECONDS = 10
"""Far above the two seconds that a post waits for RabbitMQ, far below a heartbeat's end."""

HEARTBEATS_SECONDS = 90


def test_a_frozen_broker_holds_up_nothing_but_itself(api: Api, stack: Stack, model: ModelMaker) -> None:
    """Posts are answered, a running task ends, and afterwards every slot takes tasks again, in the same processes."""
    names = ("core", "agent-1", "agent-2")
    pids = {name: stack.pid(name) for name in names}

    def times_lost(name: str) -> int:
        return stack.log(name).read_text().count('"broker.lost"')

    before = {name: times_lost(name) for name in names}
    running = api.post(model("sleep 4; echo done > /output/done"), INPUT)
    eventually(lambda: stack.log("core").read_text().count(f'{running}", "attempt": 1, "agent"'))
    with frozen(stack, "rabbitmq"):
        posted_at = time.monotonic()
        posted = api.post(model("echo done > /output/done"), INPUT)
        assert time.monotonic() - posted_at < PROMPT_SECONDS
        assert api.wait(running).status_code == 200
        eventually(lambda: all(times_lost(name) > before[name] for name in names), within_seconds=HEARTBEATS_SECONDS)
    assert api.wait(posted).status_code == 200
    slow = model("sleep 2; echo done > /output/done")
    both = [api.post(slow, INPUT) for _ in range(2)]
    assert [api.wait(uid).status_code for uid in both] == [200, 200]
    assert {name: stack.pid(name) for name in names} == pids
