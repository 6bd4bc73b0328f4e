"""Uploads in several requests: what was stored is never sent again, whoever was cut off can't do harm any more, and
nothing is left of what doesn't come to its end.
"""

import secrets
import time
from collections.abc import AsyncIterator

import pytest

from core.calls import Gone
from core.contract.errors import (
    InvalidZip,
    ModelNotFound,
    StoreFull,
    TaskExists,
    TooLarge,
    UploadElsewhere,
    UploadNotFound,
)
from core.contract.model import Limits
from core.contract.options import PLAIN, Options, Priority
from core.dispatch import Dispatch
from core.posted import Posted
from core.reaper import sweep
from core.resumable import Resumable
from core.store import Store, keys, open_store
from core.store.blobs import CHUNK_BYTES
from core.store.room import Announced
from core.store.tasks import Created, NewTask
from core.store.uploads import ROOM_SECONDS, Writer
from core.watch import Watch
from demo.stack import Stack
from tests.integration.conftest import RESERVE_PERCENT
from tests.integration.making import MODEL, everywhere, keys_of, limit_memory
from tests.waiting import eventually
from tests.zips import zip_of

ZIP = zip_of({"noise.bin": secrets.token_bytes(3 * CHUNK_BYTES + 12_345)})
SIZE = len(ZIP)
PIECE_BYTES = 100_000


async def _sent(content: bytes, *, cut: bool = False) -> AsyncIterator[bytes]:
    for start in range(0, len(content), PIECE_BYTES):
        yield content[start : start + PIECE_BYTES]
    if cut:
        raise Gone


@pytest.fixture
async def uploads(dispatch: Dispatch) -> Resumable:
    await dispatch.store.models.add("model", MODEL, Limits(), None)
    return Resumable(dispatch)


async def _opened(uploads: Resumable, *, length: int = SIZE, options: Options = PLAIN) -> str:
    return await uploads.open(MODEL.human_readable_id, length, options, metadata="", ticket="")


async def _append(uploads: Resumable, uid: str, content: bytes, *, cut: bool = False) -> int:
    """From where the upload is; the offset after."""
    offset = (await uploads.standing(uid)).offset
    try:
        await uploads.append(uid, offset, _sent(content, cut=cut), size=None)
    except Gone:
        assert cut
    return (await uploads.standing(uid)).offset


async def _writer(uploads: Resumable, uid: str) -> Writer:
    standing = await uploads.standing(uid)
    assert standing.coming
    return await uploads.dispatch.store.uploads.begin(uid, standing.coming, standing.offset)


async def _input(store: Store, uid: str) -> bytes:
    task = await store.tasks.get(uid)
    assert task
    assert task.input
    return b"".join([piece async for piece in store.blobs.read(task.input, 0, task.input.size)])


@pytest.mark.parametrize("step", [1_000, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 7, SIZE])
@pytest.mark.parametrize("cut", [True, False], ids=["cut", "whole"])
async def test_each_goes_on_where_the_one_before_got_to(uploads: Resumable, store: Store, step: int, cut: bool) -> None:
    """Wherever a request ends, and whether its connection was cut: every byte that came counts."""
    uid = await _opened(uploads, options=Options(priority=Priority.HIGH))
    offset = 0
    while offset < SIZE:
        content = ZIP[offset : offset + (step if offset < 10_000 else max(step, CHUNK_BYTES - 1))]
        is_last = offset + len(content) == SIZE
        assert await _append(uploads, uid, content, cut=cut and not is_last) == offset + len(content)
        offset += len(content)
    assert await _input(store, uid) == ZIP
    task = await store.tasks.get(uid)
    assert task
    assert task.options.priority is Priority.HIGH
    await uploads.dispatch.delete(uid)
    assert await keys_of(store) == {keys.MODELS, keys.MODEL_ID}


async def test_the_end_may_be_asked_for_and_sent_again(uploads: Resumable, store: Store) -> None:
    """Its answer was lost: the upload is whole, and there is one task of it."""
    uid = await _opened(uploads)
    assert await _append(uploads, uid, ZIP) == SIZE
    assert (await uploads.append(uid, SIZE, _sent(b""), size=0)).is_finished
    with pytest.raises(UploadElsewhere):
        await uploads.append(uid, 0, _sent(ZIP), size=SIZE)
    with pytest.raises(UploadElsewhere):
        await uploads.give_up(uid)
    assert [task.uid for task in await store.tasks.page(offset=0, limit=9)] == [uid]


async def test_a_core_that_dies_at_the_end_has_not_promised_it(uploads: Resumable, store: Store) -> None:
    """Everything was stored and no task made: the client hears that some is missing, and sends it again."""
    uid = await _opened(uploads)
    writer = await _writer(uploads, uid)
    await writer.write(ZIP)
    await writer.close()
    offset = (await uploads.standing(uid)).offset
    assert SIZE - CHUNK_BYTES <= offset < SIZE
    assert await _append(uploads, uid, ZIP[offset:]) == SIZE
    assert await _input(store, uid) == ZIP


async def test_a_request_that_breaks_off_with_the_last_byte_has_not_promised_it(uploads: Resumable) -> None:
    """As a chunked one does that lacks its end: nobody would make the task."""
    uid = await _opened(uploads)
    offset = await _append(uploads, uid, ZIP, cut=True)
    assert SIZE - CHUNK_BYTES <= offset < SIZE
    assert await _append(uploads, uid, ZIP[offset:]) == SIZE
    assert (await uploads.standing(uid)).is_finished


async def test_whoever_was_cut_off_does_no_harm(uploads: Resumable, store: Store) -> None:
    """An older request hangs with half a chunk, or with a write on its way, while a younger one sends other bytes."""
    uid = await _opened(uploads)
    older = await _writer(uploads, uid)
    await older.write(b"x" * (CHUNK_BYTES + 1000))
    younger = await _writer(uploads, uid)
    await younger.write(ZIP[CHUNK_BYTES : 2 * CHUNK_BYTES + 1000])
    with pytest.raises(UploadElsewhere):
        await older.pause()
    late = await store.uploads.extend(older.coming.blob_id, 1, older.number, 0, b"late")
    assert late < 0
    await younger.pause()
    assert (await uploads.standing(uid)).offset == 2 * CHUNK_BYTES + 1000
    first = await store.uploads.blobs.read_range(younger.coming.blob, CHUNK_BYTES, CHUNK_BYTES + 1000)
    assert first == ZIP[CHUNK_BYTES : 2 * CHUNK_BYTES + 1000]


@pytest.mark.parametrize("size", [CHUNK_BYTES, CHUNK_BYTES + 1000], ids=["between chunks", "in a chunk"])
async def test_who_comes_late_does_not_touch_the_task(uploads: Resumable, store: Store, size: int) -> None:
    """Its connection stalls for a minute; meanwhile the upload was finished by another."""
    uid = await _opened(uploads)
    older = await _writer(uploads, uid)
    await older.write(ZIP[:size])
    assert await _append(uploads, uid, ZIP[CHUNK_BYTES:]) == SIZE
    with pytest.raises(UploadElsewhere):
        await older.pause()
    assert await _input(store, uid) == ZIP
    await uploads.dispatch.delete(uid)
    assert {name.partition(":")[0] for name in await keys_of(store)} <= {"models", "writer"}


async def test_two_that_both_end_make_one_task(uploads: Resumable, store: Store) -> None:
    """The older one's zip was being checked when the client sent the end again."""
    uid = await _opened(uploads)
    older = await _writer(uploads, uid)
    await older.write(ZIP)
    await older.close()
    offset = (await uploads.standing(uid)).offset
    younger = await _writer(uploads, uid)
    with pytest.raises(UploadElsewhere):
        await uploads.finish(older)
    await younger.write(ZIP[offset:])
    await uploads.finish(younger)
    assert await _input(store, uid) == ZIP


async def test_the_step_that_makes_the_task_may_be_sent_again(uploads: Resumable, store: Store) -> None:
    """As when its answer was lost: it is the same task still."""
    uid = await _opened(uploads)
    writer = await _writer(uploads, uid)
    await writer.write(ZIP)
    new = NewTask.of(await uploads.dispatch.model(MODEL.human_readable_id), uid, await writer.close())
    for _ in range(2):
        assert await store.tasks.create(new, writer=writer.number) is Created.CREATED
    await store.uploads.release(writer)
    assert await _input(store, uid) == ZIP


async def test_a_task_that_was_posted_under_its_uid_stands(uploads: Resumable, store: Store) -> None:
    """The upload's end is refused, and nothing of it is left."""
    uid = await _opened(uploads)
    await _append(uploads, uid, ZIP[: CHUNK_BYTES + 1000])
    small = zip_of({"a.txt": b"posted"})
    posted = Posted.repeatable(MODEL.human_readable_id, PLAIN, uid)
    assert await uploads.dispatch.submit(posted, _sent(small), Announced(size=len(small)))
    with pytest.raises(TaskExists):
        await _append(uploads, uid, ZIP[CHUNK_BYTES + 1000 :])
    assert await _input(store, uid) == small
    with pytest.raises(UploadNotFound):
        await uploads.standing(uid)
    await uploads.dispatch.delete(uid)
    assert await keys_of(store) == {keys.MODELS, keys.MODEL_ID}


async def test_what_is_given_up_is_gone_at_once(uploads: Resumable, store: Store) -> None:
    """With its room; whoever still sends is told so, and leaves nothing."""
    uid = await _opened(uploads)
    writer = await _writer(uploads, uid)
    await writer.write(ZIP[: CHUNK_BYTES + 1000])
    await uploads.give_up(uid)
    for step in (writer.pause(), writer.write(ZIP[CHUNK_BYTES + 1000 :]), uploads.standing(uid), uploads.give_up(uid)):
        with pytest.raises((UploadNotFound, UploadElsewhere)):
            await step
    assert {name.partition(":")[0] for name in await keys_of(store)} <= {"models", "writer"}


@pytest.mark.parametrize("cause", ["zip", "model"])
async def test_what_is_refused_at_its_end_is_gone(uploads: Resumable, store: Store, cause: str) -> None:
    """As a post would be, and its upload with it."""
    uid = await _opened(uploads)
    if cause == "model":
        await store.connection.call("DEL", keys.MODELS)
    with pytest.raises(InvalidZip if cause == "zip" else ModelNotFound):
        await uploads.append(uid, 0, _sent(bytes(SIZE) if cause == "zip" else ZIP), size=SIZE)
    with pytest.raises(UploadNotFound):
        await uploads.standing(uid)
    assert await keys_of(store) <= {keys.MODELS, keys.MODEL_ID}


async def test_what_is_left_alone_expires(uploads: Resumable, store: Store, servers: Stack) -> None:
    """All of it, at the sweep's next look; one that lives is left alone, however late its writer is."""
    living = await _opened(uploads)
    await _append(uploads, living, ZIP[:1000])
    await store.connection.call("ZADD", keys.LOOSE, 1, (await _writer(uploads, living)).coming.blob_id)
    async with open_store(
        servers.redis_url, reserve_percent=RESERVE_PERCENT, keep_uploads_hours=0.5 / 3600
    ) as impatient:
        coming = (await _writer(uploads, living)).coming.model_copy(update={"blob_id": "short", "ticket": "short"})
        await impatient.uploads.open("short-lived-upload", coming)
        writer = await impatient.uploads.begin("short-lived-upload", coming, 0)
        await writer.write(ZIP[: CHUNK_BYTES + 1000])
        await writer.pause()
    deadline = time.time() + 0.6
    eventually(lambda: time.time() > deadline)
    await sweep(uploads.dispatch, Watch(uploads.dispatch))
    assert (await uploads.standing(living)).offset == 1000
    with pytest.raises(UploadNotFound):
        await uploads.standing("short-lived-upload")
    await uploads.give_up(living)
    assert {name.partition(":")[0] for name in await keys_of(store)} <= {"models", "writer", "reaper"}


async def test_an_upload_that_cannot_be_read_does_not_end_the_sweep(uploads: Resumable, store: Store) -> None:
    """As one of a newer core. It is looked at again later."""
    uid = await _opened(uploads)
    await _append(uploads, uid, ZIP[:1000])
    await store.connection.call("HSET", keys.upload(uid), "about", b"\x80")
    [(blob_id, _)] = await store.connection.call("ZRANGE", keys.LOOSE, 0, -1, "WITHSCORES")
    await store.connection.call("ZADD", keys.LOOSE, 1, blob_id)
    await sweep(uploads.dispatch, Watch(uploads.dispatch))
    assert float(await store.connection.call("ZSCORE", keys.LOOSE, blob_id)) > time.time()


async def test_what_redis_lost_is_sent_again(uploads: Resumable, store: Store) -> None:
    """A shard that was replaced may lack what its upload, elsewhere, counts on."""
    uid = await _opened(uploads)
    await _append(uploads, uid, ZIP[: 2 * CHUNK_BYTES + 1000])
    blob_id = (await _writer(uploads, uid)).coming.blob_id
    await store.connection.call("DEL", keys.chunk(blob_id, 2))
    with pytest.raises(UploadElsewhere):
        await _append(uploads, uid, ZIP[2 * CHUNK_BYTES + 1000 :])
    assert (await uploads.standing(uid)).offset == 2 * CHUNK_BYTES
    await store.connection.call("DEL", keys.chunk(blob_id, 0))
    with pytest.raises(UploadElsewhere):
        await _append(uploads, uid, ZIP[2 * CHUNK_BYTES :])
    assert (await uploads.standing(uid)).offset == 0
    assert await _append(uploads, uid, ZIP) == SIZE
    assert await _input(store, uid) == ZIP


async def test_room_is_held_from_the_beginning(uploads: Resumable, store: Store) -> None:
    """For what hasn't come yet, until it has sent nothing for minutes; who finds none is refused before a byte."""
    [before, *_] = await everywhere(store, "CONFIG", "GET", "maxmemory")
    await limit_memory(store, free_bytes=160 * 2**20)
    try:
        first = await _opened(uploads, length=60 * 2**20)
        await _append(uploads, first, ZIP[: 2 * CHUNK_BYTES])
        [entry] = await store.connection.call("HVALS", keys.INCOMING)
        left, until, _ = entry.decode().split()
        assert int(left) == 60 * 2**20 - 2 * CHUNK_BYTES
        assert ROOM_SECONDS - 60 < float(until) - time.time() <= ROOM_SECONDS
        with pytest.raises(StoreFull):
            await _opened(uploads, length=60 * 2**20)
        await uploads.give_up(first)
        await uploads.give_up(await _opened(uploads, length=60 * 2**20))
        assert await keys_of(store) <= {keys.MODELS, keys.MODEL_ID}
    finally:
        await everywhere(store, "CONFIG", "SET", "maxmemory", before[b"maxmemory"])


async def test_more_than_was_announced_is_refused(uploads: Resumable) -> None:
    """What came before it stays as it was."""
    uid = await _opened(uploads)
    for size in (SIZE + 1, None):
        with pytest.raises(TooLarge):
            await uploads.append(uid, 0, _sent(ZIP + b"x"), size=size)
    offset = (await uploads.standing(uid)).offset
    assert await _append(uploads, uid, ZIP[offset:]) == SIZE


async def test_what_can_never_be_is_refused_at_once(uploads: Resumable, store: Store) -> None:
    """And leaves nothing."""
    with pytest.raises(InvalidZip):
        await _opened(uploads, length=0)
    with pytest.raises(TooLarge):
        await _opened(uploads, length=2**40)
    with pytest.raises(ModelNotFound):
        await uploads.open("nobody's", SIZE, PLAIN, metadata="", ticket="")
    assert await keys_of(store) == {keys.MODELS, keys.MODEL_ID}
