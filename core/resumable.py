"""Resumable uploads: what comes of the bytes that core/store/uploads.py keeps."""

import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace

import structlog

from core import metrics
from core.calls import Gone
from core.contract.errors import (
    ContractError,
    InvalidRequest,
    InvalidZip,
    StoreFull,
    TaskExists,
    TooLarge,
    Unavailable,
    UploadElsewhere,
)
from core.contract.key import OPERATOR, Caller
from core.contract.options import Options
from core.contract.task import new_uid
from core.dispatch import Dispatch
from core.store.tasks import Created, NewTask
from core.store.uploads import Coming, Standing, Writer

log = structlog.get_logger()


@dataclass(frozen=True)
class Resumable:
    """Each method may be called at any core, whichever had the upload before."""

    dispatch: Dispatch

    async def open(
        self, model: str, length: int, options: Options, *, metadata: str, ticket: str, owner: str = ""
    ) -> str:
        """The uid of an upload, and of the task that it will be. It has room before the first byte comes."""
        if not length:
            raise InvalidZip("The zip is empty: there is no file in it.")
        if length > self.dispatch.max_upload_bytes:
            raise TooLarge.over(self.dispatch.max_upload_bytes)
        self.dispatch.check(options)
        await self.dispatch.model_that_takes(model)
        uid = new_uid()
        coming = Coming(
            model=model,
            length=length,
            blob_id=secrets.token_hex(16),
            ticket=ticket or secrets.token_hex(16),
            options=options,
            metadata=metadata,
            owner=owner,
        )
        await self.dispatch.store.uploads.open(uid, coming)
        log.info("upload.opened", task=uid, model=model, size=length)
        return uid

    async def standing(self, uid: str) -> Standing:
        return await self.dispatch.store.uploads.get(uid)

    async def check(self, uid: str, offset: int, size: int | None) -> Standing:
        """Whether so many bytes from there on would be taken; of a finished upload those that are none. Raises
        UploadElsewhere, TooLarge.
        """
        standing = await self.standing(uid)
        if offset != standing.offset:
            raise UploadElsewhere.at(standing.offset)
        if (size or 0) > standing.length - offset:
            raise TooLarge(f"The upload is {standing.length} bytes long as announced: there are no more to send")
        return standing

    async def admit(self, uid: str, offset: int, size: int | None) -> None:
        """As `check`, with room: what is sent now is taken."""
        standing = await self.check(uid, offset, size)
        if standing.coming:
            await self.dispatch.store.uploads.reservation(standing.coming, offset).begin()

    async def append(
        self, uid: str, offset: int, pieces: AsyncIterator[bytes], *, size: int | None, caller: Caller = OPERATOR
    ) -> Standing:
        """How far the upload is then. With the last byte the zip is checked, and becomes the task; one that is refused
        is gone. What came before the client went away is kept.
        """
        standing = await self.check(uid, offset, size)
        if standing.coming is None or size == 0:
            return standing
        writer = await self.dispatch.store.uploads.begin(uid, standing.coming, offset)
        try:
            async for piece in pieces:
                if writer.offset + len(piece) > standing.length:
                    raise TooLarge(f"The upload is {standing.length} bytes long as announced: there were more")
                await writer.write(piece)
        except (Gone, InvalidRequest):
            await writer.pause()
            raise
        if writer.offset < standing.length:
            await writer.pause()
            seconds = self.dispatch.store.uploads.keep_seconds
            return replace(standing, offset=writer.offset, seconds_left=seconds)
        async with self.dispatch.store.quotas.begun(caller, uid):  # when it is refused, the last bytes are sent again
            await self.finish(writer)
        return Standing(standing.length, standing.length)

    async def finish(self, writer: Writer) -> None:
        """Everything has come: the task is made, or the upload is gone, unless what fails may succeed another time."""
        uploads, coming = self.dispatch.store.uploads, writer.coming
        try:
            model = await self.dispatch.model(coming.model)
            blob = await writer.close()
            await self.dispatch.check_zip(blob)
        except (Unavailable, StoreFull, UploadElsewhere):
            raise  # it can be sent on
        except ContractError:
            if not await uploads.give_up(writer.uid, coming, writer=writer.number):
                raise UploadElsewhere.at(writer.offset) from None
            raise
        new = NewTask.of(model, writer.uid, blob, coming.options, owner=coming.owner)
        if await self.dispatch.store.tasks.create(new, writer=writer.number) is Created.OTHER:
            if await uploads.give_up(writer.uid, coming, writer=writer.number):
                raise TaskExists("Something else was posted under the uid of this upload, which is gone now")
            raise UploadElsewhere.at(writer.offset)
        log.info("task.created", task=new.uid, model=coming.model, size=blob.size)
        metrics.TASKS_POSTED.labels(coming.model).inc()
        await uploads.release(writer)
        await self.dispatch.ring_first(new)

    async def give_up(self, uid: str) -> None:
        """What has come of it goes. Raises UploadElsewhere when it is a task already."""
        standing = await self.standing(uid)
        if standing.coming is None:
            raise UploadElsewhere("The upload is finished: delete the task instead")
        if not await self.dispatch.store.uploads.give_up(uid, standing.coming):
            return await self.give_up(uid)  # it ended just now
        log.info("upload.given_up", task=uid, offset=standing.offset)

    async def forget(self, uid: str) -> None:
        """As `give_up`, as far as there is something and it can be done; else it expires."""
        with suppress(ContractError):
            await self.give_up(uid)
