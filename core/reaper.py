"""Puts right what a crash left between two steps: unrung tasks, expired leases, zips without an owner. Removes what was
kept for long enough.

Any core may sweep; a lock in Redis lets one at a time, only to save work: each repair is a fenced transition.
"""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import structlog

from core import erasing
from core.contract.errors import StoreFull, TaskNotFound, Unavailable
from core.contract.task import State, Task
from core.dispatch import Dispatch
from core.metrics import repaired
from core.observe import on_behalf_of
from core.store.tasks import LEASE_MARGIN_SECONDS, WITHOUT_LEASE_SECONDS, Look, Turn
from core.watch import Watch

log = structlog.get_logger()

SWEEP_SECONDS: Final = 1.0
SWEEPER_SECONDS: Final = 5.0
"""How long a core that died in a sweep keeps the others from it."""

BATCH: Final = 200
RETRY_SECONDS: Final = 2.0
ANNOUNCE_SECONDS: Final = 5.0
UNREADABLE_SECONDS: Final = 3600.0


async def sweep_for_ever(dispatch: Dispatch) -> None:
    """One sweep a second; while Redis is away or full, quietly again."""
    watch = Watch(dispatch)
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            turn = await dispatch.store.tasks.turn(seconds=SWEEPER_SECONDS)
            if turn is Turn.BEGINS:
                watch = Watch(dispatch)
            if turn is not Turn.OTHERS:
                await sweep(dispatch, watch)
        except (Unavailable, StoreFull) as error:
            log.warning("sweep.postponed", error=str(error))
            await asyncio.sleep(RETRY_SECONDS)


async def sweep(dispatch: Dispatch, watch: Watch) -> None:
    """Everything that is due now, a batch at a time, as long as it is this core's turn."""
    await watch.begin()
    before = time.time()  # what is due again meanwhile is the next sweep's: the rest mustn't wait for it
    while uids := await dispatch.store.tasks.due(before=before, limit=BATCH):
        await _look_at(dispatch, watch, uids)
        if await dispatch.store.tasks.turn(seconds=SWEEPER_SECONDS) is Turn.OTHERS:
            return
    for loose in await dispatch.store.blobs.abandoned(limit=BATCH):
        try:
            if await dispatch.store.uploads.is_coming(loose):
                await dispatch.store.blobs.look_again(loose)
                continue
            is_owned = await _is_owned(dispatch, loose.owner, loose.id)
        except (KeyError, ValueError) as error:
            log.error("owner.unreadable", owner=loose.owner, blob=loose.id, error=repr(error))
            await dispatch.store.blobs.look_again(loose)
            continue
        if is_owned:
            await dispatch.store.blobs.hold(loose)
        else:
            removed = await dispatch.store.blobs.remove(loose.id)
            log.info("zip.erased", blob=loose.id, owner=loose.owner, chunks=removed)
            repaired("zip without owner", blob=loose.id, owner=loose.owner)
    await erasing.sweep(dispatch.store)
    await dispatch.store.waiting.mend(dispatch.needs)
    if taken_back := await dispatch.store.room.take_back():
        log.info("room.taken_back", uploads=taken_back)


async def _look_at(dispatch: Dispatch, watch: Watch, uids: Sequence[str]) -> None:
    tasks = dispatch.store.tasks
    waiting: list[Look] = []
    expired: list[str] = []
    for uid, look in (await tasks.looks(uids)).items():
        try:
            if isinstance(look, Exception):
                raise look
            if look is None:
                if await tasks.forget_missing(uid):
                    repaired("entry without task", task=uid)
                continue
            with on_behalf_of(look.task.request_id):
                if look.task.state is State.PENDING:
                    if not await _expired(dispatch, look.task):
                        waiting.append(look)
                elif look.task.state is State.RUNNING:
                    if await _look_at_running(dispatch, look):
                        expired.append(uid)
                else:
                    await _look_at_ended(dispatch, watch, look)
        except (KeyError, ValueError) as error:
            log.error("task.unreadable", task=uid, error=repr(error))
            await tasks.look_again(uid, after_seconds=UNREADABLE_SECONDS)
    waiting = await _not_orphaned(dispatch, waiting)
    await dispatch.store.waiting.enter(look.task for look in waiting)
    again = await watch.ring_if_silent(waiting)
    expiries = {look.task.uid: look.task.expires.timestamp() for look in waiting if look.task.expires}
    await tasks.look_at(again | {uid: min(again[uid], at) for uid, at in expiries.items()})
    if expired:
        await _look_at(dispatch, watch, expired)  # to ring them, or tell their end


async def _not_orphaned(dispatch: Dispatch, looks: Sequence[Look]) -> list[Look]:
    """Those whose model is registered still, which they were posted for. It is asked for after the tasks: what a new
    model's first task finds must be there.
    """
    uids = await dispatch.store.models.uids() if looks else {}
    left = []
    for look in looks:
        task = look.task
        is_registered = uids.get(task.model_human_readable_id, "") in (None, task.model_uid)
        if is_registered or not task.model_uid or not await dispatch.orphan(task):
            left.append(look)
        else:
            repaired("model deleted", task=task.uid)
    return left


async def _expired(dispatch: Dispatch, task: Task) -> bool:
    """It has waited for longer than its client wanted it to."""
    if task.expires is None or task.expires > datetime.now(UTC) or not await dispatch.expire_waiting(task):
        return False
    repaired("waited too long", task=task.uid)
    return True


async def _look_at_running(dispatch: Dispatch, look: Look) -> bool:
    """Whether its attempt was ended, its agent being lost."""
    uid = look.task.uid
    left = WITHOUT_LEASE_SECONDS if look.lease_seconds is None else max(look.lease_seconds, 0)
    await dispatch.store.tasks.look_again(uid, after_seconds=left + LEASE_MARGIN_SECONDS)
    if look.lease_seconds is None:
        if await dispatch.expire_without_lease(look.task):
            repaired("consumer lost", task=uid)
    elif look.lease_seconds <= 0 and await dispatch.expire(look.task):
        repaired("lease expired", task=uid)
        return True
    return False


async def _look_at_ended(dispatch: Dispatch, watch: Watch, look: Look) -> None:
    """The broker may be away for longer than an output is kept: what is due goes before the end is announced."""
    task = look.task
    keep = await dispatch.retention(task)
    age_seconds = (datetime.now(UTC) - (task.datetime_finished or task.datetime_created)).total_seconds()
    if keep.is_task_due(age_seconds):
        with suppress(TaskNotFound):  # somebody deleted it meanwhile
            await dispatch.delete(task.uid)
            repaired("task expired", task=task.uid)
        return
    if task.output and keep.is_output_due(age_seconds) and await dispatch.drop(task, "output"):
        repaired("output expired", task=task.uid)
    if task.input and keep.is_input_due(age_seconds) and await dispatch.drop(task, "input"):
        repaired("input expired", task=task.uid)
    is_announced = look.is_announced or await watch.announce(task)
    after_seconds = keep.next_seconds(age_seconds) if is_announced else ANNOUNCE_SECONDS
    await dispatch.store.tasks.look_again(task.uid, after_seconds=after_seconds)


async def _is_owned(dispatch: Dispatch, owner: str, blob_id: str) -> bool:
    task, model = await asyncio.gather(dispatch.store.tasks.get(owner), dispatch.store.models.by_uid(owner))
    blobs = [*((task.input, task.output) if task else ()), *((model.zip,) if model else ())]
    return any(blob.id == blob_id for blob in blobs if blob)
