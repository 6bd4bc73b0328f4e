"""Tasks in Redis: each transition one script, fenced by the attempt that makes it."""

import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, Literal, Self

import structlog

from core.contract import codec
from core.contract.errors import ContractError, TaskNotFound, Unavailable
from core.contract.http import Noted
from core.contract.model import Model
from core.contract.needs import ANY, Need
from core.contract.options import PLAIN, Options
from core.contract.task import Attempt, Blob, Failure, Progress, Reason, Runner, State, Task
from core.gathering import Gathering, Noting
from core.observe import REQUEST
from core.store import keys
from core.store.connection import Connection, script, soon
from core.store.waiting import waiting_key

log = structlog.get_logger()

FIRST_LOOK_SECONDS: Final = 5.0
"""A task that a crash left between its commit and its message is rung after this."""

LOOK_SECONDS: Final = 30.0
"""A rung task that still waits is looked at this often: did its message survive? In a long queue less often."""

CREATE_SECONDS: Final = 120.0
"""Long after this no late command of a core that stood still makes the task of an index entry."""

NOTED_AT_ONCE: Final = 200

LEASE_MARGIN_SECONDS: Final = 0.5
WITHOUT_LEASE_SECONDS: Final = 60.0
FORWARD_AT_ONCE: Final = 1000
SEARCHED: Final = 20_000
SEARCHED_AT_ONCE: Final = 500

NOTHING: Final = Noted()
LOST: Final = Failure(reason=Reason.AGENT_LOST, message="The agent that ran the task was lost")
HANDED_BACK: Final = Failure(reason=Reason.HANDED_BACK, message="The agent that ran the task was stopped")


class Claimed(StrEnum):
    CLAIMED = "claimed"
    TAKEN = "taken"
    UNSUITABLE = "unsuitable"
    """It needs a GPU, and this is the first agent without one that met it."""
    WAITING = "waiting"
    """It needs what this agent doesn't have, and those who do are rung elsewhere."""
    GONE = "gone"


class Created(StrEnum):
    CREATED = "created"
    SAME = "same"
    """It was posted before."""
    OTHER = "other"
    """Something else was posted under its uid."""


class Retried(StrEnum):
    PENDING = "pending"
    GONE = "gone"
    """Its input was not kept."""
    STALE = "stale"


class Turn(StrEnum):
    """Who sweeps."""

    BEGINS = "begins"
    GOES_ON = "goes on"
    OTHERS = "others"


class OutputChanged(Exception):
    """A task got its output just now."""


class Ended(StrEnum):
    DONE = "done"
    REPEATED = "repeated"
    STALE = "stale"


class Failed(StrEnum):
    FAILED = "failed"
    PENDING = "pending"
    REPEATED = "repeated"
    STALE = "stale"


@dataclass(frozen=True)
class NewTask:
    """What a client submits."""

    uid: str
    model_human_readable_id: str
    input: Blob
    need: Need
    max_attempts: int
    options: Options = PLAIN
    fingerprint: str = ""
    """Of what was posted under a uid that its client chose; else empty."""
    model_uid: str = ""
    owner: str = ""
    """Id of the key that it is posted with."""
    request_id: str = field(default_factory=REQUEST.get)

    @classmethod
    def of(
        cls, model: Model, uid: str, input: Blob, options: Options = PLAIN, fingerprint: str = "", owner: str = ""
    ) -> Self:
        return cls(
            uid,
            model.human_readable_id,
            input,
            need=model.need,
            max_attempts=model.max_attempts,
            options=options,
            fingerprint=fingerprint,
            model_uid=model.uid,
            owner=owner,
        )


@dataclass(frozen=True)
class Ending:
    """How a task ended, if it has."""

    state: State
    output: Blob | None
    failure: Failure | None
    owner: str


@dataclass(frozen=True)
class Look:
    """What the reaper needs to know of a task."""

    task: Task
    rung_at: float | None
    """Epoch second at which the broker confirmed its message."""
    lease_seconds: float | None
    """Left of its lease, by this process's clock; the script that ends it asks the server's."""
    is_announced: bool
    """The broker confirmed the message of its end."""
    is_bounced: bool
    """An agent without a GPU met it, so that it was rung again for those with one."""


class Tasks:
    """A stale attempt is a normal return value: whoever was cut off learns that it has lost the task.

    What somebody acts upon is kept: a task that was accepted, an attempt that begins, an end.
    """

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self._sweeper = secrets.token_bytes(8)
        self._create = script(connection, "create", kept=True)
        self._create_uploaded = script(connection, "uploaded", "create", kept=True)
        self._ring = script(connection, "ring")
        self._rung = Gathering(self._ring.each, at_once=NOTED_AT_ONCE)
        self._first_ring = script(connection, "first_ring")
        self._first_rung = Noting(self._note_first_rings, at_once=NOTED_AT_ONCE)
        self._announce = script(connection, "announce")
        self._drop = script(connection, "drop", kept=True)
        self._claim = script(connection, "claim", kept=True)
        self._renew = script(connection, "renew")
        self._finish = script(connection, "finish", kept=True)
        self._fail = script(connection, "fail", kept=True)
        self._release = script(connection, "release", kept=True)
        self._start_without_lease = script(connection, "start_without_lease", kept=True)
        self._retry = script(connection, "retry", kept=True)
        self._cancel = script(connection, "cancel", kept=True)
        self._remove = script(connection, "remove", kept=True)
        self._turn = script(connection, "turn")
        self._bring_forward = script(connection, "bring_forward")

    async def create(self, new: NewTask, *, writer: int | None = None) -> Created:
        """Commits the task; sent twice it commits once. The indexes come first: a crash leaves an entry without a task,
        never the reverse. OTHER, if it comes of a resumable upload: the `writer` has lost that to a younger one, or the
        uid to another task.
        """
        now = time.time()
        await self._index(new.uid, now)
        args: list[str | bytes | float] = [new.fingerprint, new.input.id, *fields_of(new)]
        if writer is None:
            answer = await self._create(keys=[keys.task(new.uid)], args=args)
        else:
            args = [writer, *args, "uploaded", new.input.size, "posted", new.input.id]
            answer = await self._create_uploaded(keys=[keys.task(new.uid), keys.upload(new.uid)], args=args)
        created = Created(answer.decode())
        if created is Created.CREATED:
            await self._redis.note("ZADD", waiting_key(new.options.priority, new.need), "NX", now, new.uid)
        # The sweep may have taken the entries for a dead core's, or they were those of a deleted task and went with it.
        if new.fingerprint or time.time() - now > FIRST_LOOK_SECONDS / 2:
            await self._index(new.uid, now)
        return created

    async def fingerprint(self, uid: str) -> str | None:
        """Of what was posted under that uid, empty if its client didn't choose it. None: nothing was."""
        state, fingerprint = await self._redis.ask("HMGET", keys.task(uid), "state", "fingerprint")
        return None if state is None else (fingerprint or b"").decode()

    async def owner(self, uid: str) -> str:
        """Id of the key that it was posted with, empty if it was with none. Raises TaskNotFound."""
        state, owner = await self._redis.ask("HMGET", keys.task(uid), "state", "owner")
        if state is None:
            raise TaskNotFound
        return (owner or b"").decode()

    async def get(self, uid: str) -> Task | None:
        fields = await self._redis.ask("HGETALL", keys.task(uid))
        return _task(fields) if fields else None

    async def each(self, uids: Sequence[str]) -> list[Task | ContractError | None]:
        """None where there is no such task. One that can't be asked for or read doesn't stand in another's way."""
        answers = await self._redis.call_each(("HGETALL", keys.task(uid)) for uid in uids)
        return [_task_or_error(uid, answer) for uid, answer in zip(uids, answers, strict=True)]

    async def endings(self, uids: Sequence[str]) -> list[Ending | ContractError | None]:
        """None where there is no such task, Unavailable where it isn't known. One doesn't stand in another's way."""
        answers = await self._redis.call_each(("HMGET", keys.task(uid), *_ENDING) for uid in uids)
        return [_ending(uid, answer) for uid, answer in zip(uids, answers, strict=True)]

    def ended(self) -> AsyncIterator[str]:
        """The uid of each task that ends or is deleted, from now on; as `Connection.heard`."""
        return self._redis.heard(keys.ENDED)

    async def page(self, *, offset: int, limit: int, wanted: Callable[[Task], bool] | None = None) -> list[Task]:
        """Newest first. Those that are wanted are looked for among the newest SEARCHED."""
        if wanted is None:
            return await self._some(offset, limit)
        found: list[Task] = []
        for start in range(0, SEARCHED, SEARCHED_AT_ONCE):
            tasks = await self._some(start, SEARCHED_AT_ONCE)
            found += filter(wanted, tasks)
            if len(found) >= offset + limit or not tasks:
                break
        return found[offset : offset + limit]

    async def _some(self, offset: int, limit: int) -> list[Task]:
        uids = await self._redis.call("ZREVRANGE", keys.TASKS, offset, offset + limit - 1)
        records = await self._redis.call_all(("HGETALL", keys.task(uid.decode())) for uid in uids)
        return [_task(fields) for fields in records if fields]

    async def ring(self, uid: str) -> None:
        """Notes that the broker has confirmed the message of a task."""
        await self._rung.ask(keys.task(uid))

    def note_first_ring(self, new: NewTask) -> None:
        """As `ring`, a moment later, and if it can be: a task of which it isn't known is rung once more."""
        self._first_rung.note(new)

    async def noted(self) -> None:
        """What nobody waits for is in Redis, if it can be."""
        await self._first_rung.noted()

    async def _note_first_rings(self, rung: Sequence[NewTask]) -> None:
        """Where one server has all the keys, the first look is put off, too: most tasks have ended by then."""
        names = [keys.task(new.uid) for new in rung]
        with suppress(Unavailable):
            async with soon():
                if self._redis.is_spread:
                    await self._first_ring.each(names)
                else:
                    now = time.time()
                    looks = [now + min(LOOK_SECONDS, new.options.ttl_seconds or LOOK_SECONDS) for new in rung]
                    await self._first_ring(keys=[*names, keys.DUE], args=[now, *looks])

    async def hold(self, uid: str, *, seconds: float) -> bool:
        """Notes that an agent has the message of a task, for so long. False: it is not pending (any more)."""
        return bool(await self._ring(keys=[keys.task(uid)], args=[seconds]))

    async def announce(self, uid: str) -> None:
        """Notes that the broker has confirmed the message of a task's end."""
        await self._announce(keys=[keys.task(uid)])

    async def drop(self, uid: str, which: Literal["input", "output"]) -> bool:
        """The task no longer names its input or output, which is the caller's to remove. False: it needs the input."""
        return bool(await self._drop(keys=[keys.task(uid)], args=[which]))

    async def retry(self, uid: str) -> Retried:
        """failed → pending, with all tries anew."""
        await self._look_within(uid, FIRST_LOOK_SECONDS)
        return Retried((await self._retry(keys=[keys.task(uid)])).decode())

    async def claim(
        self,
        uid: str,
        runner: Runner,
        *,
        claim_id: str,
        lease_seconds: float,
        redelivered: bool = False,
        serves: Need = ANY,
    ) -> tuple[Claimed, Task | None]:
        """pending → running. Sent twice with the same `claim_id` it claims once."""
        args: list[str | bytes | float] = [claim_id, codec.pack(runner), lease_seconds]
        args += [int(bool(runner.gpus)), serves.name, int(redelivered), codec.pack(LOST)]
        await self._look_within(uid, lease_seconds + LEASE_MARGIN_SECONDS)
        outcome, *rest = await self._claim(keys=[keys.task(uid)], args=args)
        if not rest:
            return Claimed(outcome.decode()), None
        return Claimed.CLAIMED, _task(_fields(rest[0]))

    async def renew(self, uid: str, attempt: int, *, lease_seconds: float, noted: Noted = NOTHING) -> bool:
        """False: the attempt no longer holds the task, its container must go."""
        return bool(await self._renew(keys=[keys.task(uid)], args=[attempt, lease_seconds, *_noted(noted)]))

    async def finish(self, uid: str, attempt: int | None, output: Blob | None, *, noted: Noted = NOTHING) -> Ended:
        """running → finished. No attempt: a consumer of version 1, whose output may come apart from the status."""
        args: list[str | bytes] = [_number(attempt), codec.pack(output) if output else "", *_noted(noted)]
        return Ended((await self._finish(keys=[keys.task(uid)], args=args)).decode())

    async def fail(
        self, uid: str, attempt: int | None, failure: Failure, *, noted: Noted = NOTHING, if_expired: bool = False
    ) -> Failed:
        """running → failed, or pending again when the reason allows it and tries are left."""
        reason = failure.reason
        args: list[str | bytes | int] = [_number(attempt), codec.pack(failure), reason.value, reason.retries]
        args += [int(if_expired), *_noted(noted)]
        return Failed((await self._fail(keys=[keys.task(uid)], args=args)).decode())

    async def release(self, uid: str, attempt: int | None) -> bool:
        """running → pending, which counts as nobody's failure."""
        args: list[str | bytes] = [_number(attempt), codec.pack(HANDED_BACK)]
        return bool(await self._release(keys=[keys.task(uid)], args=args))

    async def start_without_lease(self, uid: str) -> bool:
        """pending → running for a consumer of version 1."""
        await self._look_within(uid, WITHOUT_LEASE_SECONDS)
        return bool(await self._start_without_lease(keys=[keys.task(uid)], args=[codec.pack(Runner())]))

    async def cancel(self, uid: str, failure: Failure, *, if_pending: bool = False) -> Failed:
        """pending or running → failed, whoever holds it."""
        await self._look_within(uid, FIRST_LOOK_SECONDS)
        args: list[str | bytes | int] = [codec.pack(failure), int(if_pending)]
        return Failed((await self._cancel(keys=[keys.task(uid)], args=args)).decode())

    async def remove(self, uid: str, *, output: Blob | None) -> Task | None:
        """The task as it was. Its indexes go with it. Raises OutputChanged, and nothing is done, when it has another
        output than that.
        """
        args = [codec.pack(output) if output else ""]
        flat: Sequence[bytes] | bytes = await self._remove(keys=[keys.task(uid)], args=args)
        if isinstance(flat, bytes):
            raise OutputChanged
        await self.forget(uid)
        return _task(_fields(flat)) if flat else None

    async def withdraw(self, uid: str) -> None:
        """Takes a task back that `create` may have made. Its entries stay: the step may be on its way still."""
        await self._remove(keys=[keys.task(uid)], args=[""])

    async def forget(self, uid: str) -> None:
        """Takes a task that is no more off the indexes, when its log has gone. Another one may be posted just now under
        its uid.
        """
        await self._redis.call("UNLINK", keys.log(uid))
        await self._redis.call("ZREM", keys.TASKS, uid)
        await self._redis.call("ZREM", keys.DUE, uid)
        if await self._redis.call("EXISTS", keys.task(uid)):
            await self._index(uid, time.time())

    async def _index(self, uid: str, now: float) -> None:
        await self._redis.note("ZADD", keys.DUE, "NX", now + FIRST_LOOK_SECONDS, uid, kept=True)
        await self._redis.note("ZADD", keys.TASKS, "NX", now, uid, kept=True)

    async def forget_missing(self, uid: str) -> bool:
        """As `forget`, but young entries stay (False): the step that makes the task may be on its way still."""
        created = await self._redis.call("ZSCORE", keys.TASKS, uid)
        if created is not None and float(created) > time.time() - CREATE_SECONDS:
            await self.look_again(uid, after_seconds=CREATE_SECONDS / 2)
            return False
        await self.forget(uid)
        return True

    async def due(self, *, before: float, limit: int) -> list[str]:
        """Tasks at which the reaper should have looked before that epoch second, the longest due first."""
        uids = await self._redis.call("ZRANGEBYSCORE", keys.DUE, 0, before, "LIMIT", 0, limit)
        return [uid.decode() for uid in uids]

    async def looks(self, uids: Sequence[str]) -> dict[str, Look | Exception | None]:
        """None: there is no such task. An exception: what stands there can't be read."""
        records = await self._redis.call_all(("HGETALL", keys.task(uid)) for uid in uids)
        return {uid: _look(fields) if fields else None for uid, fields in zip(uids, records, strict=True)}

    async def look_again(self, uid: str, *, after_seconds: float) -> None:
        await self.look_at({uid: time.time() + after_seconds})

    async def look_at(self, times: Mapping[str, float]) -> None:
        """Each task at its epoch second. XX: one that was removed meanwhile doesn't come back to the index."""
        if times:
            entries: list[str | float] = [part for uid, at in times.items() for part in (at, uid)]
            await self._redis.note("ZADD", keys.DUE, "XX", *entries)

    async def _look_within(self, uid: str, seconds: float) -> None:
        """Before a transition that makes a look due which may be far off: a crash between the two mustn't hide it."""
        await self._redis.note("ZADD", keys.DUE, "XX", "LT", time.time() + seconds, uid)

    async def bring_forward(self, *, until: float) -> None:
        """All that would be due before that epoch second is due now."""
        now, moved = time.time(), FORWARD_AT_ONCE
        while moved == FORWARD_AT_ONCE:
            moved = await self._bring_forward(keys=[keys.DUE], args=[now, until, FORWARD_AT_ONCE])

    async def turn(self, *, seconds: float) -> Turn:
        """Whether this process is the one that sweeps for so long; to save work, not to rely on."""
        args: list[bytes | int] = [self._sweeper, int(seconds * 1000)]
        return Turn((await self._turn(keys=[keys.REAPER], args=args)).decode())


def _look(fields: Mapping[bytes, bytes]) -> Look | Exception:
    try:
        until = float(fields[b"lease_until"]) if b"lease_until" in fields else None
        return Look(
            task=_task(fields),
            rung_at=float(fields[b"rung"]) if b"rung" in fields else None,
            lease_seconds=None if until is None else until - time.time(),
            is_announced=b"announced" in fields,
            is_bounced=b"bounced" in fields,
        )
    except (KeyError, ValueError) as error:
        return error


_ENDING: Final = ("state", "output", "failure", "owner")


def _task_or_error(uid: str, answer: Mapping[bytes, bytes] | Exception) -> Task | ContractError | None:
    if isinstance(answer, Exception):
        return answer if isinstance(answer, ContractError) else Unavailable()
    try:
        return _task(answer) if answer else None
    except (KeyError, ValueError) as error:  # of a newer core, say
        log.error("task.unreadable", task=uid, error=repr(error))
        return Unavailable()


def _ending(uid: str, answer: Sequence[bytes | None] | Exception) -> Ending | ContractError | None:
    if isinstance(answer, Exception):
        return answer if isinstance(answer, ContractError) else Unavailable()
    state, output, failure, owner = answer
    if state is None:
        return None
    try:
        return Ending(
            State(state.decode()),
            codec.unpack(Blob, output) if output else None,
            codec.unpack(Failure, failure) if failure else None,
            owner.decode() if owner else "",
        )
    except ValueError as error:  # of a newer core, say
        log.error("task.unreadable", task=uid, error=repr(error))
        return Unavailable()


def fields_of(new: NewTask) -> list[str | bytes | float]:
    """As the scripts know them: name, value, name, value, …"""
    fields: list[str | bytes | float] = ["uid", new.uid, "model", new.model_human_readable_id]
    fields += ["input", codec.pack(new.input), "max_attempts", new.max_attempts]
    fields += ["model_uid", new.model_uid] if new.model_uid else []
    fields += ["needs", "gpu"] if new.need.gpu_count else []
    fields += ["fingerprint", new.fingerprint, "posted", new.input.id] if new.fingerprint else []
    fields += ["options", codec.pack(new.options)] if new.options != PLAIN else []
    fields += ["request", new.request_id] if new.request_id else []
    fields += ["owner", new.owner] if new.owner else []
    return fields + (["need", new.need.name] if new.need.name else [])


def _fields(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    """A hash as a script returns it: name, value, name, value, …"""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _number(attempt: int | None) -> str:
    """As the scripts know it."""
    return "" if attempt is None else str(attempt)


def _noted(noted: Noted) -> list[str | bytes]:
    """As the scripts know it: name, value, name, value, …"""
    fields: list[str | bytes] = ["image", noted.image] if noted.image else []
    fields += [] if noted.revision is None else ["revision", str(noted.revision)]
    return fields if noted.gpus is None else [*fields, "gpus", codec.pack_plain(noted.gpus)]


def _time(seconds: bytes) -> datetime:
    return datetime.fromtimestamp(float(seconds), UTC)


def _attempts(fields: Mapping[bytes, bytes]) -> tuple[Attempt, ...]:
    """Those that are kept, oldest first."""
    numbers = (
        int(name.split(b":")[1]) for name in fields if name.startswith(b"attempt:") and name.endswith(b":runner")
    )
    return tuple(_attempt(number, fields) for number in sorted(numbers))


def _attempt(number: int, fields: Mapping[bytes, bytes]) -> Attempt:
    def field(what: bytes) -> bytes | None:
        return fields.get(b"attempt:%d:%b" % (number, what))

    ended, image, gpus, failure = field(b"ended"), field(b"image"), field(b"gpus"), field(b"failure")
    revision = field(b"revision")
    runner = codec.unpack_plain(fields[b"attempt:%d:runner" % number])
    return Attempt(
        number=number,
        **(runner | {"gpus": codec.unpack_plain(gpus)} if gpus else runner),
        started=_time(fields[b"attempt:%d:started" % number]),
        ended=_time(ended) if ended else None,
        image=image.decode() if image else None,
        revision=int(revision) if revision else None,
        failure=codec.unpack(Failure, failure) if failure else None,
    )


def _task(fields: Mapping[bytes, bytes]) -> Task:
    return Task(
        uid=fields[b"uid"].decode(),
        model_human_readable_id=fields[b"model"].decode(),
        model_uid=fields.get(b"model_uid", b"").decode(),
        datetime_created=_time(fields[b"created"]),
        datetime_dispatched=_time(fields[b"dispatched"]) if b"dispatched" in fields else None,
        datetime_finished=_time(fields[b"finished"]) if b"finished" in fields else None,
        input=codec.unpack(Blob, fields[b"input"]) if b"input" in fields else None,
        output=codec.unpack(Blob, fields[b"output"]) if b"output" in fields else None,
        state=State(fields[b"state"].decode()),
        attempt=int(fields[b"attempt"]),
        attempts=_attempts(fields),
        failure=codec.unpack(Failure, fields[b"failure"]) if b"failure" in fields else None,
        need=_need(fields),
        options=codec.unpack(Options, fields[b"options"]) if b"options" in fields else PLAIN,
        datetime_queued=_time(fields[b"queued"]) if b"queued" in fields else None,
        request_id=fields.get(b"request", b"").decode(),
        owner=fields.get(b"owner", b"").decode(),
        progress=codec.unpack(Progress, fields[b"progress"]) if b"progress" in fields else None,
    )


def _need(fields: Mapping[bytes, bytes]) -> Need:
    if b"need" in fields:
        return Need.named(fields[b"need"].decode())
    return Need(gpu_count=int(b"needs" in fields))
