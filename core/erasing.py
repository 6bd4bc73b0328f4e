"""Deletion that is shown: the log says of each task and model when nothing of it is left in Redis."""

import asyncio
from contextlib import suppress

import structlog

from core.contract.errors import Unavailable
from core.store import Store
from core.store.connection import soon
from core.store.erasures import Erasure

log = structlog.get_logger()


async def show(store: Store, erasure: Erasure) -> None:
    """After everything was removed that could be. What is left, or can't be known now, the sweep comes back to."""
    with suppress(Unavailable):
        async with soon():
            if not await store.erasures.left(erasure):
                await _end(store, erasure)


async def sweep(store: Store) -> None:
    """Completes deletions that were cut short, and shows them. Zips without an owner go by themselves."""
    for erasure in await store.erasures.unshown():
        try:
            await _look_at(store, erasure)
        except (KeyError, ValueError) as error:
            log.error("erasure.unreadable", uid=erasure.uid, error=repr(error))


async def _look_at(store: Store, erasure: Erasure) -> None:
    task, model = await asyncio.gather(store.tasks.get(erasure.uid), store.models.by_uid(erasure.uid))
    if model or (task and erasure.is_of(task)):
        if erasure.is_given_up:
            await store.erasures.end(erasure)  # it didn't come to that: whoever wanted it was told so
        return
    if task is None and erasure.of == "task":
        await store.tasks.forget(erasure.uid)
        await store.erasures.unlist(erasure)
    if not await store.erasures.left(erasure):
        await _end(store, erasure)


async def _end(store: Store, erasure: Erasure) -> None:
    """Said first: twice is better than never."""
    log.info(
        f"{erasure.of}.erased",
        **{erasure.of: erasure.uid},
        zips=len(erasure.blobs),
        chunks=len(erasure.chunk_keys),
        bytes=erasure.bytes,
        log_entries=erasure.log_entries,
    )
    await store.erasures.end(erasure)
