"""What somebody else writes into the queues of tasks: nothing loops, nobody stops, and what can't be a uid is kept."""

import re
import secrets
from collections.abc import Iterator

import pytest
import requests

from core.contract import queues
from demo.servers import DEAD_LETTERS
from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.conftest import AGENTS, INPUT
from tests.leaks import QUEUES, Leaks
from tests.waiting import eventually

UNREADABLE = re.compile(r"^inference_server_messages_unreadable_total (\S+)$", re.MULTILINE)


@pytest.fixture(autouse=True)
def letters(all_leaks: Leaks) -> Iterator[None]:
    """None are there before, and none stay."""
    all_leaks.purge(DEAD_LETTERS)
    yield
    all_leaks.purge(DEAD_LETTERS)
    assert [all_leaks.messages(queue) for queue in QUEUES] == [0] * len(QUEUES)


def unreadable(stack: Stack) -> float:
    """How many the agents have counted."""
    found = [UNREADABLE.findall(requests.get(stack.metrics_url(agent), timeout=10).text) for agent in AGENTS]
    return sum(float(count) for [count] in found)


GARBAGE = {
    "nothing": b"",
    "other bytes": b"\xff\xfe\x00",
    "NUL": b"\0" * 43,
    "a path": b"../../../etc/passwd",
    "a command": b"$(id)",
    "a line behind a uid": b"A" * 43 + b"\n",
    "a key": b"x}:input",
    "JSON": b'{"uid": "' + b"A" * 43 + b'"}',
    "other letters": "ü".encode() * 22,
    "a uid too long": b"A" * 65,
    "a megabyte": b"A" * 2**20,
    "a pickle": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
}


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE)
def test_what_can_be_no_uid_is_a_dead_letter(
    stack: Stack, all_leaks: Leaks, api: Api, copying: str, body: bytes
) -> None:
    """An operator finds it there as it came; it is counted once, and the next task runs."""
    before = unreadable(stack)
    all_leaks.publish(queues.UNFINISHED, body)
    assert api.wait_for_end(api.post(copying, INPUT), within_seconds=8) == 200
    eventually(lambda: all_leaks.messages(DEAD_LETTERS) == 1, within_seconds=5)
    assert unreadable(stack) == before + 1


@pytest.mark.parametrize("queue", QUEUES)
def test_no_queue_takes_it(stack: Stack, all_leaks: Leaks, queue: str) -> None:
    """Whatever its priority."""
    all_leaks.publish(queue, b"no uid")
    eventually(lambda: all_leaks.messages(DEAD_LETTERS) == 1, within_seconds=8)


@pytest.mark.timeout(60, func_only=True)
def test_uids_that_no_task_has_ring_in_vain(all_leaks: Leaks, api: Api, copying: str) -> None:
    """They are dropped: tasks are deleted every day. What is behind them comes in its turn."""
    for _ in range(100):
        all_leaks.publish(queues.UNFINISHED, secrets.token_urlsafe(32).encode())
    assert api.wait_for_end(api.post(copying, INPUT), within_seconds=50) == 200
    assert all_leaks.messages(DEAD_LETTERS) == 0


@pytest.mark.timeout(60, func_only=True)
def test_a_task_that_is_rung_a_hundred_times_runs_once(all_leaks: Leaks, api: Api, core: Api, copying: str) -> None:
    """And when it has ended, the rest is dropped."""
    uid = api.post(copying, INPUT)
    for _ in range(100):
        all_leaks.publish(queues.UNFINISHED, uid.encode())
    assert api.wait_for_end(uid, within_seconds=50) == 200
    eventually(lambda: all_leaks.messages(queues.UNFINISHED) == 0)
    assert len(core.get(f"/api/tasks/{uid}").json()["attempts"]) == 1


@pytest.mark.timeout(60, func_only=True)
def test_two_hundred_that_are_garbage(stack: Stack, all_leaks: Leaks, api: Api, copying: str) -> None:
    """None comes back to the queue."""
    before = unreadable(stack)
    for number in range(200):
        all_leaks.publish(queues.UNFINISHED, b"garbage %d" % number)
    assert api.wait_for_end(api.post(copying, INPUT), within_seconds=50) == 200
    eventually(lambda: all_leaks.messages(DEAD_LETTERS) == 200)
    assert unreadable(stack) == before + 200
