"""API keys and quotas in Redis: what a store keeps, and what it tells apart."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from core import access
from core.calls import Call
from core.contract.errors import Forbidden, KeyNotFound, KeyRefused, TooManyRequests
from core.contract.http import Asked
from core.contract.key import OPERATOR, Caller, Scope, WantedKey
from core.contract.needs import ANY
from core.contract.task import Blob, Failure, Reason, new_uid
from core.dispatch import Dispatch
from core.store import Store, keys, quotas
from core.store.quotas import YOUNG_SECONDS
from core.store.tasks import NewTask

WANTED = WantedKey(name="Night batch", scope=(Scope.MODELS, Scope.SUBMIT, Scope.MODELS), tasks_at_once=2)


async def test_only_a_digest_is_kept(store: Store) -> None:
    """Who reads Redis, or a backup of it, has no key."""
    made = await store.api_keys.make(WANTED)
    kept = b"".join(await store.connection.call("HVALS", keys.KEYS))
    assert made.key.split("_", 2)[2].encode() not in kept
    assert made.scopes == (Scope.MODELS, Scope.SUBMIT)


async def test_keys_are_verified_together(store: Store) -> None:
    """Each in its place, however often it is offered, and what is no key beside it."""
    first, second = [await store.api_keys.make(WANTED) for _ in range(2)]
    swapped = first.key.replace(first.id, second.id)
    offers = [first.key, "", swapped, second.key, first.key, first.key + "A", first.key.replace(first.id, "0" * 12)]
    found = await store.api_keys.verified(offers)
    assert [key and key.id for key in found] == [first.id, None, None, second.id, first.id, None, None]


async def test_what_is_revoked_stays_and_is_over(store: Store) -> None:
    """Twice is as once: the first time counts."""
    made = await store.api_keys.make(WANTED)
    revoked = await store.api_keys.revoke(made.id)
    assert await store.api_keys.revoke(made.id) == revoked
    [found] = await store.api_keys.verified([made.key])
    assert found == revoked
    assert found.is_over
    assert [key.revoked for key in await store.api_keys.all()] == [revoked.revoked]
    with pytest.raises(KeyNotFound):
        await store.api_keys.revoke("0" * 12)


async def test_the_day_of_use_is_noted(store: Store) -> None:
    """Of a key that opened something; once, not with each call."""
    made = await store.api_keys.make(WANTED)
    await store.api_keys.verified([made.key[:-1], made.key.replace(made.id, "0" * 12)])
    assert [key.last_used for key in await store.api_keys.all()] == [None]
    await store.api_keys.verified([made.key])
    [used] = [key.last_used for key in await store.api_keys.all()]
    assert used is not None
    assert abs(used.timestamp() - time.time()) <= 24 * 3600
    await store.connection.call("DEL", keys.KEYS_USED)
    await store.api_keys.verified([made.key])
    assert [key.last_used for key in await store.api_keys.all()] == [None]


async def test_a_stream_ends_with_its_key(dispatch: Dispatch, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said before is heard. Who has none, as an operator, hears all."""
    monkeypatch.setattr(access, "LOOK_SECONDS", 0)
    made = await dispatch.store.api_keys.make(WANTED)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"before"
        await dispatch.store.api_keys.revoke(made.id)
        yield b"after"

    assert [piece async for piece in access.while_good(dispatch, Caller.of(made), pieces())] == [b"before"]
    assert [piece async for piece in access.while_good(dispatch, OPERATOR, pieces())] == [b"before", b"after"]


async def test_who_may_not_poll_is_known(dispatch: Dispatch) -> None:
    """Each of those whose polls a gateway gathers, with the key that isn't for it, and whence."""
    required = replace(dispatch, keys_required=True)
    good, other = [
        await dispatch.store.api_keys.make(WantedKey(name=scope, scope=(scope,)))
        for scope in (Scope.SUBMIT, Scope.MODELS)
    ]
    asked = Asked(
        uids=("a", "b", "c"),
        offered=(f"Bearer {good.key}", f"Bearer {other.key}", ""),
        addresses=("192.0.2.1", "192.0.2.2", "192.0.2.3"),
    )
    nothing: Any = None
    call = Call({"method": "POST", "path": "/", "headers": [], "query_string": b""}, nothing, nothing)  # type: ignore[typeddict-item]
    callers = await access.asking(required, call, asked)
    assert [type(caller) for caller in callers] == [Caller, Forbidden, KeyRefused]
    found = [(its.caller.name, its.address, its.about, its.status) for its in call.refusals]
    assert found == [("models", "192.0.2.2", "b", 403), ("anybody", "192.0.2.3", "c", 401)]


def _caller(**limits: int) -> Caller:
    return replace(OPERATOR, key_id="of-a-test", **limits)  # type: ignore[arg-type]


async def test_posts_come_evenly(store: Store) -> None:
    """A minute's at once, then one after the other; to ask costs nothing."""
    caller = _caller(posts_per_minute=60)
    began = time.monotonic()
    posted = 0
    with pytest.raises(TooManyRequests) as refused:
        while True:
            await store.quotas.pace(caller, 1)
            posted += 1
    assert 60 <= posted <= 60 + (time.monotonic() - began) + 1
    assert refused.value.retry_seconds == 1
    await _until_it_may(store, caller)
    await store.quotas.pace(caller, 0)
    await store.quotas.pace(caller, 1)


async def _until_it_may(store: Store, caller: Caller) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                return await store.quotas.pace(caller, 0)
            except TooManyRequests:
                await asyncio.sleep(0.01)


async def test_no_more_than_may_live_at_once(store: Store) -> None:
    """However many begin in the same moment."""
    caller = _caller(tasks_at_once=3)
    begun = 0

    async def begin() -> None:
        nonlocal begun
        async with store.quotas.begun(caller, uid := new_uid()):
            await _create(store, uid)
        begun += 1

    answers = await asyncio.gather(*(begin() for _ in range(20)), return_exceptions=True)
    assert begun == 3
    assert sum(isinstance(answer, TooManyRequests) for answer in answers) == 17


async def test_what_a_crash_left_makes_room(store: Store) -> None:
    """An entry without a task, once it is certain that none comes; a task that has ended, at once."""
    caller = _caller(tasks_at_once=2)
    index = keys.living(caller.key_id)
    ended = new_uid()
    await _create(store, ended)
    await store.tasks.cancel(ended, Failure(reason=Reason.CANCELLED, message=""))
    await store.connection.call("ZADD", index, time.time() - YOUNG_SECONDS - 1, new_uid(), time.time(), ended)
    for _ in range(2):
        async with store.quotas.begun(caller, uid := new_uid()):
            await _create(store, uid)
    await store.connection.call("ZADD", index, "XX", time.time() - YOUNG_SECONDS - 1, uid)
    with pytest.raises(TooManyRequests):
        async with store.quotas.begun(caller, new_uid()):
            pass


async def test_a_post_counts_however_long_it_takes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its entry has no task yet, and is no crash's."""
    monkeypatch.setattr(quotas, "YOUNG_SECONDS", 0.2)
    monkeypatch.setattr(quotas, "FULL_SECONDS", 0.0)
    caller = _caller(tasks_at_once=1)
    async with store.quotas.begun(caller, uid := new_uid()):
        until = time.monotonic() + 3 * quotas.YOUNG_SECONDS
        while time.monotonic() < until:
            with pytest.raises(TooManyRequests):
                async with store.quotas.begun(caller, new_uid()):
                    pass
            await asyncio.sleep(0.01)
        await _create(store, uid)


async def test_of_a_revoked_key_nothing_stays_for_ever(store: Store) -> None:
    """Also of one that is posted with just then."""
    caller = _caller(tasks_at_once=1)
    async with store.quotas.begun(caller, uid := new_uid()):
        await store.quotas.forget(caller.key_id)
        await _create(store, uid)
    assert await store.connection.call("TTL", keys.living(caller.key_id)) > 0


async def test_what_fails_counts_for_nothing(store: Store) -> None:
    """Its place is free again at once."""
    caller = _caller(tasks_at_once=1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with store.quotas.begun(caller, new_uid()):
                raise ZeroDivisionError


async def _create(store: Store, uid: str) -> None:
    new = NewTask(uid, "copy", Blob(id=uid, size=1), need=ANY, max_attempts=1)
    await store.tasks.create(new)
