"""Models change under the tasks that wait for them and those that run, and lose no zip and keep none."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from core.contract import codec
from core.contract.errors import InvalidParameters, ModelChanged, ModelDisabled, ModelNotFound, TransitionRefused
from core.contract.http import Claim, ClaimRequest
from core.contract.images import ImageAllowance
from core.contract.model import Limits, Model, ModelSpec
from core.contract.options import PLAIN
from core.contract.task import Reason, State
from core.dispatch import Dispatch
from core.reaper import sweep
from core.registry import Registry
from core.resumable import Resumable
from core.store import Store, keys
from core.store.models import Seen
from core.store.room import Announced
from core.watch import Watch
from tests.integration.making import CPU, keys_of, state_of, submitted
from tests.zips import zip_of

SPEC = ModelSpec(human_readable_id="copy", container_tag="copy:1", use_gpu=False, model_available=True)
WITHOUT_ZIP = SPEC.model_copy(update={"model_available": False})
LIMITS = Limits()
INPUT = zip_of({"scan.txt": b"0"})
SMALL, LARGE = Announced(size=len(INPUT)), Announced()


async def _zip(content: bytes) -> AsyncIterator[bytes]:
    yield zip_of({"weights.bin": content})


async def _posted() -> AsyncIterator[bytes]:
    yield INPUT


@pytest.fixture
async def registry(dispatch: Dispatch) -> Registry:
    await dispatch.add_model(SPEC, LIMITS, _zip(b"1"), LARGE)
    return Registry(dispatch)


async def _model(registry: Registry) -> Model:
    return await registry.dispatch.model("copy")


async def _revised(registry: Registry, content: bytes | None, **changes: object) -> Model:
    model = await _model(registry)
    spec = SPEC.model_copy(update=changes)
    zip = _zip(content) if content else None
    return await registry.revise(await registry.seen(model.uid), spec, LIMITS, zip, LARGE)


async def test_only_images_that_the_operator_allows(dispatch: Dispatch) -> None:
    """Neither a new model nor a new revision of one has another image."""
    choosy = Registry(replace(dispatch, images=ImageAllowance.of("copy, registry.example.org/*")))
    await choosy.dispatch.add_model(WITHOUT_ZIP, LIMITS, None, Announced())
    with pytest.raises(InvalidParameters, match="IMAGE_ALLOW"):
        await _revised(choosy, None, container_tag="other.example.org/copy:2", model_available=False)
    evil = ModelSpec(human_readable_id="evil", container_tag="registry.example.org.evil.example/x")
    with pytest.raises(InvalidParameters, match="IMAGE_ALLOW"):
        await choosy.dispatch.add_model(evil, LIMITS, None, Announced())
    assert (await _model(choosy)).container_tag == SPEC.container_tag


async def _claimed(dispatch: Dispatch, uid: str) -> Claim:
    return await dispatch.claim(uid, ClaimRequest(claim_id=uid, **CPU.model_dump()))


async def _sweep(dispatch: Dispatch) -> None:
    """When what is loose is due."""
    for blob in await dispatch.store.connection.call("ZRANGE", keys.LOOSE, 0, -1):
        await dispatch.store.connection.call("ZADD", keys.LOOSE, 1, blob)
    await sweep(dispatch, Watch(dispatch))


async def test_what_waits_gets_the_latest_revision(registry: Registry, dispatch: Dispatch, store: Store) -> None:
    """And whoever has claimed already can fetch the zip that its model had then, for a while."""
    early, late = [await submitted(dispatch, "copy", _posted(), SMALL) for _ in range(2)]
    old = (await _claimed(dispatch, early)).model
    new = await _revised(registry, b"2", container_tag="copy:2")
    assert (await _claimed(dispatch, late)).model == new
    assert (old.revision, old.container_tag, new.revision, new.container_tag) == (1, "copy:1", 2, "copy:2")
    assert old.zip
    assert new.zip
    assert await store.blobs.owned(old.zip.id, old.uid) == old.zip
    assert await store.blobs.owned(old.zip.id, "another") is None
    await _sweep(dispatch)
    assert await store.blobs.owned(old.zip.id, old.uid) is None
    assert await store.blobs.exist([new.zip]) == [True]


async def test_what_is_not_given_stays(registry: Registry, dispatch: Dispatch, store: Store) -> None:
    """The zip too, unless the model is to have none."""
    before = await _model(registry)
    after = await _revised(registry, None, description="better")
    assert after == before.model_copy(update={"description": "better", "revision": 2})
    without = await _revised(registry, None, model_available=False)
    assert without.zip is None
    await _sweep(dispatch)
    assert await keys_of(store) <= {keys.MODELS, keys.MODEL_ID, keys.REAPER}


async def test_of_two_changes_at_once_one_is_refused(registry: Registry, dispatch: Dispatch, store: Store) -> None:
    """And the zip that came with it is gone, not the other one."""
    seen = await registry.seen((await _model(registry)).uid)
    changes = [registry.revise(seen, SPEC, LIMITS, _zip(content), LARGE) for content in (b"2", b"3")]
    answers = await asyncio.gather(*changes, return_exceptions=True)
    [model] = [answer for answer in answers if isinstance(answer, Model)]
    assert [type(answer) for answer in answers if answer is not model] == [ModelChanged]
    await _sweep(dispatch)
    assert model == await _model(registry)
    assert model.zip
    assert {key for key in await keys_of(store) if key.startswith("blob:")} == {keys.blob(model.zip.id)}


async def test_a_change_that_was_sent_twice_is_made_once(registry: Registry, store: Store) -> None:
    """Its first answer was lost."""
    seen = await registry.seen((await _model(registry)).uid)
    for new in (seen.model.model_copy(update={"enabled": False}), None):
        for _ in range(2):
            await store.models.change(seen, new)
        seen = Seen(new, codec.pack(new)) if new else seen
    with pytest.raises(ModelNotFound):
        await registry.seen(seen.model.uid)


@pytest.mark.parametrize("announced", [SMALL, LARGE], ids=["in one step", "in steps"])
async def test_a_model_that_is_off_takes_nothing_new(
    registry: Registry, dispatch: Dispatch, announced: Announced
) -> None:
    """At any core, whatever that one knew; what waits goes on."""
    uid = await submitted(dispatch, "copy", _posted(), announced)
    model = await _model(registry)
    assert not (await registry.enable(model.uid, enabled=False)).enabled
    for step in (
        submitted(dispatch, "copy", _posted(), announced),
        dispatch.admit(model="copy", size=1),
        Resumable(dispatch).open("copy", 1, PLAIN, metadata="", ticket=""),
    ):
        with pytest.raises(ModelDisabled):
            await step
    await _claimed(dispatch, uid)
    await registry.enable(model.uid, enabled=True)
    await submitted(dispatch, "copy", _posted(), announced)


async def test_a_deleted_models_tasks_that_wait_fail(registry: Registry, dispatch: Dispatch, store: Store) -> None:
    """Found by the sweep and by whoever claims, also when another model has its name by now; what runs goes on."""
    running, waiting, met = [await submitted(dispatch, "copy", _posted(), SMALL) for _ in range(3)]
    attempt = (await _claimed(dispatch, running)).task.attempt
    await registry.delete((await _model(registry)).uid)
    await dispatch.add_model(WITHOUT_ZIP, LIMITS, None, LARGE)
    with pytest.raises(TransitionRefused):
        await _claimed(dispatch, met)
    await _sweep(dispatch)
    for uid in (waiting, met):
        task = await dispatch.task(uid)
        assert task.state is State.FAILED
        assert task.failure
        assert task.failure.reason is Reason.MODEL_DELETED
    await dispatch.renew(running, attempt)
    assert await state_of(store, running) is State.RUNNING
    new = await submitted(dispatch, "copy", _posted(), SMALL)
    await _sweep(dispatch)
    await _claimed(dispatch, new)


async def test_a_deleted_models_zip_goes(registry: Registry, dispatch: Dispatch, store: Store) -> None:
    """After those who have just claimed had the time to fetch it."""
    model = await registry.delete((await _model(registry)).uid)
    assert model.zip
    assert await store.blobs.owned(model.zip.id, model.uid) == model.zip
    await _sweep(dispatch)
    assert await keys_of(store) <= {keys.MODEL_ID, keys.REAPER, keys.ERASURES}
