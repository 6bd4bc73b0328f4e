"""Puts right what a crash left between two steps: unrung tasks, expired leases, zips without an owner.

Any core may sweep; a lock in Redis lets one at a time, only to save work: each repair is a fenced transition.
"""

import asyncio
from typing import Final

import structlog

from core.contract.errors import Unavailable
from core.contract.task import State
from core.dispatch import Dispatch
from core.store.tasks import LEASE_MARGIN_SECONDS, Look

log = structlog.get_logger()

SWEEP_SECONDS: Final = 1.0
SWEEPER_SECONDS: Final = 15.0
"""How long a core that died in a sweep keeps the others from it."""

BATCH: Final = 200
RING_AGAIN_SECONDS: Final = 30.0
"""A rung task that still waits is looked at this often: did its message survive?"""

RETRY_SECONDS: Final = 2.0
WITHOUT_LEASE_SECONDS: Final = 60.0


async def sweep_for_ever(dispatch: Dispatch) -> None:
    """One sweep a second; while Redis is away, quietly again."""
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        try:
            if await dispatch.store.tasks.may_sweep(seconds=SWEEPER_SECONDS):
                await sweep(dispatch)
        except Unavailable as error:
            log.warning("sweep.postponed", error=str(error))
            await asyncio.sleep(RETRY_SECONDS)


async def sweep(dispatch: Dispatch) -> None:
    """Everything that is due now, a batch at a time."""
    while uids := await dispatch.store.tasks.due(limit=BATCH):
        for uid in uids:
            await _look_at(dispatch, uid)
    for loose in await dispatch.store.blobs.abandoned(limit=BATCH):
        if await _is_owned(dispatch, loose.owner, loose.id):
            await dispatch.store.blobs.hold(loose.id)
        else:
            await dispatch.store.blobs.remove(loose.id)
            log.info("blob.swept", blob=loose.id, owner=loose.owner)


async def _look_at(dispatch: Dispatch, uid: str) -> None:
    tasks = dispatch.store.tasks
    look = await tasks.look(uid)
    if look is None:
        await tasks.forget(uid)
    elif look.task.state is State.PENDING:
        rung = await _ring_if_silent(dispatch, look)
        await tasks.look_again(uid, after_seconds=RING_AGAIN_SECONDS if rung else RETRY_SECONDS)
    elif look.task.state is State.RUNNING:
        if look.lease_seconds is not None and look.lease_seconds <= 0:
            await dispatch.expire(look.task)
        left = WITHOUT_LEASE_SECONDS if look.lease_seconds is None else max(look.lease_seconds, 0)
        await tasks.look_again(uid, after_seconds=left + LEASE_MARGIN_SECONDS)
    else:
        await tasks.settle(uid)


async def _ring_if_silent(dispatch: Dispatch, look: Look) -> bool:
    """Whether the task can be left to its message. A second message for a task does no harm."""
    uid, settings = look.task.uid, dispatch.broker.settings
    if not look.is_rung:
        return await _ring(dispatch, uid, "unrung")
    queue = settings.gpu_job_queue if look.task.waits_for else settings.unfinished_job_queue
    try:
        depth = await dispatch.broker.depth(queue)
    except Unavailable:
        return False
    if not depth.messages:
        return await _ring(dispatch, uid, "message lost", queue=queue)
    if look.task.waits_for and not depth.consumers:
        # A consumer of version 1 may have the GPU that no agent of ours has, and listens on the main queue alone.
        return await _ring(dispatch, uid, "nobody listens")
    return True


async def _ring(dispatch: Dispatch, uid: str, why: str, *, queue: str | None = None) -> bool:
    rung = await dispatch.ring(uid, queue=queue)
    if rung:
        log.info("task.rung_again", task=uid, why=why)
    return rung


async def _is_owned(dispatch: Dispatch, owner: str, blob_id: str) -> bool:
    task = await dispatch.store.tasks.get(owner)
    model = await dispatch.store.models.by_uid(owner) if task is None else None
    blobs = (task.input, task.output) if task else (model.zip,) if model else ()
    return any(blob.id == blob_id for blob in blobs if blob)
