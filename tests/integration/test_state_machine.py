"""A few tasks under whatever agents, consumers of version 1, operators and the reaper do, in any order.

Each step is made at `Dispatch` over a real Redis and a real RabbitMQ, and beside it at a model in Python of what a task
goes through. After each step the two agree.
"""

import asyncio
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from core.contract.errors import TaskNotFound, TransitionRefused, Unavailable
from core.contract.http import ClaimRequest, Noted
from core.contract.model import Limits, ModelSpec
from core.contract.task import TRANSITIONS, Attempt, Blob, Failure, Reason, Runner, State, Task
from core.dispatch import Dispatch
from core.store import keys
from core.store.room import Announced
from tests.integration.making import CPU, GPU, keys_of, submitted
from tests.zips import zip_of

# Fits into CI's time; its profile of hypothesis tries the same ones each time, a laptop's others.
EXAMPLES = 80
STEPS = 50

TASKS_AT_ONCE = 3
CALL_SECONDS = 30
MAX_ATTEMPTS = (4, 1)
INPUT = zip_of({"scan.txt": b"0"})
REASONS = [Reason.HANDED_BACK, Reason.ENGINE_ERROR, Reason.OUT_OF_MEMORY, Reason.EXIT_NONZERO]

RUNNING = "running"
WELL = "ended well"
DELIVER = "deliver"
CANCEL = "cancel"
RETRY = "retry"
NOTED = Noted(image="i", gpus=("GPU-1",))
Value = TypeVar("Value")


@dataclass
class Expected:
    """What a task should be. An attempt is RUNNING, ended WELL, or has a reason."""

    needs_gpu: bool
    max_attempts: int
    state: State = State.PENDING
    attempts: list[str] = field(default_factory=list)
    claims: list[tuple[str, int]] = field(default_factory=list)
    """Claim id and attempt of each claim by an agent, also of those that are over."""
    holder: str | None = None
    """Its claim id; a consumer of version 1 has none."""
    has_lease: bool = False
    lease_is_over: bool = False
    failures: Counter[Reason] = field(default_factory=Counter)
    reason: Reason | None = None
    has_output: bool = False
    was_retried: bool = False

    def may_be_claimed(self, runner: Runner, *, redelivered: bool) -> bool:
        is_abandoned = self.state is State.RUNNING and not self.has_lease and redelivered
        return (self.state is State.PENDING or is_abandoned) and (bool(runner.gpus) or not self.needs_gpu)

    def is_held_by(self, attempt: int | None) -> bool:
        if attempt is None:
            return self.state is State.PENDING or (self.state is State.RUNNING and not self.has_lease)
        return self.state is State.RUNNING and attempt == len(self.attempts)

    def is_back_from(self, attempt: int, how: str) -> bool:
        return self.state is State.PENDING and attempt == len(self.attempts) and self.attempts[-1] == how

    def begin(self, claim_id: str | None) -> None:
        if self.state is State.RUNNING:
            self.attempts[-1] = Reason.AGENT_LOST
        self.attempts.append(RUNNING)
        self.state, self.holder = State.RUNNING, claim_id
        self.has_lease, self.lease_is_over = claim_id is not None, False

    def end(self, outcome: str, state: State) -> None:
        if self.state is State.RUNNING:
            self.attempts[-1] = outcome
        self.state, self.holder, self.has_lease = state, None, False

    def fail(self, reason: Reason) -> None:
        self.reason = reason
        self.failures[reason] += 1
        is_tried_again = self.failures[reason] <= reason.retries and self.failures.total() < self.max_attempts
        self.end(reason, State.PENDING if is_tried_again else State.FAILED)


class TasksInAnyOrder(RuleBasedStateMachine):
    tasks = Bundle("tasks")

    def __init__(self, dispatch: Dispatch, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._dispatch = dispatch
        self._loop = loop
        self._expected: dict[str, Expected] = {}
        self._seen: dict[str, Task] = {}

    def _do(self, call: Coroutine[Any, Any, Value]) -> Value:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(CALL_SECONDS)

    def _is_accepted(self, call: Coroutine[Any, Any, object]) -> bool:
        try:
            self._do(call)
        except TransitionRefused:
            return False
        return True

    @precondition(lambda self: len(self._expected) < TASKS_AT_ONCE)
    @rule(target=tasks, needs_gpu=st.sampled_from([False, False, True]), max_attempts=st.sampled_from(MAX_ATTEMPTS))
    def submit(self, needs_gpu: bool, max_attempts: int) -> str:
        uid = self._do(
            submitted(self._dispatch, _model(needs_gpu, max_attempts), _stream(INPUT), Announced(len(INPUT)))
        )
        self._expected[uid] = Expected(needs_gpu, max_attempts)
        return uid

    @rule(
        uid=tasks,
        runner=st.sampled_from([GPU, GPU, CPU]),
        redelivered=st.booleans(),
        earlier=st.none() | st.integers(0),
    )
    def claim(self, uid: str, runner: Runner, redelivered: bool, earlier: int | None) -> None:
        """With a claim id of its own, or one that was sent before."""
        task = self._expected[uid]
        claim_id = secrets.token_hex(8)
        if earlier is not None and task.claims:
            claim_id, _ = task.claims[earlier % len(task.claims)]
        request = ClaimRequest(**runner.model_dump(), claim_id=claim_id, redelivered=redelivered)
        accepted = self._is_accepted(self._dispatch.claim(uid, request))
        if task.state is State.RUNNING and task.holder == claim_id:
            assert accepted
            task.lease_is_over = False
        elif task.may_be_claimed(runner, redelivered=redelivered):
            assert accepted
            task.begin(claim_id)
            task.reason = None
            task.claims.append((claim_id, len(task.attempts)))
        else:
            assert not accepted

    @rule(uid=tasks)
    def renew(self, uid: str) -> None:
        """By everyone who ever claimed it: one at most holds it."""
        task = self._expected[uid]
        holders = [
            attempt for _, attempt in task.claims if self._is_accepted(self._dispatch.renew(uid, attempt, noted=NOTED))
        ]
        assert holders == [attempt for _, attempt in task.claims if task.is_held_by(attempt)]
        assert len(holders) <= 1
        if holders:
            task.lease_is_over = False

    @rule(uid=tasks, earlier=st.integers(0), how=st.sampled_from([WELL, *REASONS]))
    def end(self, uid: str, earlier: int, how: str) -> None:
        """An agent that claimed it says how its attempt ended, be it late or again."""
        task = self._expected[uid]
        if not task.claims:
            return
        _, attempt = task.claims[-1 - earlier % len(task.claims)]
        is_latest = attempt == len(task.attempts)
        if how is WELL:
            self._finish(uid, attempt, has_output=True)
        elif how is Reason.HANDED_BACK:
            is_repeated = task.is_back_from(attempt, how)
            assert self._is_accepted(self._dispatch.release(uid, attempt)) == (task.is_held_by(attempt) or is_repeated)
            if task.is_held_by(attempt):
                task.end(how, State.PENDING)
        else:
            failure = Failure(reason=Reason(how), message="")
            is_repeated = (task.state is State.FAILED and is_latest) or task.is_back_from(attempt, how)
            accepted = self._is_accepted(self._dispatch.fail(uid, attempt, failure))
            assert accepted == (task.is_held_by(attempt) or is_repeated)
            if task.is_held_by(attempt):
                task.fail(failure.reason)

    @rule(uid=tasks, does=st.sampled_from([State.RUNNING, *State, DELIVER, CANCEL, RETRY]))
    def interfere(self, uid: str, does: State | str) -> None:
        """A consumer of version 1, which names no attempt, sets the status or delivers; an operator cancels."""
        if does == DELIVER:
            self._finish(uid, None, has_output=True)
        elif does == CANCEL:
            self._cancel(uid)
        elif does == RETRY:
            self._retry(uid)
        else:
            self._set_status(uid, State(does))

    def _cancel(self, uid: str) -> None:
        task = self._expected[uid]
        accepted = self._is_accepted(self._dispatch.cancel(uid))
        assert accepted == (not task.state.is_terminal or task.reason is Reason.CANCELLED)
        if not task.state.is_terminal:
            task.end(Reason.CANCELLED, State.FAILED)
            task.reason = Reason.CANCELLED

    def _retry(self, uid: str) -> None:
        """Of what was asked before, a second time changes nothing."""
        task = self._expected[uid]
        accepted = self._is_accepted(self._dispatch.retry(uid))
        is_repeated = task.was_retried and not task.state.is_terminal
        assert accepted == (task.state is State.FAILED or is_repeated)
        if accepted and not is_repeated:
            task.state, task.reason, task.was_retried = State.PENDING, None, True
            task.failures.clear()

    def _set_status(self, uid: str, state: State) -> None:
        task = self._expected[uid]
        accepted = self._is_accepted(self._dispatch.set_status(uid, state))
        assert accepted == (task.is_held_by(None) or task.state is state)
        if accepted and task.state is not state:
            match state:
                case State.RUNNING:
                    task.begin(None)
                case State.PENDING:
                    task.end(Reason.HANDED_BACK, State.PENDING)
                case State.FINISHED:
                    task.end(WELL, State.FINISHED)
                case State.FAILED:
                    task.fail(Reason.EXIT_NONZERO)

    def _finish(self, uid: str, attempt: int | None, *, has_output: bool) -> None:
        task = self._expected[uid]
        zip = _stream(secrets.token_bytes(8)) if has_output else None
        accepted = self._is_accepted(self._dispatch.finish(uid, attempt, zip))
        is_repeated = task.state is State.FINISHED and attempt in (None, len(task.attempts))
        assert accepted == (task.is_held_by(attempt) or is_repeated)
        if is_repeated:
            task.has_output |= attempt is None and has_output
        elif accepted:
            task.end(WELL, State.FINISHED)
            task.has_output = has_output

    @rule(uid=tasks, is_over=st.booleans(), is_swept=st.booleans())
    def expire(self, uid: str, is_over: bool, is_swept: bool) -> None:
        """Its lease runs out, or the reaper believes so, or both."""
        task = self._expected[uid]
        if is_over and task.has_lease:
            self._do(self._dispatch.store.connection.call("HSET", keys.task(uid), "lease_until", 1))
            task.lease_is_over = True
        if is_swept:
            self._do(self._dispatch.expire(self._do(self._dispatch.task(uid))))
            if task.has_lease and task.lease_is_over:
                task.fail(Reason.AGENT_LOST)

    @precondition(lambda self: len(self._expected) == TASKS_AT_ONCE)
    @rule(uid=consumes(tasks))
    def delete(self, uid: str) -> None:
        """Nobody can do anything with it afterwards."""
        self._do(self._dispatch.delete(uid))
        task = self._expected.pop(uid)
        attempts = [attempt for _, attempt in task.claims]
        for call in [self._dispatch.cancel(uid), *(self._dispatch.finish(uid, attempt, None) for attempt in attempts)]:
            with pytest.raises(TaskNotFound):
                self._do(call)
        assert not any(self._is_accepted(self._dispatch.renew(uid, attempt)) for attempt in attempts)

    @invariant()
    def all_is_well(self) -> None:
        for uid, expected in self._expected.items():
            task = self._do(self._dispatch.task(uid))
            _check(task, expected)
            _check_change(self._seen.get(uid, task), task)
            for blob in (task.input, task.output):
                assert blob is None or self._exists(blob)
            self._seen[uid] = task

    def _exists(self, blob: Blob) -> bool:
        """A machine that stands still for a moment makes Redis look away: that is no answer."""
        while isinstance(exists := self._do(self._dispatch.store.blobs.exist([blob]))[0], Unavailable):
            pass
        return exists is True

    def teardown(self) -> None:
        """Of deleted tasks nothing is left."""
        for uid in self._expected:
            self._do(self._dispatch.delete(uid))
        assert self._do(keys_of(self._dispatch.store)) <= {keys.MODELS, keys.MODEL_ID}


def _check(task: Task, expected: Expected) -> None:
    assert (task.state, task.attempt) == (expected.state, len(expected.attempts))
    assert [attempt.number for attempt in task.attempts] == list(range(1, task.attempt + 1))
    assert [_outcome(attempt) for attempt in task.attempts] == expected.attempts
    assert (task.failure.reason if task.failure else None) is expected.reason
    assert (task.output is not None) == expected.has_output
    assert expected.failures.total() <= expected.max_attempts


def _check_change(before: Task, task: Task) -> None:
    """What holds whatever was done."""
    assert task.state in TRANSITIONS[before.state] | {before.state}
    assert task.attempt - before.attempt in (0, 1)
    if before.state.is_terminal and task.state is before.state:
        # A consumer of version 1 may set the status first and post the output after.
        assert before.output in (None, task.output)
        assert task.model_copy(update={"output": None}) == before.model_copy(update={"output": None})
    assert (task.state is State.RUNNING) == any(attempt.ended is None for attempt in task.attempts)
    assert all(attempt.ended for attempt in task.attempts[:-1])
    assert (task.datetime_finished is not None) == task.state.is_terminal
    assert (task.input is None) == (task.state is State.FINISHED)
    assert task.state is not State.FAILED or task.failure


async def test_tasks_in_any_order(dispatch: Dispatch) -> None:
    """One state, one holder and one end a task, whoever does what when."""
    for needs_gpu in (False, True):
        for max_attempts in MAX_ATTEMPTS:
            spec = ModelSpec(human_readable_id=_model(needs_gpu, max_attempts), container_tag="m:1", use_gpu=needs_gpu)
            await dispatch.add_model(spec, Limits(max_attempts=max_attempts), None, Announced())
    loop = asyncio.get_running_loop()
    bounds = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    machine = cast(type[TasksInAnyOrder], lambda: TasksInAnyOrder(dispatch, loop))  # whatever makes one will do
    await asyncio.to_thread(run_state_machine_as_test, machine, settings=bounds)


def _model(needs_gpu: bool, max_attempts: int) -> str:
    return f"{'gpu' if needs_gpu else 'cpu'}-{max_attempts}"


async def _stream(content: bytes) -> AsyncIterator[bytes]:
    yield content


def _outcome(attempt: Attempt) -> str:
    if attempt.ended is None:
        return RUNNING
    return attempt.failure.reason if attempt.failure else WELL
