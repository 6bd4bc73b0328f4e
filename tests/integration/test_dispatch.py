"""From submission to end, with what goes wrong between two steps put right by the sweep."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial

import pytest

from core import reaper, watch
from core.amqp import Broker
from core.contract import codec
from core.contract.errors import (
    InvalidZip,
    ModelExists,
    ModelNotFound,
    OutputGone,
    StoreFull,
    TaskNotFound,
    TransitionRefused,
    Unavailable,
)
from core.contract.http import STAGED_SECONDS, ClaimRequest, Noted
from core.contract.model import Limits, ModelSpec
from core.contract.task import Blob, State, Task
from core.dispatch import AGAIN_SECONDS, Dispatch
from core.metrics import exposition
from core.store import Store, keys
from core.store.room import Announced
from core.store.submissions import Submissions
from core.store.tasks import CREATE_SECONDS, Ended, Turn
from core.watch import Watch
from tests.integration.making import (
    FAULT_OF_ENGINE,
    FAULT_OF_MODEL,
    GPU_MODEL,
    MODEL,
    everywhere,
    keys_of,
    limit_memory,
    stored_blob,
    submitted,
)
from tests.zips import zip_of

ZIP = zip_of({"scan.txt": b"content"})


async def _pieces(content: bytes = ZIP) -> AsyncIterator[bytes]:
    for start in range(0, len(content), 100):
        yield content[start : start + 100]


IN_STEPS = Announced()
AT_ONCE = Announced(size=len(ZIP))
"""Of a small zip whose size is known it takes one step."""


async def _submit(dispatch: Dispatch, model: ModelSpec = MODEL, announced: Announced = AT_ONCE) -> str:
    if not await dispatch.store.models.get(model.human_readable_id):
        await dispatch.add_model(model, Limits(), None, Announced())
    return await submitted(dispatch, model.human_readable_id, _pieces(), announced)


def _submissions(store: Store) -> Submissions:
    if not store.submissions.takes(1):
        pytest.skip("in a cluster there is no one step")
    return store.submissions


async def _claim(dispatch: Dispatch, uid: str, *, has_gpu: bool = False) -> int:
    claim = await dispatch.claim(uid, ClaimRequest(claim_id=str(time.monotonic()), gpus=("GPU-1",) if has_gpu else ()))
    return claim.task.attempt


async def _rung(broker: Broker, queue: str | None = None) -> list[str]:
    """All that waits in the queue."""
    name = queue or broker.settings.unfinished_job_queue
    found = []
    for _ in range((await broker.depth(name)).messages):
        async with broker.next_message([name]) as message:
            found.append(message.uid)
            await message.ack()
    return found


async def _make_due(store: Store) -> None:
    """As if the time had come to look at everything."""
    for index in (keys.DUE, keys.LOOSE):
        for member in await store.connection.call("ZRANGE", index, 0, -1):
            await store.connection.note("ZADD", index, 1, member)


async def _forget_time(store: Store) -> None:
    """As if all had been begun long ago."""
    for uid in await store.connection.call("ZRANGE", keys.TASKS, 0, -1):
        await store.connection.note("ZADD", keys.TASKS, 1, uid)
    await _make_due(store)


async def _keys(store: Store) -> set[str]:
    return await keys_of(store) - {keys.MODELS, keys.MODEL_ID, keys.REAPER}


async def test_a_task_from_end_to_end(dispatch: Dispatch) -> None:
    """Submitted, rung, claimed with the same bytes, finished, announced; its input is gone, its output is there."""
    uid = await _submit(dispatch)
    assert await _rung(dispatch.broker) == [uid]
    attempt = await _claim(dispatch, uid)
    blob = await dispatch.input(uid)
    assert b"".join([piece async for piece in dispatch.store.blobs.read(blob, 0, blob.size)]) == ZIP
    task = await dispatch.finish(uid, attempt, _pieces())
    assert task.state is State.FINISHED
    assert task.input is None
    assert (await dispatch.output(uid)).size == len(ZIP)
    assert await _rung(dispatch.broker, dispatch.broker.settings.finished_job_queue) == [uid]
    await dispatch.delete(uid)
    assert await _keys(dispatch.store) == set()


async def test_a_refused_submission_leaves_nothing(dispatch: Dispatch) -> None:
    """No key, no message."""
    await dispatch.add_model(MODEL, Limits(), None, Announced())
    with pytest.raises(InvalidZip):
        await submitted(dispatch, MODEL.human_readable_id, _pieces(b"no zip"), Announced())
    with pytest.raises(ModelNotFound):
        await submitted(dispatch, "unknown", _pieces(), Announced())
    assert await _keys(dispatch.store) == set()
    assert await _rung(dispatch.broker) == []


async def test_without_a_broker_a_task_is_taken_and_rung_later(dispatch: Dispatch) -> None:
    """The answer doesn't wait for RabbitMQ; the sweep rings."""
    without = Broker(dispatch.broker.settings)  # never connected
    uid = await _submit(replace(dispatch, broker=without))
    assert (await dispatch.task(uid)).state is State.PENDING
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    assert await _rung(dispatch.broker) == [uid]


async def test_a_lost_message_is_rung_again(dispatch: Dispatch) -> None:
    """A wiped broker loses no task; a message that is still there isn't doubled."""
    uid = await _submit(dispatch)
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    assert await _rung(dispatch.broker) == [uid]
    await dispatch.store.connection.call("HSET", keys.task(uid), "rung", 1)  # as if that had been long ago
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    assert await _rung(dispatch.broker) == [uid]


async def test_a_staged_task_is_left_to_its_agent(dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its message is in no queue, and for a while nobody takes it for lost. Any agent may claim it meanwhile."""
    uid = await _submit(dispatch)
    assert await _rung(dispatch.broker) == [uid]
    staged = await dispatch.stage(uid)
    assert (staged.task.state, staged.model.human_readable_id) == (State.PENDING, MODEL.human_readable_id)
    for seconds, rung in ((STAGED_SECONDS - 1, []), (STAGED_SECONDS + 1, [uid])):
        monkeypatch.setattr(watch, "EMPTY_MARGIN_SECONDS", -seconds)  # the queue was seen empty so much later
        await _make_due(dispatch.store)
        await reaper.sweep(dispatch, Watch(dispatch))
        assert await _rung(dispatch.broker) == rung
    await _claim(dispatch, uid)
    with pytest.raises(TransitionRefused):
        await dispatch.stage(uid)
    with pytest.raises(TaskNotFound):
        await dispatch.stage("unknown")


async def test_an_expired_lease_puts_the_task_back(dispatch: Dispatch) -> None:
    """Its agent is taken for dead; the task rings for another one, and the dead one's writes are refused."""
    uid = await _submit(dispatch)
    await _rung(dispatch.broker)
    attempt = await _claim(replace(dispatch, lease_seconds=0.001), uid)
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    assert (await dispatch.task(uid)).state is State.PENDING
    assert await _rung(dispatch.broker) == [uid]
    with pytest.raises(TransitionRefused):
        await dispatch.renew(uid, attempt)
    with pytest.raises(TransitionRefused):
        await dispatch.finish(uid, attempt, _pieces())
    assert await _claim(dispatch, uid) == attempt + 1
    assert (await dispatch.input(uid)).size == len(ZIP)


async def test_a_live_lease_is_left_alone(dispatch: Dispatch) -> None:
    """A sweep in the middle of a task changes nothing."""
    uid = await _submit(dispatch)
    await _claim(dispatch, uid)
    before = await dispatch.task(uid)
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    assert await dispatch.task(uid) == before


async def test_zips_without_an_owner_are_swept_and_owned_ones_stay(dispatch: Dispatch) -> None:
    """What a dead core left behind goes; what merely looks loose, because it died one step later, stays."""
    orphan = await stored_blob(dispatch.store, "nobody")
    uid = await _submit(dispatch)
    owned = await dispatch.input(uid)
    await dispatch.add_model(
        ModelSpec(human_readable_id="zip", container_tag="x", model_available=True), Limits(), _pieces(), Announced()
    )
    model = await dispatch.model("zip")
    assert model.zip is not None
    await dispatch.store.blobs.loosen([orphan, owned, model.zip])
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    assert await dispatch.store.blobs.exist([orphan]) == [False]
    assert await dispatch.store.blobs.exist([owned]) == [True]
    assert await dispatch.store.blobs.exist([model.zip]) == [True]
    assert await dispatch.store.connection.call("ZCARD", keys.LOOSE) == 0


async def test_a_models_fault_is_final_and_an_engines_is_not(dispatch: Dispatch) -> None:
    """The first ends the task, which keeps its input for another try; the second rings again, but not at once."""
    uid = await _submit(dispatch)
    await _rung(dispatch.broker)
    assert (await dispatch.fail(uid, await _claim(dispatch, uid), FAULT_OF_ENGINE)).state is State.PENDING
    assert await _rung(dispatch.broker) == []
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    assert await _rung(dispatch.broker) == [uid]
    task = await dispatch.fail(uid, await _claim(dispatch, uid), FAULT_OF_MODEL)
    assert task.state is State.FAILED
    assert task.failure == FAULT_OF_MODEL
    assert task.can_retry


async def test_a_gpu_task_waits_for_a_gpu(dispatch: Dispatch) -> None:
    """Agents without one drop its message and neither take nor fail it; it rings once where agents with one listen."""
    uid = await _submit(dispatch, GPU_MODEL)
    for _ in range(2):
        with pytest.raises(TransitionRefused):
            await _claim(dispatch, uid)
    assert await _rung(dispatch.broker, dispatch.broker.settings.gpu_queue_for()) == [uid]
    assert await _claim(dispatch, uid, has_gpu=True) == 1


async def test_a_consumer_of_version_1_delivers(dispatch: Dispatch) -> None:
    """It sets the status, posts the output and sets the status again, in either order."""
    for output_first in (True, False):
        uid = await _submit(dispatch)
        await dispatch.set_status(uid, State.RUNNING)
        if output_first:
            await dispatch.finish(uid, None, _pieces())
            await dispatch.set_status(uid, State.FINISHED)
        else:
            await dispatch.set_status(uid, State.FINISHED)
            with pytest.raises(OutputGone):
                await dispatch.output(uid)
            await dispatch.finish(uid, None, _pieces())
        assert (await dispatch.output(uid)).size == len(ZIP)


async def test_it_may_not_touch_what_an_agent_holds(dispatch: Dispatch) -> None:
    """A call without an attempt is refused while a lease lives, and leaves no second output."""
    uid = await _submit(dispatch)
    await _claim(dispatch, uid)
    for state in (State.PENDING, State.FINISHED, State.FAILED):
        with pytest.raises(TransitionRefused):
            await dispatch.set_status(uid, state)
    with pytest.raises(TransitionRefused):
        await dispatch.finish(uid, None, _pieces())
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    assert await dispatch.store.connection.call("ZCARD", keys.LOOSE) == 0
    assert (await dispatch.input(uid)).size == len(ZIP)


async def test_a_consumer_that_vanished_with_its_message(dispatch: Dispatch) -> None:
    """Nothing tells of its death but the time: the task is another's when the model may not run longer."""
    uid = await _submit(dispatch)
    await dispatch.set_status(uid, State.RUNNING)
    await _rung(dispatch.broker)
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    assert (await dispatch.task(uid)).state is State.RUNNING
    await dispatch.store.connection.call(
        "HSET", keys.task(uid), "dispatched", time.time() - Limits().timeout_seconds - 1
    )
    for _ in range(2):
        await _make_due(dispatch.store)
        await reaper.sweep(dispatch, Watch(dispatch))
    assert (await dispatch.task(uid)).state is State.PENDING
    assert await _rung(dispatch.broker) == [uid]


async def test_a_cancelled_task_can_be_tried_again(dispatch: Dispatch) -> None:
    """Its end is final and announced; cancelling it again changes nothing, and what has finished isn't cancelled."""
    pending, running, finished = [await _submit(dispatch) for _ in range(3)]
    attempt = await _claim(dispatch, running)
    await dispatch.finish(finished, await _claim(dispatch, finished), _pieces())
    await _rung(dispatch.broker, dispatch.broker.settings.finished_job_queue)
    for uid in (pending, running, pending):
        task = await dispatch.cancel(uid)
        assert (task.state, task.can_retry) == (State.FAILED, True)
    with pytest.raises(TransitionRefused):
        await dispatch.renew(running, attempt)
    with pytest.raises(TransitionRefused):
        await dispatch.cancel(finished)
    assert await _rung(dispatch.broker, dispatch.broker.settings.finished_job_queue) == [pending, running]
    for uid in (pending, running, finished):
        await dispatch.delete(uid)
    assert await _keys(dispatch.store) == set()


async def test_a_deleted_task_is_gone_for_its_agent_as_well(dispatch: Dispatch) -> None:
    """The next renewal says so; a late output is refused and not kept."""
    uid = await _submit(dispatch)
    attempt = await _claim(dispatch, uid)
    await dispatch.delete(uid)
    with pytest.raises(TransitionRefused):
        await dispatch.renew(uid, attempt)
    with pytest.raises(TaskNotFound):
        await dispatch.finish(uid, attempt, _pieces())
    with pytest.raises(TaskNotFound):
        await dispatch.delete(uid)
    assert await _keys(dispatch.store) == set()


async def test_a_model_is_registered_once(dispatch: Dispatch) -> None:
    """The second one is refused, and its zip isn't kept."""
    spec = ModelSpec(human_readable_id="zip", container_tag="x", model_available=True)
    await dispatch.add_model(spec, Limits(), _pieces(), Announced())
    before = await _keys(dispatch.store)
    with pytest.raises(ModelExists):
        await dispatch.add_model(spec, Limits(), _pieces(), Announced())
    assert await _keys(dispatch.store) == before


@pytest.mark.parametrize("step", ["create", "submit", "finish"])
async def test_a_lost_answer_loses_no_zip(dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """When Redis did the step and the answer was cut off, the task has its zip: who can't know removes nothing."""
    tasks = dispatch.store.tasks
    steps = _submissions(dispatch.store) if step == "submit" else tasks
    real = getattr(steps, step)

    async def cut_off(*args: object, **options: object) -> None:
        await real(*args, **options)
        raise Unavailable

    uid = await _submit(dispatch)
    attempt = await _claim(dispatch, uid)
    monkeypatch.setattr(steps, step, cut_off)
    with pytest.raises(Unavailable):
        if step == "finish":
            await dispatch.finish(uid, attempt, _pieces())
        else:
            await _submit(dispatch, announced=AT_ONCE if step == "submit" else IN_STEPS)
    monkeypatch.undo()
    for task in await tasks.page(offset=0, limit=10):
        blob = task.output if task.state is State.FINISHED else task.input
        assert blob is not None
        assert await dispatch.store.blobs.exist([blob]) == [True]
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    for task in await tasks.page(offset=0, limit=10):
        await dispatch.delete(task.uid)
    await _forget_time(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    assert await _keys(dispatch.store) == set()


@pytest.mark.parametrize("step", ["cancel", "fail", "finish"])
async def test_a_step_whose_answer_comes_from_its_repetition(
    dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The client library repeats a command whose answer was lost, and hears that there is nothing to do: the zips that
    the first one left without an owner are found all the same.
    """
    tasks = dispatch.store.tasks
    real = getattr(tasks, step)

    async def repeated(*args: object, **options: object) -> object:
        await real(*args, **options)
        return await real(*args, **options)

    uid = await _submit(dispatch)
    attempt = await _claim(dispatch, uid)
    monkeypatch.setattr(tasks, step, repeated)
    ended = {
        "cancel": partial(dispatch.cancel, uid),
        "fail": partial(dispatch.fail, uid, attempt, FAULT_OF_MODEL),
        "finish": partial(dispatch.finish, uid, attempt, _pieces()),
    }[step]
    assert (await ended()).state is (State.FINISHED if step == "finish" else State.FAILED)
    monkeypatch.undo()
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    await dispatch.delete(uid)
    assert await _keys(dispatch.store) == set()


async def test_a_sweep_ends_while_the_broker_is_away(dispatch: Dispatch) -> None:
    """Whatever it has to come back to: leases and zips behind that mustn't wait for the broker."""
    without = replace(dispatch, broker=Broker(dispatch.broker.settings))
    uids = [await _submit(without) for _ in range(3)]
    await without.cancel(uids[0])
    await _claim(replace(without, lease_seconds=0.001), uids[1])
    await _make_due(dispatch.store)
    async with asyncio.timeout(20):
        await reaper.sweep(without, Watch(without))
    assert (await dispatch.task(uids[1])).state is State.PENDING
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    assert sorted(await _rung(dispatch.broker)) == sorted(uids[1:])


async def test_an_output_that_comes_with_a_deletion_goes(dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task gets it between the look and the removal: nothing of it stays."""
    uid = await _submit(dispatch)
    attempt = await _claim(dispatch, uid)
    real = dispatch.store.tasks.remove

    async def late(uid: str, *, output: Blob | None) -> Task | None:
        if output is None:
            await dispatch.finish(uid, attempt, _pieces())
        return await real(uid, output=output)

    monkeypatch.setattr(dispatch.store.tasks, "remove", late)
    assert (await dispatch.delete(uid)).state is State.FINISHED
    assert await _keys(dispatch.store) == set()


async def test_a_step_that_is_sent_again_is_done_once(dispatch: Dispatch) -> None:
    """The client library repeats a command whose answer didn't come: the second one changes nothing."""
    uid = await _submit(dispatch)
    attempt = await _claim(dispatch, uid)
    output = await stored_blob(dispatch.store, uid)
    assert await dispatch.store.tasks.finish(uid, attempt, output) is Ended.DONE
    assert await dispatch.store.tasks.finish(uid, attempt, output) is Ended.DONE


async def test_what_ended_an_attempt_is_said_again(dispatch: Dispatch) -> None:
    """An agent that heard 503, though it was done, is told so; a task that was handed back is rung again."""
    uid = await _submit(dispatch)
    attempt = await _claim(dispatch, uid)
    for _ in range(2):
        assert (await dispatch.fail(uid, attempt, FAULT_OF_ENGINE)).state is State.PENDING
        again = float(await dispatch.store.connection.call("ZSCORE", keys.DUE, uid)) - time.time()
        assert again <= AGAIN_SECONDS
    attempt = await _claim(dispatch, uid)
    await _rung(dispatch.broker)
    for _ in range(2):
        assert (await dispatch.release(uid, attempt)).state is State.PENDING
        assert await _rung(dispatch.broker) == [uid]


@pytest.mark.parametrize("announced", [IN_STEPS, AT_ONCE])
async def test_a_task_whose_client_heard_otherwise_runs_for_nobody(
    dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch, announced: Announced
) -> None:
    """Committed and not confirmed: it is taken back, its zip is the sweep's. Its entries outlive a late commit."""
    tasks = dispatch.store.tasks
    steps, step = (_submissions(dispatch.store), "submit") if announced is AT_ONCE else (tasks, "create")
    real = getattr(steps, step)

    async def unconfirmed(*args: object) -> None:
        await real(*args)
        raise Unavailable

    monkeypatch.setattr(steps, step, unconfirmed)
    with pytest.raises(Unavailable):
        await _submit(dispatch, announced=announced)
    assert await tasks.page(offset=0, limit=9) == []
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    assert await _keys(dispatch.store) == {keys.DUE, keys.TASKS}
    await _forget_time(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    assert await _keys(dispatch.store) == set()
    assert await _rung(dispatch.broker) == []


@pytest.fixture
async def full(store: Store) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Call it, and Redis has no byte left, as after one upload too many."""

    async def fill() -> None:
        await limit_memory(store, free_bytes=-(2**20))

    [before, *_] = await everywhere(store, "CONFIG", "GET", "maxmemory")
    yield fill
    await everywhere(store, "CONFIG", "SET", "maxmemory", before[b"maxmemory"])


async def test_what_frees_memory_works_without_memory(dispatch: Dispatch, full: Callable[[], Awaitable[None]]) -> None:
    """New uploads are refused as such; claims, ends, deletions and the sweep go on."""
    failing, deleted, expiring = [await _submit(dispatch) for _ in range(3)]
    await full()
    with pytest.raises(StoreFull):
        await _submit(dispatch)
    assert (await dispatch.fail(failing, await _claim(dispatch, failing), FAULT_OF_MODEL)).state is State.FAILED
    await dispatch.delete(deleted)
    await _claim(replace(dispatch, lease_seconds=0.001), expiring)
    await _make_due(dispatch.store)
    assert await dispatch.store.tasks.turn(seconds=1) is Turn.BEGINS
    await reaper.sweep(dispatch, Watch(dispatch))
    assert (await dispatch.task(expiring)).state is State.PENDING


async def test_a_server_that_cant_write_is_away(store: Store) -> None:
    """During a failover: the answer is to come back later, not that something is broken."""
    if store.connection.is_spread:
        pytest.skip("a cluster's nodes aren't told so whose replicas they are")
    await store.connection.call("REPLICAOF", "127.0.0.1", "1")
    try:
        with pytest.raises(Unavailable):
            await store.connection.call("SET", "key", "value")
        with pytest.raises(Unavailable):
            await store.tasks.ring("uid")
    finally:
        await store.connection.call("REPLICAOF", "NO", "ONE")


async def test_a_small_zip_is_submitted_for_the_model_as_it_is(dispatch: Dispatch) -> None:
    """Core remembers models; Redis compares before it takes the task."""
    await _submit(dispatch)
    seen = await dispatch.store.models.seen(MODEL.human_readable_id)
    assert seen is not None
    other = seen.model.model_copy(update={"max_attempts": 7})
    await dispatch.store.connection.call("HSET", keys.MODELS, MODEL.human_readable_id, codec.pack(other))
    uid = await submitted(dispatch, MODEL.human_readable_id, _pieces(), AT_ONCE)
    assert await dispatch.store.connection.call("HGET", keys.task(uid), "max_attempts") == b"7"
    await dispatch.store.connection.call("HDEL", keys.MODELS, MODEL.human_readable_id)
    with pytest.raises(ModelNotFound):
        await submitted(dispatch, MODEL.human_readable_id, _pieces(), AT_ONCE)


async def test_ends_are_heard(dispatch: Dispatch) -> None:
    """Of a task that finishes, fails, is cancelled or deleted."""
    heard = dispatch.store.tasks.ended()
    assert await anext(heard) == ""
    finished, cancelled, deleted = [await _submit(dispatch) for _ in range(3)]
    await dispatch.finish(finished, await _claim(dispatch, finished), _pieces())
    await dispatch.cancel(cancelled)
    await dispatch.delete(deleted)
    assert {await anext(heard) for _ in range(3)} == {finished, cancelled, deleted}  # a cluster's nodes don't agree


async def test_a_model_that_is_sent_again_is_registered_once(dispatch: Dispatch) -> None:
    """The client library repeats a command whose answer was lost: the zip stays, and the caller hears of success."""
    blob = await stored_blob(dispatch.store, "uid")
    for _ in range(2):
        model = await dispatch.store.models.add("uid", MODEL, Limits(), blob)
        assert model.zip == blob
    with pytest.raises(ModelExists):
        await dispatch.store.models.add("another", MODEL, Limits(), None)


async def test_an_index_entry_outlives_a_late_commit(dispatch: Dispatch) -> None:
    """A task that isn't there yet may come still: its entries go only when nothing can be on its way any more."""
    call = dispatch.store.connection.call
    for age, stays in ((1, True), (CREATE_SECONDS + 1, False)):
        await call("ZADD", keys.TASKS, time.time() - age, "late")
        await call("ZADD", keys.DUE, 1, "late")
        await reaper.sweep(dispatch, Watch(dispatch))
        assert (await call("ZSCORE", keys.DUE, "late") is not None) is stays
        assert (await call("ZSCORE", keys.TASKS, "late") is not None) is stays


async def test_a_task_whose_entries_were_swept_gets_them_back(
    dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its core stood still between the entries and the task, and the sweep took them for a dead one's."""
    tasks = dispatch.store.tasks
    real = tasks._create

    async def late(*, keys: list[str], args: list[str | bytes | int]) -> object:
        await tasks.forget(str(args[1]))
        return await real(keys=keys, args=args)

    monkeypatch.setattr(tasks, "_create", late)
    monkeypatch.setattr("core.store.tasks.FIRST_LOOK_SECONDS", 0)
    uid = await _submit(dispatch)
    for index in (keys.DUE, keys.TASKS):
        assert await dispatch.store.connection.call("ZSCORE", index, uid) is not None


async def test_a_sweep_that_meets_a_deletion_leaves_nothing(dispatch: Dispatch) -> None:
    """The sweep finds the entry of a task that is just being deleted, and whatever the order, both entries go."""
    uid = await _submit(dispatch)
    await dispatch.store.tasks.remove(uid, output=None)
    assert await dispatch.store.tasks.forget_missing(uid)
    assert await dispatch.store.connection.call("ZSCORE", keys.TASKS, uid) is None


async def test_an_end_is_announced_when_the_broker_is_back(dispatch: Dispatch) -> None:
    """Whoever waits on the finished queue hears of every end."""
    uid = await _submit(dispatch)
    without = replace(dispatch, broker=Broker(dispatch.broker.settings))
    await without.finish(uid, await _claim(dispatch, uid), _pieces())
    finished = dispatch.broker.settings.finished_job_queue
    assert await _rung(dispatch.broker, finished) == []
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    assert await _rung(dispatch.broker, finished) == [uid]
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    assert await _rung(dispatch.broker, finished) == []


async def _ended(dispatch: Dispatch, model: ModelSpec = MODEL, *, hours_ago: float) -> Task:
    """A task that finished with an output so long ago."""
    uid = await _submit(dispatch, model)
    await dispatch.finish(uid, await _claim(dispatch, uid), _pieces())
    await dispatch.store.connection.call("HSET", keys.task(uid), "finished", time.time() - hours_ago * 3600)
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    return await dispatch.task(uid)


async def _seconds_to_look(store: Store, uid: str) -> float:
    return float(await store.connection.call("ZSCORE", keys.DUE, uid)) - time.time()


async def test_an_output_is_kept_for_its_time(dispatch: Dispatch) -> None:
    """Then the task is finished still and says that there is none; no byte of it stays. Nobody looks earlier."""
    kept = await _ended(dispatch, hours_ago=0.9)
    assert (await dispatch.output(kept.uid)).size == len(ZIP)
    assert 0 < await _seconds_to_look(dispatch.store, kept.uid) <= 0.1 * 3600
    expired = await _ended(dispatch, hours_ago=1.1)
    assert (expired.state, expired.output) == (State.FINISHED, None)
    with pytest.raises(OutputGone):
        await dispatch.output(expired.uid)
    assert 0.8 * 3600 < await _seconds_to_look(dispatch.store, expired.uid) <= 0.9 * 3600
    await dispatch.delete(kept.uid)
    assert await _keys(dispatch.store) == {keys.DUE, keys.TASKS, keys.task(expired.uid)}


@pytest.mark.parametrize("fails", [False, True])
async def test_of_a_task_nothing_stays_after_its_time(dispatch: Dispatch, fails: bool) -> None:
    """No key and no entry of an index."""
    uid = await _submit(dispatch)
    attempt = await _claim(dispatch, uid)
    await (dispatch.fail(uid, attempt, FAULT_OF_MODEL) if fails else dispatch.finish(uid, attempt, _pieces()))
    await dispatch.store.connection.call("HSET", keys.task(uid), "finished", time.time() - 2.1 * 3600)
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    with pytest.raises(TaskNotFound):
        await dispatch.task(uid)
    assert await _keys(dispatch.store) == set()


async def test_a_model_has_times_of_its_own(dispatch: Dispatch) -> None:
    """Down to fractions of a second; what waits or runs isn't counted."""
    brief = ModelSpec(human_readable_id="brief", container_tag="x", use_gpu=False)
    limits = Limits(keep_outputs_hours=0.1 / 3600, keep_tasks_hours=0.5 / 3600)
    await dispatch.add_model(brief, limits, None, Announced())
    uid = await _submit(dispatch, brief)
    attempt = await _claim(dispatch, uid)
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    await dispatch.finish(uid, attempt, _pieces())
    statuses: list[type[Exception]] = []
    async with asyncio.timeout(10):
        while not statuses or statuses[-1] is not TaskNotFound:
            await reaper.sweep(dispatch, Watch(dispatch))
            try:
                await dispatch.output(uid)
            except (OutputGone, TaskNotFound) as error:
                statuses.append(type(error))
    assert set(statuses) == {OutputGone, TaskNotFound}
    assert await _keys(dispatch.store) == set()


async def test_time_goes_on_while_the_broker_is_away(dispatch: Dispatch) -> None:
    """An end that nobody could be told of is no reason to keep its output for ever."""
    uid = await _submit(dispatch)
    without = replace(dispatch, broker=Broker(dispatch.broker.settings))
    await without.finish(uid, await _claim(dispatch, uid), _pieces())
    await dispatch.store.connection.call("HSET", keys.task(uid), "finished", time.time() - 1.1 * 3600)
    await _make_due(dispatch.store)
    await reaper.sweep(without, Watch(without))
    with pytest.raises(OutputGone):
        await dispatch.output(uid)
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    assert await _rung(dispatch.broker, dispatch.broker.settings.finished_job_queue) == [uid]


async def test_repairs_are_counted(dispatch: Dispatch) -> None:
    """Under the words that the log has for them."""

    def count(kind: str) -> int:
        line = re.search(
            rf'^inference_server_repairs_total{{kind="{kind}"}} (.*)$', exposition().decode(), re.MULTILINE
        )
        return int(float(line[1])) if line else 0

    kinds = ("unrung", "lease expired", "zip without owner", "output expired", "task expired", "end unannounced")
    before = {kind: count(kind) for kind in kinds}
    without = replace(dispatch, broker=Broker(dispatch.broker.settings))
    await _submit(without)
    await _claim(replace(dispatch, lease_seconds=0.001), await _submit(dispatch))
    await stored_blob(dispatch.store, "nobody")
    orphan = await stored_blob(dispatch.store, "nobody")
    await dispatch.store.blobs.loosen([orphan])
    ended = await _submit(dispatch)
    await without.finish(ended, await _claim(dispatch, ended), _pieces())
    await _make_due(dispatch.store)
    await reaper.sweep(dispatch, Watch(dispatch))
    for hours in (1.1, 2.1):
        await dispatch.store.connection.call("HSET", keys.task(ended), "finished", time.time() - hours * 3600)
        await dispatch.store.connection.note("ZADD", keys.DUE, 1, ended)
        await reaper.sweep(dispatch, Watch(dispatch))
    assert {kind: count(kind) - before[kind] for kind in kinds} == dict.fromkeys(kinds, 1) | {"unrung": 2}


DIGEST = f"sha256:{'0' * 64}"


async def _pinned(dispatch: Dispatch, uid: str, attempt: int, image: str) -> str | None:
    """The model's digest after this image's end."""
    await dispatch.finish(uid, attempt, _pieces(), noted=Noted(image=image, revision=1))
    return (await dispatch.model(MODEL.human_readable_id)).digest


@pytest.mark.parametrize(
    ("image", "digest"),
    [
        (f"docker.io/library/copy@{DIGEST}", DIGEST),
        (f"registry.example.org/copy@{DIGEST}", None),
        (DIGEST, None),
    ],
)
async def test_a_model_is_pinned_to_what_its_own_name_leads_to(
    dispatch: Dispatch, image: str, digest: str | None
) -> None:
    """By another name its registry may not have it, and no host could ever pull it again."""
    await dispatch.add_model(MODEL, Limits(pin=True), None, Announced())
    uid = await _submit(dispatch)
    assert await _pinned(dispatch, uid, await _claim(dispatch, uid), image) == digest


async def test_what_ran_of_a_deleted_model_pins_no_other(dispatch: Dispatch, store: Store) -> None:
    """That has its name, its image and its revision."""
    old = await dispatch.add_model(MODEL, Limits(pin=True), None, Announced())
    uid = await _submit(dispatch)
    attempt = await _claim(dispatch, uid)
    seen = await store.models.seen_by_uid(old.uid)
    assert seen
    await store.models.change(seen, None)
    await dispatch.add_model(MODEL, Limits(pin=True), None, Announced())
    assert await _pinned(dispatch, uid, attempt, f"copy@{DIGEST}") is None
