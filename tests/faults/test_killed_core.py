"""kill -9 of core between two steps."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
from redis import Redis

from core.store import keys
from demo.stack import Stack
from tests.e2e.agents import own_agent
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT
from tests.faults.gates import open_gate
from tests.faults.kills import frozen, kill, wait_until_back
from tests.faults.posting import half_posted
from tests.faults.transfers import BEGUN_BYTES, FILES, LARGE, let_time_pass, loose
from tests.proxy import holding
from tests.waiting import eventually
from tests.zips import files_of

FETCHING, DELIVERING = {"down_after": BEGUN_BYTES}, {"up_after": BEGUN_BYTES}


def _times_rung_again(stack: Stack, uid: str) -> int:
    lines = stack.log("core").read_text().splitlines()
    return sum("sweep.repaired" in line and uid in line for line in lines)


def test_between_commit_and_message(api: Api, stack: Stack, redis: Redis, copying: str) -> None:
    """The client got no uid and the broker no message; the task is there, is rung by the next core, and ends."""
    with ThreadPoolExecutor() as pool, frozen(stack, "rabbitmq"):
        posting = pool.submit(api.call, "POST", "/api/tasks/", params={"model_human_readable_id": copying}, zip=INPUT)
        eventually(lambda: redis.keys(keys.task("*")))
        [uid] = cast(list[bytes], redis.zrange(keys.TASKS, 0, -1))
        kill(stack, "core")
        assert posting.result().status_code == 503
        kill(stack, "rabbitmq")  # and with it what core may have sent
    wait_until_back(stack, "rabbitmq")
    wait_until_back(stack, "core")
    let_time_pass(redis)
    assert api.wait(uid.decode()).status_code == 200
    assert _times_rung_again(stack, uid.decode()) == 1


def test_after_an_answer_that_rang_nobody(api: Api, stack: Stack, redis: Redis, copying: str) -> None:
    """The broker was away, so the task is answered unrung: the next core rings it."""
    stack.stop("rabbitmq")
    uid = api.post(copying, INPUT)
    kill(stack, "core")
    stack.start("rabbitmq")
    wait_until_back(stack, "core")
    let_time_pass(redis)
    assert api.wait(uid).status_code == 200
    assert _times_rung_again(stack, uid) == 1


def test_in_a_post(core: Api, stack: Stack, redis: Redis, copying: str) -> None:
    """The client is told so; the half of its zip that is stored goes when its writer is late."""
    with half_posted(stack, copying, LARGE) as post:
        eventually(lambda: loose(redis))
        kill(stack, "core")
        status, _ = post.answer()
        assert status == 503
    wait_until_back(stack, "core")
    assert core.get("/api/tasks/").json() == []
    assert len(loose(redis)) == 1
    let_time_pass(redis)


@pytest.mark.parametrize("phase", [FETCHING, DELIVERING], ids=["fetching", "delivering"])
def test_in_an_agents_transfer(
    phase: dict[str, int], api: Api, core: Api, stack: Stack, redis: Redis, gated: str, tmp_path: Path
) -> None:
    """The agent goes on when core is back: no attempt is lost, and the bytes are right."""
    with holding(stack.ports.core, **phase) as proxy, own_agent(stack, tmp_path, "patient", CORE_URL=proxy.url):
        uid = api.post(gated, LARGE)
        if phase is DELIVERING:
            open_gate(stack, uid, 1)
        proxy.wait_until_it_holds()
        kill(stack, "core")
        proxy.release()
        wait_until_back(stack, "core")
        if phase is FETCHING:
            open_gate(stack, uid, 1)
        answer = api.wait(uid)
        assert answer.status_code == 200
        assert files_of(answer.content) == {**FILES, "opened": b"1\n"}
    [attempt] = core.get(f"/api/tasks/{uid}").json()["attempts"]
    assert attempt["failure"] is None
    let_time_pass(redis)
