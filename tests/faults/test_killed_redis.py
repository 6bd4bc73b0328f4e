"""kill -9 of Redis, which comes back with its append-only file."""

from pathlib import Path

from redis import Redis

from core.store.blobs import CHUNK_BYTES
from demo.stack import Stack
from tests.direct import keys_in
from tests.e2e.agents import own_agent
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT
from tests.faults.gates import open_gate, runs
from tests.faults.kills import kill, wait_until_back
from tests.faults.posting import half_posted
from tests.faults.transfers import BEGUN_BYTES, FILES, LARGE, let_time_pass
from tests.proxy import holding
from tests.waiting import eventually
from tests.zips import files_of


def test_under_tasks_that_wait_and_run(api: Api, core: Api, stack: Stack, gated: str) -> None:
    """Each runs once, and those that ran go on."""
    uids = [api.post(gated, INPUT) for _ in range(3)]
    eventually(lambda: sum(runs(stack, uid, 1) for uid in uids) == 2)
    kill(stack, "redis")
    wait_until_back(stack, "redis")
    for uid in sorted(uids, key=lambda uid: not runs(stack, uid, 1)):
        open_gate(stack, uid, 1)
        answer = api.wait(uid)
        assert answer.status_code == 200
        assert files_of(answer.content).items() >= files_of(INPUT).items()
        assert core.get(f"/api/tasks/{uid}").json()["attempt"] == 1


def test_under_a_post(api: Api, stack: Stack, redis: Redis, gated: str) -> None:
    """What was stored before is there after: the post goes on, and the task has all of its input."""
    before = len(keys_in(redis, "chunk:*"))
    with half_posted(stack, gated, LARGE) as post:
        whole_chunks = (len(LARGE) - len(post.rest)) // CHUNK_BYTES
        eventually(lambda: len(keys_in(redis, "chunk:*")) == before + whole_chunks)
        kill(stack, "redis")
        wait_until_back(stack, "redis")
        post.send_rest()
        status, uid = post.answer()
    assert status == 200
    task = uid.decode().strip('"')
    open_gate(stack, task, 1)
    assert files_of(api.wait(task).content) == {**FILES, "opened": b"1\n"}


def test_under_an_output(api: Api, core: Api, stack: Stack, redis: Redis, gated: str, tmp_path: Path) -> None:
    """The agent delivers again."""
    with (
        holding(stack.ports.core, up_after=BEGUN_BYTES) as proxy,
        own_agent(stack, tmp_path, "delivering", CORE_URL=proxy.url),
    ):
        uid = api.post(gated, LARGE)
        open_gate(stack, uid, 1)
        proxy.wait_until_it_holds()
        kill(stack, "redis")
        proxy.release()
        wait_until_back(stack, "redis")
        answer = api.wait(uid)
        assert answer.status_code == 200
        assert files_of(answer.content) == {**FILES, "opened": b"1\n"}
    assert core.get(f"/api/tasks/{uid}").json()["attempt"] == 1
    let_time_pass(redis)
