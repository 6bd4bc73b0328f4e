"""The scripts mirror the table of transitions, and let nobody write who doesn't hold the task."""

import itertools

import pytest

from core.contract.http import Noted
from core.contract.needs import Need
from core.contract.task import TRANSITIONS, Attempt, Failure, Reason, State, Task
from core.store import Store, keys
from core.store.tasks import LOST, Claimed, Ended, Failed, Look
from tests.integration.making import (
    CPU,
    FAULT_OF_ENGINE,
    FAULT_OF_MODEL,
    GPU,
    PAIR,
    claimed,
    in_state,
    pending,
    state_of,
    stored_blob,
)

CANCELLED = Failure(reason=Reason.CANCELLED, message="The task was cancelled")


async def _look(store: Store, uid: str) -> Look:
    [look] = (await store.tasks.looks([uid])).values()
    assert isinstance(look, Look)
    return look


async def _go(store: Store, uid: str, target: State) -> None:
    """Tries to take the task there, as its holder or, where nobody holds it, as a consumer of version 1."""
    attempt = 1 if await state_of(store, uid) is not State.PENDING else None
    match target:
        case State.PENDING:
            await store.tasks.release(uid, attempt)
            await store.tasks.retry(uid)
        case State.RUNNING:
            await store.tasks.claim(uid, CPU, claim_id="other", lease_seconds=9)
        case State.FINISHED:
            await store.tasks.finish(uid, attempt, None)
        case State.FAILED:
            await store.tasks.fail(uid, attempt, FAULT_OF_MODEL)


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(State, 2)))
async def test_scripts_and_table_agree(store: Store, source: State, target: State) -> None:
    """A task goes from one state to another exactly where the table says so."""
    uid = await in_state(store, source)
    await _go(store, uid, target)
    allowed = target in TRANSITIONS[source]
    assert await state_of(store, uid) is (target if allowed else source)


@pytest.mark.parametrize("state", [state for state in State if state.is_terminal])
async def test_an_end_is_an_end(store: Store, state: State) -> None:
    """No claim, lease or failure moves a task that has ended, and it keeps its times."""
    uid = await in_state(store, state)
    before = await store.tasks.get(uid)
    assert not await store.tasks.renew(uid, 1, lease_seconds=9)
    assert not await store.tasks.release(uid, 1)
    assert not await store.tasks.start_without_lease(uid)
    assert await store.tasks.cancel(uid, CANCELLED) is Failed.STALE
    assert await store.tasks.get(uid) == before


async def test_a_stale_attempt_writes_nothing(store: Store) -> None:
    """An agent that was cut off can't renew, finish, fail or release what its successor holds."""
    uid = await pending(store)
    await claimed(store, uid, lease_seconds=0.001)
    await store.tasks.fail(uid, 1, FAULT_OF_ENGINE)
    second = await claimed(store, uid, claim_id="second")
    assert second.attempt == 2
    assert not await store.tasks.renew(uid, 1, lease_seconds=9)
    assert not await store.tasks.release(uid, 1)
    assert await store.tasks.finish(uid, 1, await stored_blob(store, uid)) is Ended.STALE
    assert await store.tasks.fail(uid, 1, FAULT_OF_MODEL) is Failed.STALE
    assert await store.tasks.finish(uid, None, None) is Ended.STALE
    assert await store.tasks.get(uid) == second


async def test_a_claim_sent_twice_claims_once(store: Store) -> None:
    """When the answer to a claim is lost, the agent asks again and gets the same attempt; another agent gets none."""
    uid = await pending(store)
    first = await claimed(store, uid)
    assert (await claimed(store, uid)).attempt == first.attempt
    outcome, task = await store.tasks.claim(uid, CPU, claim_id="other", lease_seconds=9, redelivered=True)
    assert (outcome, task) == (Claimed.TAKEN, None)


async def test_a_finish_sent_twice_finishes_once(store: Store) -> None:
    """The second output is the caller's to drop: the first one stands."""
    uid = await in_state(store, State.FINISHED)
    first = await store.tasks.get(uid)
    assert await store.tasks.finish(uid, 1, await stored_blob(store, uid, b"again")) is Ended.REPEATED
    assert await store.tasks.get(uid) == first


async def test_a_failure_sent_twice_counts_once(store: Store) -> None:
    """When only its answer was lost, the agent hears the same again; another failure of that attempt is stale."""
    uid = await in_state(store, State.RUNNING)
    assert await store.tasks.fail(uid, 1, FAULT_OF_ENGINE) is Failed.PENDING
    first = await store.tasks.get(uid)
    assert await store.tasks.fail(uid, 1, FAULT_OF_ENGINE) is Failed.PENDING
    assert await store.tasks.fail(uid, 1, FAULT_OF_MODEL) is Failed.STALE
    assert not await store.tasks.release(uid, 1)
    assert await store.tasks.get(uid) == first
    assert await store.connection.call("HGET", keys.task(uid), "failures") == b"1"


async def test_a_task_handed_back_twice_is_back_once(store: Store) -> None:
    """Until somebody else takes it."""
    uid = await in_state(store, State.RUNNING)
    assert await store.tasks.release(uid, 1)
    first = await store.tasks.get(uid)
    assert await store.tasks.release(uid, 1)
    assert await store.tasks.fail(uid, 1, FAULT_OF_ENGINE) is Failed.STALE
    assert await store.tasks.get(uid) == first
    await claimed(store, uid, claim_id="second")
    assert not await store.tasks.release(uid, 1)


async def test_the_infrastructures_faults_are_tried_again_within_bounds(store: Store) -> None:
    """The last allowed attempt's failure is final, whatever its reason."""
    uid = await pending(store, max_attempts=2)
    await claimed(store, uid, claim_id="a")
    assert await store.tasks.fail(uid, 1, FAULT_OF_ENGINE) is Failed.PENDING
    await claimed(store, uid, claim_id="b")
    assert await store.tasks.fail(uid, 2, FAULT_OF_ENGINE) is Failed.FAILED


async def test_out_of_memory_is_tried_once_more(store: Store) -> None:
    """The first time its neighbours may have had the memory, the second time it is the model's own need."""
    uid = await pending(store, max_attempts=5)
    failure = Failure(reason=Reason.OUT_OF_MEMORY, message="", exit_code=137)
    await claimed(store, uid, claim_id="a")
    assert await store.tasks.fail(uid, 1, failure) is Failed.PENDING
    await claimed(store, uid, claim_id="b")
    assert await store.tasks.fail(uid, 2, FAULT_OF_ENGINE) is Failed.PENDING
    await claimed(store, uid, claim_id="c")
    assert await store.tasks.fail(uid, 3, failure) is Failed.FAILED


async def test_every_attempt_is_kept_with_how_it_ended(store: Store) -> None:
    """Who ran it where, on what, from when to when, which image, and why it ended."""
    uid = await pending(store)
    await claimed(store, uid, claim_id="a")
    await store.tasks.renew(uid, 1, lease_seconds=9, noted=Noted(image="copy@sha256:1"))
    await store.tasks.fail(uid, 1, FAULT_OF_ENGINE)
    await claimed(store, uid, claim_id="b")
    await store.tasks.release(uid, 2)
    await store.tasks.claim(uid, GPU, claim_id="c", lease_seconds=9)
    await store.tasks.finish(uid, 3, await stored_blob(store, uid), noted=Noted(image="copy@sha256:2"))
    task = await store.tasks.get(uid)
    assert task is not None
    first, second, third = task.attempts
    assert [attempt.number for attempt in task.attempts] == [1, 2, 3]
    assert (first.agent, first.host, first.gpus, first.image) == ("agent", "host", (), "copy@sha256:1")
    assert first.failure == FAULT_OF_ENGINE
    assert second.failure is not None
    assert (second.failure.reason, second.image) == (Reason.HANDED_BACK, None)
    assert (third.agent, third.gpus, third.image, third.failure) == ("gpu", ("GPU-1",), "copy@sha256:2", None)
    times = [time for attempt in task.attempts for time in (attempt.started, attempt.ended) if time]
    assert len(times) == 6
    assert times == sorted(times)


async def test_of_very_many_attempts_the_latest_are_kept(store: Store) -> None:
    """Agents that hand a task back for ever don't fill the memory."""
    uid = await pending(store)
    for number in range(1, 61):
        await claimed(store, uid, claim_id=str(number))
        assert await store.tasks.release(uid, number)
    task = await store.tasks.get(uid)
    assert task is not None
    assert [attempt.number for attempt in task.attempts] == list(range(11, 61))


@pytest.mark.parametrize("state", [State.PENDING, State.RUNNING])
async def test_a_cancelled_task_is_nobodys(store: Store, state: State) -> None:
    """It has failed at once, whoever held it; its agent may not renew, and nobody may claim it."""
    uid = await in_state(store, state)
    assert await store.tasks.cancel(uid, CANCELLED) is Failed.FAILED
    task = await store.tasks.get(uid)
    assert task is not None
    assert (task.state, task.failure) == (State.FAILED, CANCELLED)
    assert [attempt.failure for attempt in task.attempts] == [CANCELLED] * task.attempt
    assert not await store.tasks.renew(uid, 1, lease_seconds=9)
    assert await store.tasks.finish(uid, 1, await stored_blob(store, uid)) is Ended.STALE
    assert (await store.tasks.claim(uid, CPU, claim_id="late", lease_seconds=9))[0] is Claimed.TAKEN
    assert await store.tasks.cancel(uid, CANCELLED) is Failed.STALE


async def test_handing_back_counts_as_nobodys_failure(store: Store) -> None:
    """An agent that is restarted for an update costs a task none of its tries."""
    uid = await pending(store, max_attempts=1)
    for attempt in range(1, 4):
        await claimed(store, uid, claim_id=str(attempt))
        assert await store.tasks.release(uid, attempt)
    assert await state_of(store, uid) is State.PENDING


async def test_only_a_lease_that_is_over_expires(store: Store) -> None:
    """The server's clock decides, not the reaper's: a live lease survives a sweep that believes otherwise."""
    uid = await pending(store)
    await claimed(store, uid, lease_seconds=30)
    assert await store.tasks.fail(uid, 1, FAULT_OF_ENGINE, if_expired=True) is Failed.STALE
    await store.tasks.renew(uid, 1, lease_seconds=-1)
    assert await store.tasks.fail(uid, 1, FAULT_OF_ENGINE, if_expired=True) is Failed.PENDING


async def _claim_after(store: Store, uid: str, *, redelivered: bool) -> tuple[Claimed, Task | None]:
    return await store.tasks.claim(uid, CPU, claim_id="after", lease_seconds=9, redelivered=redelivered)


async def test_a_consumer_of_version_1_holds_no_lease(store: Store) -> None:
    """It sets the status itself; when it dies, the redelivered message lets another one take the task."""
    uid = await pending(store)
    assert await store.tasks.start_without_lease(uid)
    outcome, _ = await _claim_after(store, uid, redelivered=False)
    assert outcome is Claimed.TAKEN
    outcome, task = await _claim_after(store, uid, redelivered=True)
    assert outcome is Claimed.CLAIMED
    assert task is not None
    assert task.attempt == 2
    assert [attempt.failure for attempt in task.attempts] == [LOST, None]


async def test_without_a_gpu_no_claim_of_a_gpu_task(store: Store) -> None:
    """The first agent without a GPU that meets it says so, the next ones needn't; one with a GPU takes it."""
    uid = await pending(store, need=Need(gpu_count=1))
    said = []
    for number in range(2):
        outcome, _ = await store.tasks.claim(uid, CPU, claim_id=str(number), lease_seconds=9)
        said.append(outcome)
    assert said == [Claimed.UNSUITABLE, Claimed.WAITING]
    assert (await _look(store, uid)).is_bounced
    outcome, task = await store.tasks.claim(uid, GPU, claim_id="gpu", lease_seconds=9)
    assert outcome is Claimed.CLAIMED
    assert task is not None
    assert not (await _look(store, uid)).is_bounced


async def test_what_not_just_any_gpu_meets_is_claimed_by_who_serves_it(store: Store) -> None:
    """A message that got into another queue is dropped, and its task isn't taken for one that needs any GPU."""
    uid = await pending(store, need=PAIR)
    for runner in (CPU, GPU):
        outcome, _ = await store.tasks.claim(uid, runner, claim_id="from-main", lease_seconds=9)
        assert outcome is Claimed.WAITING
    look = await _look(store, uid)
    assert (look.task.need, look.is_bounced) == (PAIR, False)
    outcome, task = await store.tasks.claim(uid, GPU, claim_id="gpu", lease_seconds=9, serves=PAIR)
    assert outcome is Claimed.CLAIMED
    assert task is not None
    assert task.need == PAIR


async def test_an_attempt_tells_which_gpus_it_got(store: Store) -> None:
    """Those of its slot until it says so; then, with the next call, what it really has: none at first, perhaps."""
    uid = await pending(store, need=PAIR)
    runner = GPU.model_copy(update={"driver": "580.65"})
    await store.tasks.claim(uid, runner, claim_id="gpu", lease_seconds=9, serves=PAIR)
    seen = [await _attempt(store, uid)]
    for noted in (Noted(gpus=()), Noted(), Noted(image="copy@sha256:1", gpus=("GPU-2", "GPU-1"))):
        await store.tasks.renew(uid, 1, lease_seconds=9, noted=noted)
        seen.append(await _attempt(store, uid))
    assert [attempt.gpus for attempt in seen] == [("GPU-1",), (), (), ("GPU-2", "GPU-1")]
    assert (seen[-1].driver, seen[-1].image) == ("580.65", "copy@sha256:1")


async def _attempt(store: Store, uid: str) -> Attempt:
    task = await store.tasks.get(uid)
    assert task is not None
    [attempt] = task.attempts
    return attempt
