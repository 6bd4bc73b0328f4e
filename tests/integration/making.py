"""Tasks in the states that a test needs, made through the store as the product makes them."""

import secrets
from collections.abc import AsyncIterable
from typing import Any, cast

from core.contract.model import ModelSpec
from core.contract.needs import ANY, Need
from core.contract.task import Blob, Failure, Reason, Runner, State, Task
from core.dispatch import Dispatch
from core.posted import Posted
from core.store import Store
from core.store.room import Announced
from core.store.tasks import Claimed, NewTask

MODEL = ModelSpec(human_readable_id="copy", container_tag="copy:1", use_gpu=False)
GPU_MODEL = ModelSpec(human_readable_id="segment", container_tag="segment:1", use_gpu=True)
PAIR = Need(gpu_count=2, gpu_memory_mb=40_000)
CPU = Runner(agent="agent", host="host")
GPU = Runner(agent="gpu", host="host", gpus=("GPU-1",))
FAULT_OF_MODEL = Failure(reason=Reason.EXIT_NONZERO, message="exit 3", exit_code=3)
FAULT_OF_ENGINE = Failure(reason=Reason.ENGINE_ERROR, message="the engine was restarted")


async def stored_blob(store: Store, owner: str, content: bytes = b"PK") -> Blob:
    """A blob that its owner is about to name."""
    async with store.blobs.upload(owner, max_bytes=2**26) as upload:
        await upload.write(content)
        blob = await upload.close()
        async with upload.offered():
            pass
    return blob


async def submitted(dispatch: Dispatch, model: str, zip: AsyncIterable[bytes], announced: Announced) -> str:
    """The uid of a new task, which its client can't post again. That it was rung is noted."""
    posted = Posted.once(model)
    assert await dispatch.submit(posted, zip, announced)
    await dispatch.store.tasks.noted()
    return posted.uid


async def pending(store: Store, *, need: Need = ANY, max_attempts: int = 3) -> str:
    """The uid of a new task with an input."""
    uid = secrets.token_urlsafe(32)
    blob = await stored_blob(store, uid)
    await store.tasks.create(NewTask(uid, "copy", blob, need=need, max_attempts=max_attempts))
    return uid


async def claimed(store: Store, uid: str, *, lease_seconds: float = 30, claim_id: str = "first") -> Task:
    outcome, task = await store.tasks.claim(uid, CPU, claim_id=claim_id, lease_seconds=lease_seconds)
    assert outcome is Claimed.CLAIMED
    assert task is not None
    return task


async def in_state(store: Store, state: State) -> str:
    """The uid of a task in that state, held by attempt 1 or ended by it."""
    uid = await pending(store)
    if state is not State.PENDING:
        await claimed(store, uid)
    if state is State.FINISHED:
        await store.tasks.finish(uid, 1, await stored_blob(store, uid))
    if state is State.FAILED:
        await store.tasks.fail(uid, 1, FAULT_OF_MODEL)
    return uid


async def keys_of(store: Store) -> set[str]:
    """All that is stored, on whichever server."""
    found = await everywhere(store, "KEYS", "*")
    return {key.decode() for keys in found for key in keys if not key.startswith(b"kept:")}


async def everywhere(store: Store, *command: str | float) -> list[Any]:
    """What each server answers."""
    answers = await store.connection.everywhere(command)
    return [answer for [answer] in cast(list[list[Any]], answers)]


async def limit_memory(store: Store, *, free_bytes: int) -> None:
    """To what is used, and so much more."""
    infos = await everywhere(store, "INFO", "memory")
    used = max(info["used_memory"] for info in infos)
    await everywhere(store, "CONFIG", "SET", "maxmemory", used + free_bytes // len(infos))


async def state_of(store: Store, uid: str) -> State:
    task = await store.tasks.get(uid)
    assert task is not None
    return task.state
