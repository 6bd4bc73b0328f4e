"""Deletion that deletes, and is shown."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from core import reaper
from core.contract.errors import TaskNotFound, TransitionRefused
from core.contract.http import ClaimRequest
from core.contract.live import Said
from core.contract.model import Limits
from core.contract.options import Options
from core.contract.task import Task
from core.dispatch import Dispatch
from core.posted import Posted
from core.registry import Registry
from core.store import keys
from core.store.blobs import CHUNK_BYTES
from core.store.erasures import Erasure
from core.store.room import Announced
from core.watch import Watch
from tests.integration.making import MODEL, keys_of
from tests.zips import zip_of

ZIP = zip_of({"scan.raw": b"content"})
LARGE = zip_of({"scan.raw": bytes(range(256)) * 4096 * 2})
KEPT = {keys.MODELS, keys.MODEL_ID, keys.REAPER}

Events = Sequence[Mapping[str, Any]]


async def _pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


@pytest.fixture(autouse=True)
async def _model(dispatch: Dispatch) -> None:
    await dispatch.add_model(MODEL, Limits(), None, Announced())


async def _finished(dispatch: Dispatch, uid: str = "", output: bytes = LARGE) -> Task:
    """A task with an output, a log and a webhook."""
    options = Options(webhook="https://example.org/", webhook_secret="s" * 24)
    posted = Posted.repeatable(MODEL.human_readable_id, options, uid) if uid else Posted.once("copy", options)
    await dispatch.submit(posted, _pieces(ZIP), Announced())
    attempt = (await dispatch.claim(posted.uid, ClaimRequest(claim_id="1"))).task.attempt
    for batch in (1, 2, 3):
        await dispatch.tell(posted.uid, attempt, Said(batch=batch, text="a line\n"))
    return await dispatch.finish(posted.uid, attempt, _pieces(output))


async def _sweep(dispatch: Dispatch) -> Events:
    """As if all had been begun long ago. What it said of deletions."""
    for index in (keys.DUE, keys.LOOSE):
        for member in await dispatch.store.connection.call("ZRANGE", index, 0, -1):
            await dispatch.store.connection.note("ZADD", index, 1, member)
    with capture_logs() as logs:
        await reaper.sweep(dispatch, Watch(dispatch))
    return _erased(logs)


def _erased(logs: Events) -> Events:
    return [line for line in logs if line["event"] in ("task.erased", "model.erased")]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is at it still."""
    for seconds in ("ALIVE_SECONDS", "GIVEN_UP_SECONDS"):
        monkeypatch.setattr(f"core.store.erasures.{seconds}", -1.0)


async def test_a_deletion_says_what_is_gone(dispatch: Dispatch) -> None:
    """All chunks, the log and the entries, after it was looked whether anything is left."""
    task = await _finished(dispatch)
    with capture_logs() as logs:
        await dispatch.delete(task.uid)
    chunks = -(-len(LARGE) // CHUNK_BYTES)
    assert chunks > 1
    [erased] = _erased(logs)
    expected = {"task": task.uid, "zips": 1, "chunks": chunks, "bytes": len(LARGE), "log_entries": 3}
    assert expected.items() <= erased.items()
    assert await keys_of(dispatch.store) == KEPT - {keys.REAPER}


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("are_zips_removed", [False, True])
async def test_a_deletion_that_was_cut_short_is_completed(dispatch: Dispatch, are_zips_removed: bool) -> None:
    """And shown then, once."""
    task, store = await _finished(dispatch), dispatch.store
    assert task.output
    await store.erasures.begin(Erasure.of_task(task, log_entries=3))
    await store.blobs.loosen([task.output])
    await store.connection.call("UNLINK", keys.task(task.uid))
    if are_zips_removed:
        await store.blobs.remove(task.output.id)
    erased = [*await _sweep(dispatch), *await _sweep(dispatch)]
    assert [(line["task"], line["bytes"]) for line in erased] == [(task.uid, len(LARGE))]
    assert await keys_of(store) <= KEPT


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("has_zips", [True, False])
async def test_a_deletion_that_did_not_come_to_it_is_not_shown(dispatch: Dispatch, has_zips: bool) -> None:
    """Its client was told that it failed: the task stays."""
    task = await _finished(dispatch)
    if not has_zips:
        await dispatch.drop(task, "output")
        task = await dispatch.task(task.uid)
    await dispatch.store.erasures.begin(Erasure.of_task(task, log_entries=3))
    assert await _sweep(dispatch) == []
    assert await dispatch.task(task.uid) == task
    assert await dispatch.store.erasures.unshown() == []


async def test_a_deletion_that_takes_its_time_is_shown(dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another core's sweep, which takes its beginner for dead, leaves the note as long as the task is there."""
    task, store = await _finished(dispatch), dispatch.store
    await store.erasures.begin(Erasure.of_task(task, log_entries=3))
    monkeypatch.setattr("core.store.erasures.ALIVE_SECONDS", -1.0)
    assert await _sweep(dispatch) == []
    assert task.output
    await store.blobs.loosen([task.output])
    await store.tasks.remove(task.uid, output=task.output)
    erased = [*await _sweep(dispatch), *await _sweep(dispatch)]
    assert [line["task"] for line in erased] == [task.uid]


@pytest.mark.usefixtures("at_once")
async def test_an_input_that_has_served_is_gone_before_it_is_said(dispatch: Dispatch) -> None:
    """Its core died, or Redis was away, when the task had ended: the task doesn't name it any more."""
    posted, store = Posted.once("copy"), dispatch.store
    await dispatch.submit(posted, _pieces(LARGE), Announced())
    task = (await dispatch.claim(posted.uid, ClaimRequest(claim_id="1"))).task
    assert task.input
    await store.blobs.loosen([task.input])
    await store.tasks.finish(task.uid, task.attempt, None)
    with capture_logs() as logs:
        await dispatch.delete(task.uid)
    assert _erased(logs) == []
    assert [line["task"] for line in await _sweep(dispatch)] == [task.uid]
    assert await keys_of(store) <= KEPT


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("stored", [0, len(LARGE)])
async def test_an_output_on_its_way_is_gone_before_it_is_said(dispatch: Dispatch, stored: int) -> None:
    """Whether any of it was stored when its task was deleted, or not yet."""
    posted, store = Posted.once("copy"), dispatch.store
    await dispatch.submit(posted, _pieces(ZIP), Announced())
    attempt = (await dispatch.claim(posted.uid, ClaimRequest(claim_id="1"))).task.attempt

    async def output() -> AsyncIterator[bytes]:
        yield LARGE[:stored]
        await dispatch.delete(posted.uid)
        yield LARGE[stored:]

    with capture_logs() as logs, pytest.raises(TransitionRefused):
        await dispatch.finish(posted.uid, attempt, output())
    assert _erased(logs) == []
    assert [line["task"] for line in await _sweep(dispatch)] == [posted.uid]
    assert await keys_of(store) <= KEPT


@pytest.mark.usefixtures("at_once")
async def test_a_note_that_cannot_be_read_stands_in_no_others_way(dispatch: Dispatch) -> None:
    """As a later version's; it is told once, and stays for that version."""
    task, store = await _finished(dispatch), dispatch.store
    assert task.output
    await store.connection.call("HSET", keys.ERASURES, "later", b"\xc1")
    await store.erasures.begin(Erasure.of_task(task, log_entries=3))
    await store.blobs.loosen([task.output])
    await store.connection.call("UNLINK", keys.task(task.uid))
    erased = [*await _sweep(dispatch), *await _sweep(dispatch)]
    assert [line["task"] for line in erased] == [task.uid]
    assert await store.connection.call("HKEYS", keys.ERASURES) == [b"later"]


@pytest.mark.usefixtures("at_once")
async def test_what_is_posted_anew_under_the_uid_stays(dispatch: Dispatch) -> None:
    """The deletion of the one before is shown all the same."""
    uid = "u" * 43
    before = await _finished(dispatch, uid)
    await dispatch.delete(uid)
    await dispatch.store.erasures.begin(Erasure.of_task(before, log_entries=3))
    after = await _finished(dispatch, uid, output=ZIP)
    [erased] = await _sweep(dispatch)
    assert erased["bytes"] == len(LARGE)
    assert await dispatch.task(uid) == after
    assert await dispatch.store.logs.length(uid) == 3
    assert (await dispatch.output(uid)).size == len(ZIP)


async def test_what_was_kept_for_long_enough_is_shown_to_be_gone(dispatch: Dispatch) -> None:
    task = await _finished(dispatch)
    await dispatch.store.connection.call("HSET", keys.task(task.uid), "finished", 1)
    assert [line["task"] for line in await _sweep(dispatch)] == [task.uid]
    with pytest.raises(TaskNotFound):
        await dispatch.task(task.uid)


@pytest.mark.usefixtures("at_once")
async def test_a_models_zip_is_shown_to_be_gone_when_no_agent_may_want_it_any_more(dispatch: Dispatch) -> None:
    spec = MODEL.model_copy(update={"human_readable_id": "with-zip", "model_available": True})
    model = await dispatch.add_model(spec, Limits(), _pieces(ZIP), Announced())
    with capture_logs() as logs:
        await Registry(dispatch).delete(model.uid)
        await reaper.sweep(dispatch, Watch(dispatch))
    assert _erased(logs) == []
    [erased] = [*await _sweep(dispatch), *await _sweep(dispatch)]
    assert {"model": model.uid, "zips": 1, "chunks": 1, "bytes": len(ZIP)}.items() <= erased.items()
    assert await keys_of(dispatch.store) <= KEPT
