"""Puts right what a crash left between two steps: unrung tasks, expired leases, zips without an owner. Removes what was
kept for long enough.

Any core may sweep; a lock in Redis lets one at a time, only to save work: each repair is a fenced transition.
"""

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import structlog

from core import metrics
from core.amqp import Depth
from core.contract.errors import StoreFull, TaskNotFound, Unavailable
from core.contract.task import State
from core.dispatch import Dispatch
from core.store.tasks import LEASE_MARGIN_SECONDS, Look

log = structlog.get_logger()

SWEEP_SECONDS: Final = 1.0
SWEEPER_SECONDS: Final = 5.0
"""How long a core that died in a sweep keeps the others from it."""

BATCH: Final = 200
RING_AGAIN_SECONDS: Final = 30.0
"""A rung task that still waits is looked at this often: did its message survive?"""

RETRY_SECONDS: Final = 2.0
ANNOUNCE_SECONDS: Final = 5.0
WITHOUT_LEASE_SECONDS: Final = 60.0
UNREADABLE_SECONDS: Final = 3600.0
EMPTY_MARGIN_SECONDS: Final = 2.0
"""Between a message and its claim the queue is empty and the task pending still."""


async def sweep_for_ever(dispatch: Dispatch) -> None:
    """One sweep a second; while Redis is away or full, quietly again."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            if await dispatch.store.tasks.may_sweep(seconds=SWEEPER_SECONDS):
                await sweep(dispatch)
        except (Unavailable, StoreFull) as error:
            log.warning("sweep.postponed", error=str(error))
            await asyncio.sleep(RETRY_SECONDS)


async def sweep(dispatch: Dispatch) -> None:
    """Everything that is due now, a batch at a time."""
    before = time.time()  # what is due again meanwhile is the next sweep's: the rest mustn't wait for it
    while uids := await dispatch.store.tasks.due(before=before, limit=BATCH):
        bell = _Bell(dispatch)
        for uid in uids:
            try:
                await _look_at(dispatch, bell, uid)
            except (KeyError, ValueError) as error:
                log.error("task.unreadable", task=uid, error=repr(error))
                await dispatch.store.tasks.look_again(uid, after_seconds=UNREADABLE_SECONDS)
    for loose in await dispatch.store.blobs.abandoned(limit=BATCH):
        try:
            is_owned = await _is_owned(dispatch, loose.owner, loose.id)
        except (KeyError, ValueError) as error:
            log.error("owner.unreadable", owner=loose.owner, blob=loose.id, error=repr(error))
            await dispatch.store.blobs.look_again(loose)
            continue
        if is_owned:
            await dispatch.store.blobs.hold(loose)
        else:
            await dispatch.store.blobs.remove(loose.id)
            _repaired("zip without owner", blob=loose.id, owner=loose.owner)
    if taken_back := await dispatch.store.room.take_back():
        log.info("room.taken_back", uploads=taken_back)


def _repaired(kind: str, **about: str) -> None:
    """Each thing that is put right is logged and counted, under the same name."""
    log.info("sweep.repaired", kind=kind, **about)
    metrics.REPAIRS.labels(kind).inc()


async def _look_at(dispatch: Dispatch, bell: "_Bell", uid: str) -> None:
    tasks = dispatch.store.tasks
    look = await tasks.look(uid)
    if look is None:
        if await tasks.forget_missing(uid):
            _repaired("entry without task", task=uid)
    elif look.task.state is State.PENDING:
        rung = await bell.ring_if_silent(look)
        await tasks.look_again(uid, after_seconds=RING_AGAIN_SECONDS if rung else RETRY_SECONDS)
    elif look.task.state is State.RUNNING:
        left = WITHOUT_LEASE_SECONDS if look.lease_seconds is None else max(look.lease_seconds, 0)
        await tasks.look_again(uid, after_seconds=left + LEASE_MARGIN_SECONDS)
        if look.lease_seconds is None:
            if await dispatch.expire_without_lease(look.task):
                _repaired("consumer lost", task=uid)
        elif look.lease_seconds <= 0 and await dispatch.expire(look.task):
            _repaired("lease expired", task=uid)
            await _look_at(dispatch, bell, uid)  # to ring it, or tell its end
    else:
        await _look_at_ended(dispatch, bell, look)


async def _look_at_ended(dispatch: Dispatch, bell: "_Bell", look: Look) -> None:
    """The broker may be away for longer than an output is kept: what is due goes before the end is announced."""
    task = look.task
    keep = await dispatch.retention(task)
    age_seconds = (datetime.now(UTC) - (task.datetime_finished or task.datetime_created)).total_seconds()
    if keep.is_task_due(age_seconds):
        with suppress(TaskNotFound):  # somebody deleted it meanwhile
            await dispatch.delete(task.uid)
            _repaired("task expired", task=task.uid)
        return
    if task.output and keep.is_output_due(age_seconds):
        await dispatch.drop_output(task)
        _repaired("output expired", task=task.uid)
    is_announced = look.is_announced or await bell.announce(task.uid)
    after_seconds = keep.next_seconds(age_seconds) if is_announced else ANNOUNCE_SECONDS
    await dispatch.store.tasks.look_again(task.uid, after_seconds=after_seconds)


class _Bell:
    """RabbitMQ in one batch: asked once for each queue, and left alone once it didn't answer."""

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch
        self._depths: dict[str, Depth] = {}
        self._is_away = False

    async def ring_if_silent(self, look: Look) -> bool:
        """Whether the task can be left to its message. A second message for a task does no harm."""
        try:
            why, queue = await self._why_ring(look)
        except Unavailable:
            self._is_away = True
            return False
        if why is None:
            return True
        rung = not self._is_away and await self._dispatch.ring(look.task.uid, queue=queue)
        self._is_away = not rung
        if rung:
            _repaired(why, task=look.task.uid)
        return rung

    async def announce(self, uid: str) -> bool:
        """Whether the end of the task is told."""
        told = not self._is_away and await self._dispatch.announce(uid)
        self._is_away = not told
        if told:
            _repaired("end unannounced", task=uid)
        return told

    async def _why_ring(self, look: Look) -> tuple[str | None, str]:
        settings = self._dispatch.broker.settings
        main, gpu = settings.unfinished_job_queue, settings.gpu_job_queue
        queue = gpu if look.is_bounced else settings.queue_for(look.task.need)
        if look.rung_at is None:
            return "unrung", queue
        depth = await self._depth(queue)
        if look.rung_at < self._dispatch.broker.empty_at(queue) - EMPTY_MARGIN_SECONDS:
            return "message lost", queue
        if look.is_bounced and not depth.consumers and not (await self._depth(main)).messages:
            # A consumer of version 1 may have the GPU that no agent of ours has, and listens on the main queue alone.
            return "nobody listens", main
        return None, queue

    async def _depth(self, queue: str) -> Depth:
        if self._is_away:
            raise Unavailable
        if queue not in self._depths:
            self._depths[queue] = await self._dispatch.broker.depth(queue)
        return self._depths[queue]


async def _is_owned(dispatch: Dispatch, owner: str, blob_id: str) -> bool:
    task = await dispatch.store.tasks.get(owner)
    model = await dispatch.store.models.by_uid(owner) if task is None else None
    blobs = (task.input, task.output) if task else (model.zip,) if model else ()
    return any(blob.id == blob_id for blob in blobs if blob)
