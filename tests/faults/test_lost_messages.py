"""RabbitMQ that loses what it held, or comes back with it."""

import shutil
from collections.abc import Callable

import pytest

from core.contract import queues
from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.conftest import AGENTS, INPUT
from tests.faults.kills import kill, wait_until_back
from tests.leaks import Leaks
from tests.waiting import eventually
from tests.zips import files_of

TASKS = 3


def _purged(stack: Stack, leaks: Leaks) -> None:
    leaks.purge(queues.UNFINISHED)


def _deleted(stack: Stack, leaks: Leaks) -> None:
    leaks.delete(queues.UNFINISHED)


def _killed(stack: Stack, leaks: Leaks) -> None:
    kill(stack, "rabbitmq")
    wait_until_back(stack, "rabbitmq")


def _wiped(stack: Stack, leaks: Leaks) -> None:
    stack.stop("rabbitmq")
    shutil.rmtree(stack.folder / "rabbitmq" / "mnesia")
    stack.start("rabbitmq")


@pytest.mark.parametrize("struck", [_purged, _deleted, _killed, _wiped])
def test_tasks_that_wait_run_once(
    struck: Callable[[Stack, Leaks], None], api: Api, core: Api, stack: Stack, leaks: Leaks, copying: str
) -> None:
    """Whatever becomes of their messages."""
    for agent in AGENTS:
        stack.stop(agent)
    uids = [api.post(copying, INPUT) for _ in range(TASKS)]
    struck(stack, leaks)
    for agent in AGENTS:
        stack.start(agent)
    for uid in uids:
        answer = api.wait(uid)
        assert answer.status_code == 200
        assert files_of(answer.content).items() >= files_of(INPUT).items()
        assert core.get(f"/api/tasks/{uid}").json()["attempt"] == 1


def test_agents_notice_that_their_queue_was_deleted(api: Api, leaks: Leaks, copying: str) -> None:
    """They declare it again, and hear of the next task at once."""
    eventually(lambda: leaks.consumers(queues.UNFINISHED) == len(AGENTS))
    leaks.delete(queues.UNFINISHED)
    assert api.wait_for_end(api.post(copying, INPUT), within_seconds=10) == 200
