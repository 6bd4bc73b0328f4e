"""Consumers of version 1 at the same queue as our agents: late acknowledgements, no leases."""

import asyncio
from collections import Counter

import pytest

from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.conftest import AGENTS, INPUT
from tests.e2e.version_1 import OUTPUT, Version1Consumer
from tests.faults.kills import kill, wait_until_back
from tests.zips import files_of

TASKS = 40


@pytest.fixture
def consumer(stack: Stack) -> Version1Consumer:
    return Version1Consumer(stack)


def _ended(api: Api, uid: str) -> str:
    """By whom."""
    answer = api.wait(uid)
    assert answer.status_code == 200
    if answer.content == OUTPUT:
        return "consumer"
    assert files_of(answer.content).items() >= files_of(INPUT).items()
    return "agent"


async def test_each_task_runs_once(consumer: Version1Consumer, api: Api, core: Api, copying: str) -> None:
    """By the one or by the other."""
    uids = [api.post(copying, INPUT) for _ in range(TASKS)]
    ended = asyncio.Event()
    working = asyncio.create_task(consumer.work(until=ended.is_set))
    by = await asyncio.to_thread(lambda: {uid: _ended(api, uid) for uid in uids})
    ended.set()
    await working
    assert {uid for uid in uids if by[uid] == "consumer"} == set(consumer.done)
    assert len(consumer.done) == len(set(consumer.done))
    assert Counter(by.values()).keys() == {"agent", "consumer"}
    assert [core.get(f"/api/tasks/{uid}").json()["attempt"] for uid in uids] == [1] * TASKS


@pytest.mark.parametrize("dies", ["consumer", "rabbitmq"])
async def test_what_it_held_is_run_by_an_agent(
    dies: str, no_agents: None, stack: Stack, consumer: Version1Consumer, api: Api, core: Api, copying: str
) -> None:
    """The message that it never acknowledged comes again, and so do those that waited behind."""
    uids = [api.post(copying, INPUT) for _ in range(5)]
    async with consumer.working() as held:
        if dies == "rabbitmq":
            kill(stack, "rabbitmq")
            wait_until_back(stack, "rabbitmq")
    for agent in AGENTS:
        stack.start(agent)
    assert [_ended(api, uid) for uid in uids] == ["agent"] * len(uids)
    attempts = {uid: core.get(f"/api/tasks/{uid}").json()["attempts"] for uid in uids}
    lost, ended = attempts.pop(held)
    assert (lost["agent"], lost["failure"]["reason"], ended["failure"]) == ("", "agent_lost", None)
    assert [len(once) for once in attempts.values()] == [1] * len(attempts)
