"""Who the agents are, and tasks that not just any of them can serve."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest

from core import metrics, reaper
from core.contract import codec
from core.contract.agent import Agent, AgentReport, Gpu, Wanted
from core.contract.errors import InvalidParameters, TransitionRefused
from core.contract.http import ClaimRequest
from core.contract.model import Limits, ModelSpec
from core.contract.needs import Need
from core.contract.task import State
from core.dispatch import Dispatch
from core.store import keys
from core.store.reported import FORGOTTEN_AFTER
from core.store.room import Announced
from core.watch import Watch
from tests.integration.making import GPU, GPU_MODEL, MODEL, PAIR, submitted
from tests.zips import zip_of

SMALL = AgentReport(name="small", gpus=(Gpu(uuid="GPU-1", memory_mb=24_576),), slots=1)
LARGE = AgentReport(name="large", gpus=tuple(Gpu(uuid=f"GPU-{n}", memory_mb=81_920) for n in (2, 3)), slots=2)
LONG_AGO = datetime.now(UTC) - FORGOTTEN_AFTER


async def _zip() -> AsyncIterator[bytes]:
    yield zip_of({"scan.txt": b"content"})


async def _submit(dispatch: Dispatch, spec: ModelSpec = GPU_MODEL, need: Need = PAIR) -> str:
    if not await dispatch.store.models.get(spec.human_readable_id):
        limits = Limits(gpu_count=max(1, need.gpu_count), gpu_memory_mb=need.gpu_memory_mb)
        await dispatch.add_model(spec, limits, None, Announced())
    return await submitted(dispatch, spec.human_readable_id, _zip(), Announced())


async def _claim(dispatch: Dispatch, uid: str, serves: Need) -> int:
    request = ClaimRequest(**GPU.model_dump(), claim_id=uid, serves=serves)
    return (await dispatch.claim(uid, request)).task.attempt


async def _messages(dispatch: Dispatch) -> tuple[int, int, int]:
    """In the main queue, in that of GPUs, and in that of pairs."""
    settings = dispatch.broker.settings
    queues = (settings.unfinished_job_queue, settings.gpu_queue_for(), settings.queue_for(PAIR))
    main, gpu, pair = [(await dispatch.broker.depth(queue)).messages for queue in queues]
    return main, gpu, pair


async def _take(dispatch: Dispatch) -> str:
    async with dispatch.broker.next_message([dispatch.broker.settings.queue_for(PAIR)]) as message:
        assert message.queue == dispatch.broker.settings.queue_for(PAIR)
        await message.ack()
        return message.uid


async def _sweep(dispatch: Dispatch) -> None:
    """As if the time had come to look at everything."""
    for uid in await dispatch.store.connection.call("ZRANGE", keys.DUE, 0, -1):
        await dispatch.store.connection.note("ZADD", keys.DUE, 1, uid)
    await reaper.sweep(dispatch, Watch(dispatch))


async def test_what_not_just_any_gpu_meets_is_rung_elsewhere(dispatch: Dispatch) -> None:
    """From its submission on, and when it is handed back; the queue is made by whoever needs it first."""
    uid = await _submit(dispatch)
    assert await _messages(dispatch) == (0, 0, 1)
    assert await _take(dispatch) == uid
    await dispatch.release(uid, await _claim(dispatch, uid, PAIR))
    assert await _messages(dispatch) == (0, 0, 1)


async def test_there_as_well_a_lost_message_is_rung_again(dispatch: Dispatch) -> None:
    """And only that: one that waits isn't doubled, though nobody listens, and one in a wrong queue isn't believed."""
    uid = await _submit(dispatch)
    await _sweep(dispatch)
    assert await _messages(dispatch) == (0, 0, 1)
    await _take(dispatch)
    with pytest.raises(TransitionRefused):
        await _claim(dispatch, uid, Need(gpu_count=1))
    await dispatch.store.connection.call("HSET", keys.task(uid), "rung", 1)  # as if that had been long ago
    await _sweep(dispatch)
    await _sweep(dispatch)
    assert await _messages(dispatch) == (0, 0, 1)


async def test_an_agent_hears_what_models_need(dispatch: Dispatch) -> None:
    """Each need once, without those that any GPU meets; it is listed until it has said nothing for a day."""
    assert await dispatch.heard(SMALL) == Wanted()
    for number, need in enumerate((PAIR, PAIR, Need(gpu_count=2), Need(gpu_count=1))):
        limits = Limits(gpu_count=need.gpu_count, gpu_memory_mb=need.gpu_memory_mb)
        await dispatch.add_model(
            GPU_MODEL.model_copy(update={"human_readable_id": str(number)}), limits, None, Announced()
        )
    await dispatch.add_model(MODEL, Limits(), None, Announced())
    assert await dispatch.heard(LARGE) == Wanted(needs=(Need(gpu_count=2), PAIR))
    listed = await dispatch.store.agents.all()
    assert [(agent.name, agent.is_there) for agent in listed] == [("large", True), ("small", True)]
    assert [agent.gpus for agent in listed] == [LARGE.gpus, SMALL.gpus]
    gone = Agent(**SMALL.model_dump(), seen=LONG_AGO)
    await dispatch.store.connection.call("HSET", keys.AGENTS, gone.name, codec.pack(gone))
    assert [agent.name for agent in await dispatch.store.agents.all()] == ["large"]
    assert set(await dispatch.store.connection.call("HKEYS", keys.AGENTS)) == {b"large", b"small"}
    await dispatch.heard(LARGE)
    assert await dispatch.store.connection.call("HKEYS", keys.AGENTS) == [b"large"]


async def test_an_agent_that_says_what_only_a_later_version_knows(dispatch: Dispatch) -> None:
    """As after a step back: it is left out, and everybody else is listed."""
    await dispatch.heard(LARGE)
    await dispatch.store.connection.call("HSET", keys.AGENTS, "later", codec.pack_plain({"called": "later"}))
    assert [agent.name for agent in await dispatch.store.agents.all()] == ["large"]
    await dispatch.heard(SMALL)
    assert await dispatch.store.connection.call("HEXISTS", keys.AGENTS, "later")


async def test_a_pending_task_says_what_nobody_has(dispatch: Dispatch) -> None:
    """As the agents are when it is asked; nothing once one can serve it, or has taken it."""

    async def waits_for() -> list[str | None]:
        return [task.waits_for for task in await dispatch.explained(await dispatch.store.tasks.page(offset=0, limit=9))]

    uid = await _submit(dispatch)
    assert await waits_for() == [f"{PAIR}: no agent with a GPU is there"]
    await dispatch.heard(SMALL)
    assert await waits_for() == [f"{PAIR}: the largest agent there has 1 with 24576 MB"]
    unwell = LARGE.gpus[0].model_copy(update={"problem": "vanished"})
    await dispatch.heard(LARGE.model_copy(update={"gpus": (unwell, LARGE.gpus[1])}))
    assert await waits_for() == [f"{PAIR} that are well: large: GPU-2: vanished"]
    await dispatch.heard(LARGE)
    assert await waits_for() == [None]
    await dispatch.heard(LARGE.model_copy(update={"gpus": ()}))
    await _claim(dispatch, uid, PAIR)
    assert await waits_for() == [None]
    assert (await dispatch.task(uid)).state is State.RUNNING


async def test_agents_and_gpus_are_counted(dispatch: Dispatch) -> None:
    """Those that are there."""
    gone = Agent(**LARGE.model_dump(exclude={"name"}), name="gone", seen=LONG_AGO)
    unwell = LARGE.gpus[0].model_copy(update={"problem": "vanished"})
    there = [Agent(**SMALL.model_dump(), seen=datetime.now(UTC))]
    there.append(Agent(**LARGE.model_dump(exclude={"gpus"}), gpus=(unwell, LARGE.gpus[1]), seen=datetime.now(UTC)))
    metrics.note_agents([*there, gone])
    figures = dict(line.rsplit(" ", 1) for line in metrics.exposition().decode().splitlines() if line[0] != "#")
    names = ("inference_server_agents", "inference_server_gpus", "inference_server_gpus_unwell")
    assert [float(figures[name]) for name in names] == [2, 3, 1]


@pytest.mark.parametrize("limits", [Limits(gpu_count=2), Limits(gpu_memory_mb=1)])
async def test_gpus_without_use_gpu_are_refused(dispatch: Dispatch, limits: Limits) -> None:
    """Nobody can have meant that."""
    with pytest.raises(InvalidParameters):
        await dispatch.add_model(MODEL, limits, None, Announced())
    assert await dispatch.store.models.all() == []
