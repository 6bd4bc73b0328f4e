"""Small posts that come at the same time go to Redis together: each is taken or refused as if it had come alone."""

import asyncio
import secrets
import time
from collections.abc import Sequence

import pytest
from redis.exceptions import ResponseError

from core.contract.errors import StoreFull
from core.contract.http import ClaimRequest
from core.contract.model import Limits
from core.contract.options import Options
from core.contract.task import Blob, State, new_uid
from core.dispatch import Dispatch
from core.store import Store, keys
from core.store.models import Seen
from core.store.room import Announced
from core.store.submissions import AT_ONCE, SMALL_BYTES
from core.store.tasks import FIRST_LOOK_SECONDS, LOOK_SECONDS, Created, NewTask
from tests.integration.conftest import RESERVE_PERCENT
from tests.integration.making import MODEL, everywhere, keys_of

ZIP = b"PK"


@pytest.fixture
async def seen(dispatch: Dispatch) -> Seen:
    if not dispatch.store.submissions.takes(1):
        pytest.skip("in a cluster there is no one step")
    await dispatch.add_model(MODEL, Limits(), None, Announced())
    found = await dispatch.store.models.seen(MODEL.human_readable_id)
    assert found
    return found


def _new(seen: Seen, uid: str | None = None, *, fingerprint: str = "", options: Options | None = None) -> NewTask:
    blob = Blob(id=secrets.token_hex(16), size=len(ZIP))
    return NewTask.of(seen.model, uid or new_uid(), blob, options or Options(), fingerprint)


async def _submitted(store: Store, tasks: Sequence[tuple[NewTask, bytes, Seen]]) -> list[object]:
    """What each hears, which is submitted in that order."""
    return list(await asyncio.gather(*(store.submissions.submit(*its) for its in tasks), return_exceptions=True))


async def test_each_has_its_own_answer(store: Store, seen: Seen) -> None:
    """Whether it is new, was posted before, or comes for a model that has changed; also when another one can't be."""
    chosen, broken, refused = new_uid(), new_uid(), _new(seen)
    await store.connection.call("SET", keys.task(broken), "no task")
    of_old = Seen(seen.model, b"another one")
    heard = await _submitted(
        store,
        [
            (_new(seen), ZIP, seen),
            (_new(seen, chosen, fingerprint="a"), ZIP, seen),
            (_new(seen, broken, fingerprint="a"), ZIP, seen),
            (_new(seen, chosen, fingerprint="a"), ZIP, seen),
            (_new(seen, chosen, fingerprint="b"), ZIP, seen),
            (refused, ZIP, of_old),
            (_new(seen), ZIP, seen),
        ],
    )
    error = heard.pop(2)
    assert isinstance(error, ResponseError)
    assert heard == [Created.CREATED, Created.CREATED, Created.SAME, Created.OTHER, None, Created.CREATED]
    assert len(await store.tasks.page(offset=0, limit=10)) == 3
    assert not [key for key in await keys_of(store) if refused.uid in key or refused.input.id in key]


async def test_more_than_go_at_once(store: Store, seen: Seen) -> None:
    """Each has its own zip, whichever trip it went with."""
    posted = [(_new(seen), bytes([number]) * 2, seen) for number in range(3 * AT_ONCE)]
    assert await _submitted(store, posted) == [Created.CREATED] * len(posted)
    for new, zip, _ in posted:
        stored = b"".join([piece async for piece in store.blobs.read(new.input, 0, new.input.size)])
        assert (stored, (await store.tasks.each([new.uid]))[0].uid) == (zip, new.uid)  # type: ignore[union-attr]


async def test_room_is_counted_as_it_is_taken(store: Store, seen: Seen) -> None:
    """Of many that come together only so many are taken as there is room for."""
    [info] = await everywhere(store, "INFO", "memory")
    allowed = info["used_memory"] + 4 * AT_ONCE * SMALL_BYTES
    await everywhere(store, "CONFIG", "SET", "maxmemory", allowed * 100 // (100 - RESERVE_PERCENT))
    try:
        posted = [(_new(seen), b"P" * SMALL_BYTES, seen) for _ in range(5 * AT_ONCE)]
        heard = await _submitted(store, posted)
    finally:
        await everywhere(store, "CONFIG", "SET", "maxmemory", 0)
    taken = heard.count(Created.CREATED)
    assert 0 < taken < 4 * AT_ONCE
    assert sum(isinstance(answer, StoreFull) for answer in heard) == len(posted) - taken
    assert [
        info["used_memory"] < allowed + AT_ONCE * SMALL_BYTES for info in await everywhere(store, "INFO", "memory")
    ] == [True]


async def test_a_rung_task_is_left_alone_for_a_while(dispatch: Dispatch, seen: Seen) -> None:
    """The first look is that of any rung task, or the moment when its client gives it up."""
    store = dispatch.store
    for ttl_seconds, wanted in ((None, LOOK_SECONDS), (10, 10)):
        new = _new(seen, options=Options(ttl_seconds=ttl_seconds))
        await store.submissions.submit(new, ZIP, seen)
        assert await _seconds_to_look(store, new.uid) == pytest.approx(FIRST_LOOK_SECONDS, abs=2)
        await dispatch.ring_first(new)
        await store.tasks.noted()
        assert await store.connection.call("HEXISTS", keys.task(new.uid), "rung")
        assert await _seconds_to_look(store, new.uid) == pytest.approx(wanted, abs=2)


async def test_a_look_that_is_wanted_now_is_not_put_off(dispatch: Dispatch, seen: Seen) -> None:
    """As when the model of a task is deleted that was posted a moment before."""
    store, new = dispatch.store, _new(seen)
    await store.submissions.submit(new, ZIP, seen)
    await store.tasks.bring_forward(until=time.time() + LOOK_SECONDS)
    store.tasks.note_first_ring(new)
    await store.tasks.noted()
    assert await store.connection.call("HEXISTS", keys.task(new.uid), "rung")
    assert await _seconds_to_look(store, new.uid) < 0


async def test_a_late_note_is_no_note(dispatch: Dispatch, seen: Seen) -> None:
    """The task was claimed and handed back before it came: it waits for another message, and a look soon."""
    store, new = dispatch.store, _new(seen)
    await store.submissions.submit(new, ZIP, seen)
    claim = await dispatch.claim(new.uid, ClaimRequest(claim_id="first"))
    assert await store.tasks.release(new.uid, claim.task.attempt)
    store.tasks.note_first_ring(new)
    await store.tasks.noted()
    assert (await dispatch.task(new.uid)).state is State.PENDING
    assert not await store.connection.call("HEXISTS", keys.task(new.uid), "rung")
    assert await _seconds_to_look(store, new.uid) < FIRST_LOOK_SECONDS + 1


async def _seconds_to_look(store: Store, uid: str) -> float:
    return float(await store.connection.call("ZSCORE", keys.DUE, uid)) - time.time()
