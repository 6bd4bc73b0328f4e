"""The heart: what happens to a task between its submission and its end.

Redis is the truth and RabbitMQ the bell. Each step commits in Redis first and rings after; whatever a crash leaves
between the two, the reaper puts right.
"""

import asyncio
import secrets
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, Literal, TypeVar

import structlog

from core import erasing, metrics
from core.agents import lack
from core.amqp import Broker
from core.contract.agent import AgentReport, Wanted
from core.contract.errors import (
    ContractError,
    InputGone,
    InvalidParameters,
    ModelChanged,
    ModelDisabled,
    ModelExists,
    ModelNotFound,
    OutputGone,
    TaskExists,
    TaskFailed,
    TaskNotFinished,
    TaskNotFound,
    TooLarge,
    TransitionRefused,
    Unavailable,
)
from core.contract.http import FINISHED, STAGED_SECONDS, Admission, Claim, ClaimRequest, Noted, Outcome, Staged
from core.contract.images import ANY_IMAGE, ImageAllowance, repository_of
from core.contract.key import OPERATOR, Caller
from core.contract.live import Said
from core.contract.model import Limits, Model, ModelSpec
from core.contract.needs import ANY, Need
from core.contract.options import Options
from core.contract.queues import FINISHED_EXPIRE_MS
from core.contract.status import TaskStatus
from core.contract.task import Blob, Failure, Reason, Runner, State, Task, new_uid
from core.posted import Posted
from core.retention import Retention
from core.store import Store
from core.store.blobs import CUT_OFF_SECONDS, Upload
from core.store.connection import SOON_SECONDS, soon
from core.store.erasures import Erasure
from core.store.room import Announced
from core.store.submissions import SUBMIT_SECONDS
from core.store.tasks import LOST, NOTHING, Claimed, Created, Ended, Ending, Failed, NewTask, OutputChanged, Retried
from core.webhooks import PUBLIC, Guard
from core.zipcheck import ZipCheck

log = structlog.get_logger()

AGAIN_SECONDS: Final = 5.0
LAST_AGAIN_SECONDS: Final = 60.0
"""What the infrastructure failed at isn't tried again at once, and each time later: a host in trouble would use up all
tries in a second."""

ORPHANED: Final = Failure(reason=Reason.MODEL_DELETED, message="The task's model was deleted while it waited")

End = TypeVar("End", Ended, Failed)

WITHDRAW_SECONDS: Final = 60.0
WITHDRAW_AGAIN_SECONDS: Final = 1.0

EXPLAINED_SECONDS: Final = 0.4
"""After the task itself was read, so that both together are answered within two seconds."""


@dataclass(frozen=True)
class Dispatch:
    """Methods raise the errors of core/contract/errors.py; a stale attempt is told apart from a missing task."""

    store: Store
    broker: Broker
    lease_seconds: float
    max_upload_bytes: int
    check_zip: ZipCheck
    keep: Retention
    log_bytes: int
    """Of what a task's containers print so much is kept."""
    guard: Guard = PUBLIC
    """Whom webhooks may be sent to."""
    images: ImageAllowance = ANY_IMAGE
    """Those that models may have."""
    keys_required: bool = False
    """Clients of gateways need an API key."""
    _withdrawals: set[asyncio.Task[None]] = field(default_factory=set)

    async def admit(self, *, model: str | None, size: int | None) -> Admission:
        """Room for a body, asked before it is sent. `model` is the one that a task is for."""
        if model is not None:
            await self.model_that_takes(model)
        if size is not None and size > self.max_upload_bytes:
            raise TooLarge.over(self.max_upload_bytes)
        return Admission(max_bytes=self.max_upload_bytes, ticket=await self.store.room.ticket(size))

    def check(self, options: Options) -> None:
        """Raises InvalidParameters."""
        if options.webhook:
            self.guard.check(options.webhook)

    async def submit(self, posted: Posted, zip: AsyncIterable[bytes], announced: Announced) -> bool:
        """Stores, checks, commits and rings. Whoever hears from here can rely on the task's end. False: the very same
        was posted before. Raises TaskExists if something else was.
        """
        self.check(posted.options)
        if posted.fingerprint and (earlier := await self.store.tasks.fingerprint(posted.uid)) is not None:
            await self._compared(posted, zip, earlier)
            return False
        submit = self._submit_small if self.store.submissions.takes(announced.size) else self._submit
        async with self.store.quotas.begun(posted.caller, posted.uid):
            new, created = await submit(posted, posted.fingerprinted(zip), announced)
        if created is Created.OTHER:
            raise TaskExists
        if created is Created.SAME:
            return False
        log.info("task.created", task=new.uid, model=posted.model, size=new.input.size)
        metrics.TASKS_POSTED.labels(posted.model).inc()
        await self.ring_first(new)
        return True

    async def _compared(self, posted: Posted, zip: AsyncIterable[bytes], earlier: str) -> None:
        """What is posted again with what was posted; its model may be gone since, or the store full."""
        async for _ in posted.fingerprinted(zip):
            pass
        if posted.task_fingerprint != earlier:
            raise TaskExists
        log.info("task.posted_again", task=posted.uid)

    async def _submit(self, posted: Posted, zip: AsyncIterable[bytes], announced: Announced) -> tuple[NewTask, Created]:
        model = await self.model_that_takes(posted.model)
        async with self.incoming(posted.uid, announced) as upload:
            blob = await self.received(upload, zip)
            async with upload.offered():
                new = posted.task(model, blob)
                try:
                    created = await self.store.tasks.create(new)
                except Unavailable:
                    await self._withdraw_in_doubt(new, seconds=SOON_SECONDS)
                    raise
                if created is not Created.CREATED:
                    upload.withdraw()
        return new, created

    async def _submit_small(self, posted: Posted, zip: AsyncIterable[bytes], _: Announced) -> tuple[NewTask, Created]:
        """As `_submit`, in one trip. What its client takes back by going away was never there."""
        content = b"".join([piece async for piece in zip])
        await self.check_zip.content(content)
        blob = Blob(id=secrets.token_hex(16), size=len(content))
        while seen := await self.store.models.seen(posted.model):
            if seen.model.enabled:
                new = posted.task(seen.model, blob)
                try:
                    created = await self.store.submissions.submit(new, content, seen)
                except Unavailable:
                    await self._withdraw_in_doubt(new, seconds=SOON_SECONDS - SUBMIT_SECONDS)
                    raise
                if created:
                    return new, created
            await self.model_that_takes(posted.model)
        raise ModelNotFound

    async def _withdraw_in_doubt(self, new: NewTask, *, seconds: float) -> None:
        """A task that may be there though its client hears otherwise would run for nobody. One that its client may post
        again stays: it may have been posted before. Waits for it no longer than so many seconds.
        """
        if not new.fingerprint:
            withdrawing = asyncio.create_task(self._withdraw(new), name=f"withdraw {new.uid}")
            self._withdrawals.add(withdrawing)
            withdrawing.add_done_callback(self._withdrawals.discard)
            await asyncio.wait({withdrawing}, timeout=seconds)

    async def _withdraw(self, new: NewTask) -> None:
        """Its zip is the sweep's. Both are sent, whatever becomes of the other; while Redis is away, again: when it was
        frozen, it does at its waking what it was told before.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(WITHDRAW_SECONDS):
                while True:
                    loosening = self.store.blobs.loosen([new.input], seconds=CUT_OFF_SECONDS)
                    steps = (loosening, self.store.tasks.withdraw(new.uid))
                    done = await asyncio.gather(*steps, return_exceptions=True)
                    if not any(isinstance(answer, Unavailable) for answer in done):
                        return
                    await asyncio.sleep(WITHDRAW_AGAIN_SECONDS)

    async def ring(self, uid: str, *, queue: str) -> bool:
        """Tells the agents that a task waits. False while the broker is away: the reaper rings later."""
        is_rung = await self._publish(uid, queue)
        if is_rung:
            with suppress(Unavailable):  # then it is rung once more
                async with soon():
                    await self.store.tasks.ring(uid)
        return is_rung

    async def ring_first(self, new: NewTask) -> None:
        """As `ring`, for a task that was just made: its client needn't wait until it is noted."""
        if await self._publish(new.uid, self.broker.settings.queue_for(new.need, new.options.priority)):
            self.store.tasks.note_first_ring(new)

    async def _publish(self, uid: str, queue: str) -> bool:
        try:
            await self.broker.publish(queue, uid)
        except Unavailable as error:
            log.warning("task.unrung", task=uid, error=str(error))
            return False
        return True

    async def task(self, uid: str) -> Task:
        task = await self.store.tasks.get(uid)
        if task is None:
            raise TaskNotFound
        return task

    async def explained(self, tasks: Sequence[Task]) -> list[Task]:
        """With what those that are pending wait for, as far as no agent has it and it is known in time."""
        if not any(task.state is State.PENDING for task in tasks):
            return list(tasks)
        try:
            async with soon(EXPLAINED_SECONDS):
                agents = await self.store.agents.all()
        except Unavailable:
            return list(tasks)
        lacks = {need: lack(need, agents) for need in {task.need for task in tasks}}
        return [
            task.model_copy(update={"waits_for": lacks[task.need]}) if task.state is State.PENDING else task
            for task in tasks
        ]

    async def status(self, uid: str) -> TaskStatus:
        [status] = await self.statuses([await self.task(uid)])
        return status

    async def statuses(self, tasks: Sequence[Task]) -> list[TaskStatus]:
        """With what each waits for and behind how many others, as far as that is known in time."""
        tasks = await self.explained(tasks)
        pending = [task for task in tasks if task.state is State.PENDING]
        positions: dict[str, int | None] = {}
        if pending:
            with suppress(Unavailable):
                async with soon(EXPLAINED_SECONDS):
                    found = await self.store.waiting.positions(pending)
                    positions = {task.uid: position for task, position in zip(pending, found, strict=True)}
        return [TaskStatus.of(task.model_copy(update={"position": positions.get(task.uid)})) for task in tasks]

    async def input(self, uid: str) -> Blob:
        """The posted zip, as long as the task may need it."""
        task = await self.task(uid)
        if task.input is None:
            raise InputGone
        return task.input

    async def output(self, uid: str) -> Blob:
        """The output zip, or the error that says why there is none."""
        [output] = await self._outputs([uid])
        if isinstance(output, ContractError):
            raise output
        return output

    async def outcomes(
        self, uids: Sequence[str], callers: Sequence[Caller | ContractError] | None = None
    ) -> list[Outcome]:
        """What clients who ask for these tasks' outputs are to be told, without the outputs. `callers`: who asks for
        each, or why they may not.
        """
        outputs = await self._outputs(uids, callers)
        return [FINISHED if isinstance(output, Blob) else Outcome.of(output) for output in outputs]

    async def outcome(self, uid: str) -> Outcome:
        [outcome] = await self.outcomes([uid])
        return outcome

    async def _outputs(
        self, uids: Sequence[str], callers: Sequence[Caller | ContractError] | None = None
    ) -> list[Blob | ContractError]:
        """As `output`, for many in as many trips."""
        async with soon():
            endings = await self.store.tasks.endings(uids)
        outputs = [_output(*asked) for asked in zip(endings, callers or [OPERATOR] * len(uids), strict=True)]
        there = [output for output in outputs if isinstance(output, Blob)]
        exist = dict(zip((blob.id for blob in there), await self.store.blobs.exist(there), strict=True))
        return [_if_there(output, exist[output.id]) if isinstance(output, Blob) else output for output in outputs]

    async def claim(self, uid: str, request: ClaimRequest) -> Claim:
        """pending → running. TransitionRefused: somebody has it, or an agent that has more must; drop the message."""
        outcome, task = await self.store.tasks.claim(
            uid,
            Runner(**request.model_dump(include=set(Runner.model_fields))),
            claim_id=request.claim_id,
            lease_seconds=self.lease_seconds,
            redelivered=request.redelivered,
            serves=request.serves,
        )
        if outcome is Claimed.GONE:
            raise TaskNotFound
        if outcome is Claimed.UNSUITABLE:
            priority = (await self.task(uid)).options.priority
            if not await self.ring(uid, queue=self.broker.settings.gpu_queue_for(priority)):
                raise Unavailable("The task needs an agent with a GPU, which can't be rung at the moment")
        if task is None:
            raise TransitionRefused(f"The task can't be claimed: {outcome}")
        log.info("task.claimed", task=uid, attempt=task.attempt, agent=request.agent)
        metrics.note_claim(task)
        try:
            model, _ = await asyncio.gather(self._model_for(task), self.store.waiting.leave(task))
        except ModelNotFound:
            await self.fail(uid, task.attempt, ORPHANED)
            raise TransitionRefused(ORPHANED.message) from None
        return Claim(task=task, model=model, lease_seconds=self.lease_seconds)

    async def stage(self, uid: str) -> Staged:
        """A pending task for an agent that has its message and would run it next. It claims it when it does."""
        task = await self.task(uid)
        if not await self.store.tasks.hold(uid, seconds=STAGED_SECONDS):
            raise TransitionRefused
        return Staged(task=task, model=await self._model_for(task))

    async def _model_for(self, task: Task) -> Model:
        """Within the time that the task's client gives it. Another one that was given its name is not its model."""
        model = await self.model(task.model_human_readable_id)
        if task.model_uid not in ("", model.uid):
            raise ModelNotFound
        longest = min(model.timeout_seconds, task.options.timeout_seconds or model.timeout_seconds)
        return model if longest == model.timeout_seconds else model.model_copy(update={"timeout_seconds": longest})

    async def renew(self, uid: str, attempt: int, *, noted: Noted = NOTHING) -> None:
        """TransitionRefused: the attempt has lost the task, its container must go."""
        if not await self.store.tasks.renew(uid, attempt, lease_seconds=self.lease_seconds, noted=noted):
            raise TransitionRefused

    async def tell(self, uid: str, attempt: int, said: Said) -> None:
        """What the attempt's container prints. TransitionRefused: nobody wants to hear it (any more)."""
        if not await self.store.logs.append(uid, attempt, said, kept_bytes=self.log_bytes):
            raise TransitionRefused

    async def finish(
        self, uid: str, attempt: int | None, zip: AsyncIterable[bytes] | None, *, noted: Noted = NOTHING
    ) -> Task:
        """running → finished with an output. Sent twice it finishes once; the second output is dropped."""
        if zip is None:
            task = await self.task(uid)
            outcome = await self._finish(task, attempt, None, noted)
        else:
            async with self.store.blobs.upload(uid, max_bytes=self.max_upload_bytes) as upload:
                await upload.begin()
                task = await self.task(uid)  # behind it: a deletion finds no task here, or sees that zip there
                blob = await self.received(upload, zip, is_output=True)
                async with upload.offered():
                    outcome = await self._finish(task, attempt, blob, noted)
                    if outcome is not Ended.DONE:
                        upload.withdraw()
        if outcome is Ended.STALE:
            raise TransitionRefused
        return await self.task(uid)

    async def fail(self, uid: str, attempt: int | None, failure: Failure, *, noted: Noted = NOTHING) -> Task:
        """running → failed, or pending again if the reason allows it: the sweep rings it after a moment."""
        task = await self.task(uid)
        outcome = await self._fail(task, attempt, failure, noted=noted)
        if outcome is Failed.STALE:
            raise TransitionRefused
        log.info("attempt.failed", task=uid, attempt=attempt, reason=failure.reason, task_is=outcome)
        return await self.task(uid)

    async def expire(self, task: Task) -> bool:
        """The lease of a running task has run out: its agent is taken for dead. False: it was renewed just now."""
        outcome = await self._fail(task, task.attempt, LOST, if_expired=True)
        if outcome is Failed.STALE:
            return False
        log.warning("lease.expired", task=task.uid, attempt=task.attempt, task_is=outcome)
        metrics.LEASES_EXPIRED.inc()
        return True

    async def expire_without_lease(self, task: Task) -> bool:
        """A consumer of version 1 runs the task. If it dies, the broker redelivers its message; where that is lost as
        well, the longest that the model may run is the bound. False: it has time still.
        """
        model = await self.store.models.get(task.model_human_readable_id)
        limit = timedelta(seconds=(model or Limits()).timeout_seconds)
        if task.datetime_dispatched is None or datetime.now(UTC) - task.datetime_dispatched <= limit:
            return False
        outcome = await self._fail(task, task.attempt, LOST)
        log.warning("consumer.lost", task=task.uid, attempt=task.attempt, task_is=outcome)
        return True

    async def release(self, uid: str, attempt: int | None) -> Task:
        """running → pending and rung: an agent that drains hands its task back."""
        task = await self.task(uid)
        if not await self.store.tasks.release(uid, attempt):
            raise TransitionRefused
        log.info("task.released", task=uid, attempt=attempt)
        await self.store.waiting.enter([task])
        await self.ring(uid, queue=self.broker.settings.queue_for(task.need, task.options.priority))
        return await self.task(uid)

    async def cancel(self, uid: str) -> Task:
        """pending or running → failed. A running container goes at its agent's next renewal. Twice is as once."""
        task = await self.task(uid)
        failure = Failure(reason=Reason.CANCELLED, message="The task was cancelled")
        transition = partial(self.store.tasks.cancel, uid, failure)
        if await self._end(task, transition, Failed.FAILED) is Failed.FAILED:
            log.info("task.cancelled", task=uid, attempt=task.attempt)
            metrics.note_end(task, failure)
        task = await self.task(uid)
        if task.failure is None or task.failure.reason is not Reason.CANCELLED:
            raise TransitionRefused("The task has ended")
        return task

    async def expire_waiting(self, task: Task) -> bool:
        """A task has waited for longer than its client wanted. False: it runs, or has ended."""
        failure = Failure(reason=Reason.EXPIRED, message="No agent took the task in the time that it was given")
        return await self._end_waiting(task, failure)

    async def orphan(self, task: Task) -> bool:
        """A task's model was deleted while it waited. False: it runs, or has ended."""
        return await self._end_waiting(task, ORPHANED)

    async def _end_waiting(self, task: Task, failure: Failure) -> bool:
        """Of many at once, as when a model is deleted: the sweep, which found them, announces their ends, too."""
        transition = partial(self.store.tasks.cancel, task.uid, failure, if_pending=True)
        if await transition() is not Failed.FAILED:
            return False
        await self.store.waiting.leave(task)
        await self.store.tasks.look_again(task.uid, after_seconds=0)
        metrics.note_end(task, failure)
        return True

    async def retry(self, uid: str) -> None:
        """failed → pending, with the input that it had and all its tries. Twice is as once."""
        task = await self.task(uid)
        match await self.store.tasks.retry(uid):
            case Retried.STALE:
                raise TransitionRefused(f"Only a task that failed can be tried again; this one is {task.state}")
            case Retried.GONE:
                raise InputGone
        if task.state is State.FAILED:
            log.info("task.retried", task=uid, attempts=task.attempt)
            await self.store.waiting.enter([await self.task(uid)])
            await self.ring(uid, queue=self.broker.settings.queue_for(task.need, task.options.priority))

    async def set_status(self, uid: str, state: State) -> Task:
        """A consumer of version 1 says how far it is. It names no attempt and holds no lease."""
        task = await self.task(uid)
        if task.state is state:
            return task
        match state:
            case State.RUNNING:
                if not await self.store.tasks.start_without_lease(uid):
                    raise TransitionRefused
                return await self.task(uid)
            case State.FINISHED:
                return await self.finish(uid, None, None)
            case State.FAILED:
                message = "The consumer that ran the task set it to failed"
                return await self.fail(uid, None, Failure(reason=Reason.EXIT_NONZERO, message=message))
            case State.PENDING:
                return await self.release(uid, None)

    async def delete(self, uid: str) -> Task:
        """The task as it was; nothing of it stays, and the log says so. A running container goes at its agent's next
        renewal.
        """
        task, log_entries = await asyncio.gather(self.task(uid), self.store.logs.length(uid))
        erasure = Erasure.of_task(task, log_entries=log_entries)
        await self.store.erasures.begin(erasure)
        await self.store.blobs.loosen(blob for blob in (task.input, task.output) if blob)
        try:
            removed = await self.store.tasks.remove(uid, output=task.output)
        except OutputChanged:
            return await self.delete(uid)
        if removed is None:
            raise TaskNotFound
        for blob in (removed.input, removed.output):
            if blob:
                await self._remove(blob)
        await self.store.erasures.unlist(erasure)
        log.info("task.deleted", task=uid, state=task.state)
        await erasing.show(self.store, erasure)
        return task

    async def retention(self, task: Task) -> Retention:
        """As model and settings say now: a task takes nothing of it along."""
        model = await self.store.models.get(task.model_human_readable_id)
        return self.keep.of(model) if model else self.keep

    async def drop(self, task: Task, which: Literal["input", "output"]) -> bool:
        """The zip was kept for long enough: the task stays, and says that there is none. False: it is needed again."""
        blob = task.input if which == "input" else task.output
        if blob is None:
            return False
        await self.store.blobs.loosen([blob])
        dropped = await self.store.tasks.drop(task.uid, which)
        if dropped:
            await self._remove(blob)
        return dropped

    async def needs(self) -> set[Need]:
        """What tasks may ask of agents: those of any agent, and of the models that there are."""
        return {ANY, *(model.need for model in await self.store.models.all())}

    async def model(self, human_readable_id: str) -> Model:
        model = await self.store.models.get(human_readable_id)
        if model is None:
            raise ModelNotFound
        return model

    async def model_that_takes(self, human_readable_id: str) -> Model:
        """As `model`, for a new task."""
        model = await self.model(human_readable_id)
        if not model.enabled:
            raise ModelDisabled
        return model

    async def add_model(
        self, spec: ModelSpec, limits: Limits, zip: AsyncIterable[bytes] | None, announced: Announced
    ) -> Model:
        """Raises ModelExists before it reads the zip, and after if somebody was quicker."""
        if spec.model_available and zip is None:
            raise InvalidParameters.missing("body", "zip_file")
        if zip is not None and not spec.model_available:
            raise InvalidParameters.wrong("query", "model_available", "a zip was sent, so this must be true")
        if not spec.use_gpu and (limits.gpu_count > 1 or limits.gpu_memory_mb):
            raise InvalidParameters.wrong("query", "use_gpu", "the model asks for GPUs, so this must be true")
        self.images.check(spec.container_tag)
        if await self.store.models.get(spec.human_readable_id):
            raise ModelExists
        uid = new_uid()
        if zip is None:
            model = await self.store.models.add(uid, spec, limits, None)
        else:
            async with self.incoming(uid, announced) as upload:
                blob = await self.received(upload, zip)
                async with upload.offered():
                    model = await self.store.models.add(uid, spec, limits, blob)
        log.info("model.added", model=model.human_readable_id, image=model.container_tag)
        return model

    async def heard(self, report: AgentReport) -> Wanted:
        """An agent says who it is, and learns for which needs there are models."""
        await self.store.agents.note(report)
        needs = sorted((need for need in await self.needs() if need.name), key=lambda need: need.name)
        return Wanted(needs=tuple(needs))

    @asynccontextmanager
    async def incoming(self, owner: str, announced: Announced) -> AsyncIterator[Upload]:
        """Raises StoreFull before anything is read if it doesn't fit; outputs of running tasks aren't asked."""
        async with (
            self.store.room.reserved(announced) as reservation,
            self.store.blobs.upload(owner, max_bytes=self.max_upload_bytes, reservation=reservation) as upload,
        ):
            yield upload

    async def received(self, upload: Upload, zip: AsyncIterable[bytes], *, is_output: bool = False) -> Blob:
        """The whole zip in the store, its directory checked; an output is trusted to be what the agent made."""
        async for piece in zip:
            await upload.write(piece)
        blob = await upload.close()
        if not is_output:
            await upload.alive_during(self.check_zip(blob))
        return blob

    async def _finish(self, task: Task, attempt: int | None, output: Blob | None, noted: Noted) -> Ended:
        transition = partial(self.store.tasks.finish, task.uid, attempt, output, noted=noted)
        outcome = await self._end(task, transition, Ended.DONE)
        if outcome is Ended.DONE:
            log.info("task.finished", task=task.uid, attempt=attempt, size=output.size if output else None)
            metrics.note_end(task)
            await self._pin(task, noted)
        return outcome

    async def _pin(self, task: Task, noted: Noted) -> None:
        """The image of the model's revision, if that is wanted: at the next end, if it can't be now."""
        name, _, digest = noted.image.partition("@")
        with suppress(Unavailable, ModelChanged):
            seen = await self.store.models.seen(task.model_human_readable_id)
            if seen is None or not seen.model.pin or seen.model.digest or seen.model.revision != noted.revision:
                return
            is_its_name = repository_of(name) == repository_of(seen.model.container_tag)  # others can't be pulled by it
            if digest and is_its_name and task.model_uid in ("", seen.model.uid):
                await self.store.models.change(seen, seen.model.model_copy(update={"digest": digest}))
                log.info("model.pinned", model=seen.model.human_readable_id, digest=digest)

    async def _fail(
        self, task: Task, attempt: int | None, failure: Failure, *, noted: Noted = NOTHING, if_expired: bool = False
    ) -> Failed:
        transition = partial(self.store.tasks.fail, task.uid, attempt, failure, noted=noted, if_expired=if_expired)
        outcome = await self._end(task, transition, Failed.FAILED)
        if outcome in (Failed.FAILED, Failed.PENDING):
            metrics.ATTEMPTS_FAILED.labels(task.model_human_readable_id, failure.reason).inc()
        if outcome is Failed.FAILED:
            metrics.note_end(task, failure)
        if outcome is Failed.PENDING:
            await self.store.tasks.look_again(task.uid, after_seconds=0 if if_expired else _again_seconds(task))
        return outcome

    async def _end(self, task: Task, transition: Callable[[], Awaitable[End]], end: End) -> End:
        """A transition that may end the task. If it finishes it, the input has served; if that isn't known, the sweep
        asks the task whether the input is its own still. The end is announced.
        """
        inputs: list[Blob] = [task.input] if task.input and end is Ended.DONE else []
        await self.store.blobs.loosen(inputs)
        outcome = await transition()
        if outcome is end:
            for blob in inputs:
                await self._remove(blob)
            if task.state is State.PENDING:
                await self.store.waiting.leave(task)
            if await self.announce(task, has_just_ended=True):
                keep = await self.retention(task)
                await self.store.tasks.look_again(task.uid, after_seconds=keep.next_seconds(0))
        return outcome

    async def _remove(self, blob: Blob) -> None:
        """After a transition, which stands: what can't be removed now is the sweep's."""
        try:
            removed = await self.store.blobs.remove(blob.id)
            log.info("zip.erased", blob=blob.id, chunks=removed, bytes=blob.size)
        except Unavailable as error:
            log.warning("blob.left", blob=blob.id, error=str(error))

    async def announce(self, task: Task, *, has_just_ended: bool = False) -> bool:
        """Tells whoever listens on the finished queue of a task's end, and has its webhook told. False while the broker
        is away: the sweep comes back.
        """
        uid = task.uid
        if task.options.webhook:
            await self.store.webhooks.add(uid, has_just_ended=has_just_ended)
        try:
            await self.broker.publish(self.broker.settings.finished_job_queue, uid, expire_ms=FINISHED_EXPIRE_MS)
        except Unavailable as error:
            log.warning("task.end_unrung", task=uid, error=str(error))
            await self.store.tasks.look_again(uid, after_seconds=AGAIN_SECONDS)
            return False
        await self.store.tasks.announce(uid)
        return True


def _if_there(output: Blob, exists: bool | ContractError) -> Blob | ContractError:
    if isinstance(exists, ContractError):
        return exists
    return output if exists else OutputGone()


def _output(ending: Ending | ContractError | None, caller: Caller | ContractError) -> Blob | ContractError:
    """The output, as far as the task knows, or the error that says why there is none for the caller."""
    if isinstance(caller, ContractError):
        return caller
    if ending is None or (isinstance(ending, Ending) and not caller.may_see(ending.owner)):
        return TaskNotFound()
    if isinstance(ending, ContractError):
        return ending
    if ending.state is State.FAILED:
        failure = ending.failure or Failure(reason=Reason.EXIT_NONZERO, message="")
        return TaskFailed.because(reason=failure.reason, message=failure.message, exit_code=failure.exit_code)
    if ending.state is not State.FINISHED:
        return TaskNotFinished()
    return ending.output or OutputGone()


def _again_seconds(task: Task) -> float:
    """Until a task is rung again that one more attempt has failed."""
    earlier = sum(attempt.failure is not None for attempt in task.attempts if attempt.number != task.attempt)
    return min(AGAIN_SECONDS * 2.0**earlier, LAST_AGAIN_SECONDS)
