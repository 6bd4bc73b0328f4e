"""Resumable uploads: zips that come in several requests, each from where the one before got to.

Each request that brings bytes is a writer with a number of its own, and the youngest has the upload: an older one,
which may hang on a connection that nobody uses any more, can move neither the offset nor what stands in a chunk.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from pydantic import BaseModel, ConfigDict

from core.contract import codec
from core.contract.errors import StoreFull, Unavailable, UploadElsewhere, UploadNotFound
from core.contract.options import PLAIN, Options
from core.contract.task import Blob
from core.store import keys
from core.store.blobs import CHUNK_BYTES, CUT_OFF_SECONDS, REMOVED_AT_ONCE, RESERVED_CHUNKS, Blobs, Filling, Loose
from core.store.connection import Connection, script
from core.store.room import TICKET_SECONDS, Announced, Reservation, Room

ROOM_SECONDS: Final = 300.0
"""How long room is held after the last bytes, for a client that comes back."""

UNBEGUN_SECONDS: Final = 600.0
"""How long an upload lives for which nothing comes: to open thousands costs its client nothing."""

FENCE_SECONDS: Final = 3600
"""Whatever an older writer sent has come by then: Redis stands still for minutes at most."""


class Coming(BaseModel):
    """What is known of an upload from its beginning."""

    model_config = ConfigDict(frozen=True)

    model: str
    """Its human_readable_id."""
    length: int
    blob_id: str
    ticket: str
    """Under which it has room."""
    options: Options = PLAIN
    metadata: str = ""
    """As the client sent it, who may ask for it."""
    owner: str = ""
    """As that of the task that it will be."""

    @property
    def blob(self) -> Blob:
        return Blob(id=self.blob_id, size=self.length)


@dataclass(frozen=True)
class Standing:
    """How far an upload is. All of it is there when its task is."""

    offset: int
    length: int
    seconds_left: float | None = None
    """Until it expires, unless it is finished."""
    coming: Coming | None = None

    @property
    def is_finished(self) -> bool:
        return self.coming is None


class Advanced(StrEnum):
    DONE = "done"
    STALE = "stale"
    """A younger writer has the upload, or has finished it."""
    GONE = "gone"


class Writer:
    """One request's bytes, from the upload's offset on: `write`, then `pause`, or `close` if they are the last.

    The offset never says more than what is stored. It reaches the end only with the task.
    """

    def __init__(
        self,
        connection: Connection,
        uploads: "Uploads",
        uid: str,
        coming: Coming,
        *,
        number: int,
        offset: int,
        loose_until: float,
    ) -> None:
        self.uid = uid
        self.number = number
        self.coming = coming
        self.reservation = uploads.reservation(coming, offset)
        self._redis = connection
        self._uploads = uploads
        self._stored = self._told = offset
        self._filling = Filling()
        self.loose_until = loose_until

    @property
    def offset(self) -> int:
        """With what isn't stored yet."""
        return self._stored + self._filling.size

    async def write(self, piece: bytes) -> None:
        """Raises UploadElsewhere when a younger writer has the upload, UploadNotFound when it was given up."""
        rest = memoryview(piece)
        while rest:
            room = CHUNK_BYTES - self.offset % CHUNK_BYTES
            self._filling.add(rest[:room])
            rest = rest[room:]
            if self.offset % CHUNK_BYTES == 0:
                await self.reservation.keep()
                await self._store()

    async def pause(self) -> None:
        """Stores what has come: somebody may go on from there. Of a request that broke off with the last byte, that
        byte is sent again.
        """
        if self._filling.size and self.offset < self.coming.length:
            await self._store()
        await self._advance(self._told, is_through=True)
        with suppress(StoreFull):  # whoever goes on asks for room anew
            await self.reservation.tell()

    async def close(self) -> Blob:
        """Everything has come. Raises UploadElsewhere if a server of Redis lost some of it meanwhile."""
        if self._filling.size:
            await self._store()
        blob = self.coming.blob
        chunks = -(-blob.size // CHUNK_BYTES)
        await self._redis.note("HSET", keys.blob(blob.id), "owner", self.uid, "chunks", chunks, "size", blob.size)
        for first in range(0, chunks, REMOVED_AT_ONCE):
            numbers = range(first, min(first + REMOVED_AT_ONCE, chunks))
            lengths = await self._redis.call_all(("STRLEN", keys.chunk(blob.id, number)) for number in numbers)
            for number, length in zip(numbers, lengths, strict=True):
                if length < min(CHUNK_BYTES, blob.size - number * CHUNK_BYTES):
                    await self._go_back(number * CHUNK_BYTES + length)
        await self._redis.keep([keys.blob(blob.id), *(keys.chunk(blob.id, number) for number in range(chunks))])
        return blob

    async def _store(self) -> None:
        number, position = divmod(self._stored, CHUNK_BYTES)
        if position == 0 and number % RESERVED_CHUNKS == 0:
            self.loose_until = await self._uploads.reserve(self.uid, self.coming.blob_id, number)
        piece = self._filling.take()
        there = await self._uploads.extend(self.coming.blob_id, number, self.number, position, piece)
        if there < 0:
            raise UploadElsewhere.at(self._stored)
        if there < position:
            await self._go_back(number * CHUNK_BYTES + there)
        self._stored += len(piece)
        await self.reservation.arrived(len(piece))
        if self._stored < self.coming.length:
            await self._advance(self._stored)

    async def _advance(self, offset: int, *, is_through: bool = False) -> None:
        advanced = await self._uploads.advance(self.uid, self.number, offset, is_through=is_through)
        if advanced is Advanced.STALE:
            raise UploadElsewhere.at(offset)
        if advanced is Advanced.GONE:  # and with it the chunks, but perhaps for the last one
            await self._uploads.blobs.remove(self.coming.blob_id, chunks=-(-self._stored // CHUNK_BYTES))
            raise UploadNotFound
        self._told = offset

    async def _go_back(self, offset: int) -> None:
        """A server of Redis that was replaced hasn't all that was stored."""
        await self._advance(offset, is_through=True)
        raise UploadElsewhere.at(offset)


class Uploads:
    def __init__(self, connection: Connection, blobs: Blobs, room: Room, *, keep_seconds: float) -> None:
        """`keep_seconds`: how long an upload lives after its last bytes."""
        self.blobs = blobs
        self.room = room
        self.keep_seconds = keep_seconds
        self._room_seconds = min(ROOM_SECONDS, keep_seconds)
        self._redis = connection
        self._open = script(connection, "upload_open", kept=True)
        self._begin = script(connection, "upload_begin")
        self._advance = script(connection, "upload_advance")
        self._drop = script(connection, "upload_drop", kept=True)
        self._reserve = script(connection, "reserve", kept=True)
        self._extend = script(connection, "extend", fills=True)

    async def open(self, uid: str, coming: Coming) -> None:
        """Raises StoreFull. Its room waits for the first bytes as long as any other's."""
        announced = Announced(size=coming.length, ticket=coming.ticket)
        await Reservation(self.room, announced, seconds=TICKET_SECONDS).begin()
        seconds = min(UNBEGUN_SECONDS, self.keep_seconds)
        await self._open(keys=[keys.upload(uid)], args=[codec.pack(coming), seconds])

    async def get(self, uid: str) -> Standing:
        """Raises UploadNotFound. The upload is asked before the task: it ends in the step that makes the task."""
        about, left, uploaded = await self._redis.call_all(
            [
                ("HMGET", keys.upload(uid), "about", "offset"),
                ("PTTL", keys.upload(uid)),
                ("HGET", keys.task(uid), "uploaded"),
            ]
        )
        packed, offset = about
        if packed is not None:
            coming = codec.unpack(Coming, packed)
            return Standing(int(offset), coming.length, seconds_left=max(left, 0) / 1000, coming=coming)
        if uploaded is not None:
            return Standing(int(uploaded), int(uploaded))
        raise UploadNotFound

    async def owner(self, uid: str) -> str:
        """Also of a finished one. Raises UploadNotFound."""
        coming = (await self.get(uid)).coming
        if coming is not None:
            return coming.owner
        return (await self._redis.ask("HGET", keys.task(uid), "owner") or b"").decode()

    async def begin(self, uid: str, coming: Coming, offset: int) -> Writer:
        """Whoever wrote before has lost the upload. Raises UploadElsewhere if that isn't its offset (any more), and
        StoreFull when the room that it had is gone, and there is no other.
        """
        await self.reservation(coming, offset).begin()
        begun = await self._begin(keys=[keys.upload(uid)], args=[offset, self.keep_seconds])
        if not begun:
            raise UploadElsewhere.at((await self.get(uid)).offset)
        number, is_contested = begun
        if is_contested:
            await self._fence(coming, offset, number)
        until = await self.reserve(uid, coming.blob_id, offset // CHUNK_BYTES)
        return Writer(self._redis, self, uid, coming, number=number, offset=offset, loose_until=until)

    async def _fence(self, coming: Coming, offset: int, number: int) -> None:
        """A writer has at most one piece on its way, for the chunk in which its upload's offset was at the last."""
        fence = keys.writer(coming.blob_id, offset // CHUNK_BYTES)
        await self._redis.note("SET", fence, number, "EX", FENCE_SECONDS)

    async def give_up(self, uid: str, coming: Coming, *, writer: int | None = None) -> bool:
        """The upload with all that has come of it. False: it isn't there, or isn't the `writer`'s."""
        await self.blobs.loosen([coming.blob], seconds=CUT_OFF_SECONDS)
        dropped = await self._drop(keys=[keys.upload(uid)], args=["" if writer is None else writer])
        if not dropped:
            return False
        offset, latest, writes = dropped
        if writes and writer is None:
            await self._fence(coming, int(offset), int(latest) + 1)
        await self.blobs.remove(coming.blob_id)
        await self.room.give_back(coming.ticket)
        return True

    async def release(self, writer: Writer) -> None:
        """The task has the blob. What a crash leaves of this runs out by itself."""
        with suppress(Unavailable):
            await self.blobs.hold(Loose(writer.coming.blob_id, writer.uid, writer.loose_until))
            await self.room.give_back(writer.coming.ticket)

    async def is_coming(self, loose: Loose) -> bool:
        """Whether the blob is that of an upload which may go on."""
        packed = await self._redis.call("HGET", keys.upload(loose.owner), "about")
        return packed is not None and codec.unpack(Coming, packed).blob_id == loose.id

    def reservation(self, coming: Coming, offset: int) -> Reservation:
        announced = Announced(size=coming.length - offset, ticket=coming.ticket)
        return Reservation(self.room, announced, seconds=self._room_seconds)

    async def reserve(self, uid: str, blob_id: str, number: int) -> float:
        """So that a sweep knows of the chunks that come next. It asks for the upload before it takes any. Returned is
        until when the blob is loose.
        """
        until = time.time() + self.keep_seconds
        bound = (number // RESERVED_CHUNKS + 1) * RESERVED_CHUNKS
        await self._redis.note("ZADD", keys.LOOSE, until, blob_id, kept=True)
        await self._reserve(keys=[keys.blob(blob_id)], args=[uid, bound])
        return until

    async def extend(self, blob_id: str, number: int, writer: int, position: int, piece: bytes) -> int:
        """As the script says."""
        names = [keys.chunk(blob_id, number), keys.writer(blob_id, number)]
        return int(await self._extend(keys=names, args=[writer, position, piece]))

    async def advance(self, uid: str, writer: int, offset: int, *, is_through: bool) -> Advanced:
        args = [writer, offset, self.keep_seconds, int(is_through)]
        answer = await self._advance(keys=[keys.task(uid), keys.upload(uid)], args=args)
        return Advanced(answer.decode())
