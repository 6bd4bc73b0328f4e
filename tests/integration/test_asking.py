"""What clients may ask of their tasks: to be posted once, to wait so long, to be tried again; and how they stand."""

import secrets
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from core import reaper
from core.contract import codec
from core.contract.errors import InputGone, TaskExists, TransitionRefused
from core.contract.http import ClaimRequest
from core.contract.model import Limits
from core.contract.options import PLAIN, Options, Priority
from core.contract.task import Reason, State
from core.dispatch import Dispatch
from core.posted import Posted
from core.retention import Retention
from core.store import keys
from core.store.room import Announced
from core.watch import Watch
from tests.integration.making import CPU, FAULT_OF_MODEL, MODEL, keys_of, submitted
from tests.zips import zip_of

ZIP = zip_of({"scan.txt": b"0"})
AT_ONCE = Announced(size=len(ZIP))
IN_STEPS = Announced()


async def _pieces(content: bytes = ZIP) -> AsyncIterator[bytes]:
    yield content


@pytest.fixture(autouse=True)
async def _model(dispatch: Dispatch) -> None:
    await dispatch.add_model(MODEL, Limits(timeout_seconds=100), None, Announced())


async def _submit(dispatch: Dispatch, options: Options | None = None) -> str:
    if options is None:
        return await submitted(dispatch, "copy", _pieces(), AT_ONCE)
    posted = Posted.once("copy", options)
    assert await dispatch.submit(posted, _pieces(), AT_ONCE)
    return posted.uid


async def _claim(dispatch: Dispatch, uid: str) -> int:
    claim = await dispatch.claim(uid, ClaimRequest(claim_id=secrets.token_hex(4), agent="a", host="h"))
    return claim.task.attempt


async def _swept(dispatch: Dispatch) -> None:
    for uid in await dispatch.store.connection.call("ZRANGE", keys.DUE, 0, -1):
        await dispatch.store.connection.call("ZADD", keys.DUE, 0, uid)
    await reaper.sweep(dispatch, Watch(dispatch))


@pytest.mark.parametrize("announced", [AT_ONCE, IN_STEPS])
async def test_posted_again(dispatch: Dispatch, announced: Announced) -> None:
    """The very same is the same task, whatever has become of it; anything else is refused, and leaves nothing."""
    uid = secrets.token_urlsafe(32)

    async def post(content: bytes = ZIP, options: Options = PLAIN) -> bool:
        return await dispatch.submit(Posted.repeatable("copy", options, uid), _pieces(content), announced)

    assert await post()
    before = await keys_of(dispatch.store)
    assert not await post()
    for other in (
        post(zip_of({"scan.txt": b"1"})),
        post(options=Options(priority=Priority.LOW)),
        post(options=Options(label={"study": "7"})),
    ):
        with pytest.raises(TaskExists):
            await other
    assert await keys_of(dispatch.store) == before
    await dispatch.finish(uid, await _claim(dispatch, uid), None)
    assert not await post()
    assert (await dispatch.task(uid)).state is State.FINISHED
    await dispatch.delete(uid)
    assert await post()


async def test_tried_again(dispatch: Dispatch) -> None:
    """With its input, all its tries and its history; asked for twice it happens once, and it can be cancelled then."""
    uid = await _submit(dispatch)
    with pytest.raises(TransitionRefused):
        await dispatch.retry(uid)
    await dispatch.fail(uid, await _claim(dispatch, uid), FAULT_OF_MODEL)
    failed = await dispatch.status(uid)
    assert (failed.state, failed.reason, failed.can_retry) == (State.FAILED, Reason.EXIT_NONZERO, True)
    for _ in range(2):
        await dispatch.retry(uid)
    again = await dispatch.status(uid)
    assert (again.state, again.reason, again.finished, again.position) == (State.PENDING, None, None, 0)
    assert again.input_bytes == len(ZIP)
    assert await _claim(dispatch, uid) == 2
    await dispatch.retry(uid)
    await dispatch.finish(uid, 2, _pieces())
    assert [attempt.reason for attempt in (await dispatch.status(uid)).attempts] == [Reason.EXIT_NONZERO, None]
    with pytest.raises(TransitionRefused):
        await dispatch.retry(uid)


async def test_an_input_is_kept_for_another_try(dispatch: Dispatch) -> None:
    """For so long; then it is gone, and the task stays."""
    uid = await _submit(dispatch)
    await dispatch.fail(uid, await _claim(dispatch, uid), FAULT_OF_MODEL)
    await _swept(dispatch)
    assert (await dispatch.task(uid)).can_retry
    ended = time.time() - timedelta(hours=dispatch.keep.inputs_hours).total_seconds() - 1
    await dispatch.store.connection.call("HSET", keys.task(uid), "finished", ended)
    await _swept(dispatch)
    assert not (await dispatch.status(uid)).can_retry
    with pytest.raises(InputGone):
        await dispatch.retry(uid)
    assert not any(key.startswith(("blob", "chunk")) for key in await keys_of(dispatch.store))


async def test_a_task_that_waited_too_long(dispatch: Dispatch) -> None:
    """Fails, and says so; one that runs by then goes on."""
    options = Options(ttl_seconds=60)
    late, running = [await _submit(dispatch, options) for _ in range(2)]
    attempt = await _claim(dispatch, running)
    await _swept(dispatch)
    assert (await dispatch.status(late)).state is State.PENDING
    for uid in (late, running):
        await dispatch.store.connection.call("HSET", keys.task(uid), "created", time.time() - 61)
    await _swept(dispatch)
    status = await dispatch.status(late)
    assert (status.state, status.reason) == (State.FAILED, Reason.EXPIRED)
    await dispatch.renew(running, attempt)
    await dispatch.retry(late)
    await _swept(dispatch)
    assert (await dispatch.status(late)).state is State.PENDING


async def test_the_sweep_comes_when_a_task_has_waited_for_long_enough(dispatch: Dispatch) -> None:
    """And not only when it would have looked at its message again."""
    uid = await _submit(dispatch, Options(ttl_seconds=7))
    await _swept(dispatch)
    [look] = (await dispatch.store.tasks.looks([uid])).values()
    assert look is not None
    assert not isinstance(look, Exception)
    due = float(await dispatch.store.connection.call("ZSCORE", keys.DUE, uid))
    assert look.task.expires
    assert due == pytest.approx(look.task.expires.timestamp(), abs=0.01)


async def test_a_run_may_be_given_less_time_than_its_model_has(dispatch: Dispatch) -> None:
    """Not more."""
    for asked, given in ((None, 100), (7, 7), (1000, 100)):
        uid = await _submit(dispatch, Options(timeout_seconds=asked))
        staged = await dispatch.stage(uid)
        claim = await dispatch.claim(uid, ClaimRequest(claim_id="c", **CPU.model_dump()))
        assert (claim.model.timeout_seconds, claim.model) == (given, staged.model)


async def test_positions(dispatch: Dispatch) -> None:
    """In the order of posting, and of priorities; who leaves is before nobody."""
    low = await _submit(dispatch, Options(priority=Priority.LOW))
    first, second, third = [await _submit(dispatch) for _ in range(3)]
    high = await _submit(dispatch, Options(priority=Priority.HIGH))

    async def positions() -> list[int | None]:
        return [(await dispatch.status(uid)).position for uid in (high, first, second, third, low)]

    assert await positions() == [0, 1, 2, 3, 4]
    await dispatch.cancel(first)
    attempt = await _claim(dispatch, second)
    assert await positions() == [0, None, None, 1, 2]
    await dispatch.release(second, attempt)
    await dispatch.delete(third)
    await dispatch.delete(high)
    third = high = low
    assert await positions() == [1, None, 0, 1, 1]
    waiting, oldest_seconds = await dispatch.store.waiting.figures(await dispatch.needs())
    assert waiting == 2
    assert 0 < oldest_seconds < 60


async def test_positions_are_put_right(dispatch: Dispatch) -> None:
    """What a crash left in the queue, and out of it."""
    first, second = [await _submit(dispatch) for _ in range(2)]
    await dispatch.store.connection.call("DEL", keys.waiting("normal", ""))
    await dispatch.store.connection.call("ZADD", keys.waiting("normal", ""), 1, "of-no-task")
    await _swept(dispatch)
    assert [(await dispatch.status(uid)).position for uid in (first, second)] == [0, 1]


async def test_posted_again_when_nothing_could_be_posted(dispatch: Dispatch) -> None:
    """It is there already: its model may be gone since, and still another zip is refused."""
    uid = secrets.token_urlsafe(32)
    posted = Posted.repeatable("copy", PLAIN, uid)
    assert await dispatch.submit(posted, _pieces(), AT_ONCE)
    await dispatch.store.connection.call("DEL", keys.MODELS)
    assert not await dispatch.submit(Posted.repeatable("copy", PLAIN, uid), _pieces(), AT_ONCE)
    with pytest.raises(TaskExists):
        await dispatch.submit(Posted.repeatable("copy", PLAIN, uid), _pieces(zip_of({"a": b"b"})), AT_ONCE)


async def test_a_uid_that_comes_back_is_indexed(dispatch: Dispatch) -> None:
    """A task that was deleted takes its entries along, and not those of the next one under its uid."""
    uid = secrets.token_urlsafe(32)
    assert await dispatch.submit(Posted.repeatable("copy", PLAIN, uid), _pieces(), AT_ONCE)
    await dispatch.store.tasks.forget(uid)
    assert await dispatch.store.connection.call("ZSCORE", keys.DUE, uid) is not None
    assert [task.uid for task in await dispatch.store.tasks.page(offset=0, limit=10)] == [uid]


async def test_a_task_under_a_models_uid_hides_no_zip(dispatch: Dispatch) -> None:
    """Models' uids are known to everybody, and may be chosen for tasks."""
    spec = MODEL.model_copy(update={"human_readable_id": "zipped", "model_available": True})
    model = await dispatch.add_model(spec, Limits(), _pieces(), Announced())
    assert model.zip
    await dispatch.submit(Posted.repeatable("copy", PLAIN, model.uid), _pieces(), AT_ONCE)
    await dispatch.store.connection.call("ZADD", keys.LOOSE, 0, model.zip.id)
    await _swept(dispatch)
    assert await dispatch.store.blobs.exist([model.zip]) == [True]


async def test_a_model_that_cant_be_read_harms_nobody(dispatch: Dispatch) -> None:
    """A later version's: its tasks wait, others go on."""
    uid = await _submit(dispatch)
    await dispatch.store.connection.call("HSET", keys.MODELS, "copy", codec.pack_plain({"id": "x"}))
    await dispatch.store.waiting.mend(dispatch.needs)
    await _swept(dispatch)
    assert (await dispatch.task(uid)).state is State.PENDING
    assert await dispatch.store.models.all() == []


def test_nothing_may_be_kept_at_all() -> None:
    """What is kept for no time is due at once, and not when the next thing is."""
    assert Retention(inputs_hours=0, outputs_hours=1, tasks_hours=2).next_seconds(0) == 0
    assert Retention(inputs_hours=0, outputs_hours=1, tasks_hours=2).next_seconds(1) == 3599
