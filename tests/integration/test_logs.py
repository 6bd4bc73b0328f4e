"""What containers print, in the store: in order, once, bounded, and only of the attempt that has the task."""

from datetime import UTC, datetime

import pytest

from core.contract.errors import StoreFull
from core.contract.live import SAID_CHARACTERS, Said
from core.contract.task import Progress, State
from core.store import Store, keys
from core.store.logs import BEGINNING, CHARACTERS_AT_ONCE, ENTRY_BYTES, Entry
from core.store.tasks import Failed
from tests.integration.making import FAULT_OF_ENGINE, claimed, everywhere, in_state, keys_of, limit_memory, pending

KEPT_BYTES = 2000


async def _says(store: Store, uid: str, text: str, *, attempt: int = 1, batch: int = 1) -> bool:
    return await store.logs.append(uid, attempt, Said(batch=batch, text=text), kept_bytes=KEPT_BYTES)


async def _entries(store: Store, uid: str, after: str = BEGINNING) -> list[Entry]:
    [entries] = await store.logs.after([(uid, after)])
    assert isinstance(entries, list)
    return entries


async def _log(store: Store, uid: str, attempt: int = 1) -> str:
    return "".join([text async for text in store.logs.of_attempt(uid, attempt)])


async def _progress(store: Store, uid: str) -> Progress | None:
    task = await store.tasks.get(uid)
    assert task
    return task.progress


async def test_what_was_said_is_kept_in_order(store: Store) -> None:
    """From any entry on; a batch that is sent twice counts once."""
    uid = await in_state(store, State.RUNNING)
    for batch, text in enumerate(("one\n", "zwei ü\n", "three\n"), 1):
        assert await _says(store, uid, text, batch=batch)
        assert await _says(store, uid, text, batch=batch)
    entries = await _entries(store, uid)
    assert [(entry.printed.attempt, entry.printed.text) for entry in entries] == [
        (1, "one\n"),
        (1, "zwei ü\n"),
        (1, "three\n"),
    ]
    assert await _entries(store, uid, entries[1].id) == entries[2:]
    assert await _log(store, uid) == "one\nzwei ü\nthree\n"


async def test_news_is_heard(store: Store) -> None:
    """Of each change, of more in the log, and of the task's removal."""
    uid = await pending(store)
    news = store.logs.news()
    assert await anext(news) == ""
    for change in (
        lambda: claimed(store, uid),
        lambda: _says(store, uid, "x"),
        lambda: store.tasks.release(uid, 1),
        lambda: claimed(store, uid, claim_id="second"),
        lambda: store.tasks.finish(uid, 2, None),
        lambda: store.tasks.remove(uid, output=None),
    ):
        await change()
        assert await anext(news) == uid


async def test_only_the_attempt_that_has_the_task_is_heard(store: Store) -> None:
    """Also a moment after its end; not before it, and not when another one has begun."""
    uid = await pending(store)
    assert not await _says(store, uid, "early")
    assert not await _says(store, "A" * 43, "nobody's")
    await claimed(store, uid)
    assert not await _says(store, uid, "foreign", attempt=2)
    assert await _says(store, uid, "first\n")
    await store.tasks.fail(uid, 1, FAULT_OF_ENGINE)
    assert await _says(store, uid, "late\n", batch=2)
    await claimed(store, uid, claim_id="second")
    assert not await _says(store, uid, "too late", batch=3)
    assert await _says(store, uid, "second\n", attempt=2)
    assert (await _log(store, uid), await _log(store, uid, 2)) == ("first\nlate\n", "second\n")


async def test_an_attempt_is_not_heard_for_ever(store: Store) -> None:
    uid = await in_state(store, State.FINISHED)
    assert await _says(store, uid, "late")
    await store.connection.call("HSET", keys.task(uid), "attempt:1:ended", 1)
    assert not await _says(store, uid, "too late", batch=2)


@pytest.mark.parametrize("length", [1, 100, KEPT_BYTES - ENTRY_BYTES, 2 * KEPT_BYTES])
async def test_the_end_of_a_log_is_kept(store: Store, length: int) -> None:
    """So many bytes, in however many pieces; of very small ones less, for what they take themselves. It is said that
    there was more.
    """
    uid = await in_state(store, State.RUNNING)
    pieces = [f"{number % 10}" * length for number in range(50)]
    for batch, text in enumerate(pieces, 1):
        assert await _says(store, uid, text, batch=batch)
    kept = KEPT_BYTES // (length + ENTRY_BYTES)
    assert await _log(store, uid) == "[What came before is no longer kept.]\n" + "".join(pieces[50 - kept :])
    assert await store.connection.call("XLEN", keys.log(uid)) == kept
    assert int(await store.connection.call("HGET", keys.task(uid), "log_bytes")) == kept * (length + ENTRY_BYTES)


async def test_what_is_cut_is_of_the_first_attempt(store: Store) -> None:
    """The second one's log is whole."""
    uid = await in_state(store, State.RUNNING)
    await _says(store, uid, "x" * KEPT_BYTES)
    await store.tasks.fail(uid, 1, FAULT_OF_ENGINE)
    await claimed(store, uid, claim_id="second")
    await _says(store, uid, "second", attempt=2)
    assert (await _log(store, uid), await _log(store, uid, 2)) == ("[What came before is no longer kept.]\n", "second")


async def test_progress_is_of_the_attempt_that_runs(store: Store) -> None:
    """It stays when the attempt ends the task, and goes when there is to be another one."""
    uid = await in_state(store, State.RUNNING)
    progress = Progress(fraction=0.5, message="half", at=datetime(2026, 1, 1, tzinfo=UTC))
    await store.logs.append(uid, 1, Said(batch=1, progress=progress), kept_bytes=KEPT_BYTES)
    assert await _progress(store, uid) == progress
    assert await _entries(store, uid) == []
    await store.tasks.fail(uid, 1, FAULT_OF_ENGINE)
    assert await _progress(store, uid) is None
    await store.logs.append(uid, 1, Said(batch=2, progress=progress), kept_bytes=KEPT_BYTES)
    assert await _progress(store, uid) is None


async def test_a_log_takes_no_room_from_results(store: Store) -> None:
    """When the memory is full, nothing is added to it."""
    uid = await in_state(store, State.RUNNING)
    await limit_memory(store, free_bytes=-(2**20))
    try:
        with pytest.raises(StoreFull):
            await _says(store, uid, "more")
        assert await store.tasks.fail(uid, 1, FAULT_OF_ENGINE) is Failed.PENDING
    finally:
        await everywhere(store, "CONFIG", "SET", "maxmemory", 0)


async def test_a_log_takes_nothing_of_what_is_held_back(store: Store) -> None:
    """There is memory, but only for results. How far the attempt is, is told all the same."""
    uid = await in_state(store, State.RUNNING)
    await store.connection.call("SET", f"{keys.task(uid)}:ballast", bytes(16 * 2**20))
    await limit_memory(store, free_bytes=3 * 2**20)
    try:
        progress = Progress(fraction=0.5, at=datetime(2026, 1, 1, tzinfo=UTC))
        with pytest.raises(StoreFull):
            await store.logs.append(uid, 1, Said(batch=1, text="more", progress=progress), kept_bytes=KEPT_BYTES)
        assert await _progress(store, uid) == progress
        assert await _entries(store, uid) == []
        await store.connection.call("DEL", f"{keys.task(uid)}:ballast")
        assert await _says(store, uid, "more", batch=2)
    finally:
        await everywhere(store, "CONFIG", "SET", "maxmemory", 0)


@pytest.mark.parametrize("length", [1, CHARACTERS_AT_ONCE // 2, CHARACTERS_AT_ONCE, SAID_CHARACTERS])
async def test_few_are_read_at_once(store: Store, length: int) -> None:
    """As many as a slow reader may hold, and one at least; all of them in their order."""
    uid = await in_state(store, State.RUNNING)
    texts = [f"{number}" * length for number in range(5)]
    for batch, text in enumerate(texts, 1):
        await store.logs.append(uid, 1, Said(batch=batch, text=text), kept_bytes=2**20)
    assert len(await _entries(store, uid)) == min(5, -(-CHARACTERS_AT_ONCE // length))
    assert await _log(store, uid) == "".join(texts)


async def test_a_log_leaves_with_its_task(store: Store) -> None:
    """And doesn't come back."""
    uid = await in_state(store, State.RUNNING)
    await _says(store, uid, "x")
    assert keys.log(uid) in await keys_of(store)
    await store.tasks.remove(uid, output=None)
    assert not await _says(store, uid, "y", batch=2)
    assert not {keys.log(uid), keys.task(uid)} & await keys_of(store)
