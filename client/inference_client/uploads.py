"""A zip on its way to the server: in one request when it is small, else by tus 1.0 (tus.io), which goes on where it
was cut.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final
from urllib.parse import quote

from inference_client.answers import OnTransfer, Transfer
from inference_client.errors import Conflict, NotFound
from inference_client.session import PASSING, Session, task_path
from inference_client.sources import Source
from inference_client.wire import Body, Call

SMALL_BYTES: Final = 8 * 1024 * 1024
TUS: Final = {"Tus-Resumable": "1.0.0"}
ZIP: Final = {"Content-Type": "application/zip"}
OFFSET: Final = {**TUS, "Content-Type": "application/offset+octet-stream"}
UPLOADS: Final = "/api/uploads/"

Params = Sequence[tuple[str, str]]


def body_of(source: Source, uid: str, on_progress: OnTransfer, start: int = 0) -> Body:
    """From there on."""
    return Body(
        read=partial(source.read, start),
        size=source.size - start,
        on_sent=lambda sent: on_progress(Transfer(uid, start + sent, source.size)),
    )


@dataclass(frozen=True)
class Upload:
    """One zip for one task."""

    session: Session
    source: Source
    params: Params
    headers: Mapping[str, str]
    on_progress: OnTransfer

    async def run(self, uid: str | None) -> str:
        """The task's uid. A given one is of an upload that was begun, or of a task to be: afterwards it is that
        task's, however often this is called.
        """
        if self.source.size <= SMALL_BYTES:
            return await self._put(uid or secrets.token_urlsafe(32))
        if uid is None:
            uid = await self._create()
            await self._resume(uid, 0)
        elif (offset := await self._offset(uid)) is not None:
            await self._resume(uid, offset)
        else:
            await self._find(uid)
        return uid

    async def _put(self, uid: str) -> str:
        """Sent again after a cut, the same bytes for the same uid make one task."""
        headers = {**ZIP, **self.headers}
        await self.session.call(Call("PUT", task_path(uid), self.params, headers, self._body(uid, 0)))
        return uid

    async def _create(self) -> str:
        """What is created twice, because an answer was lost, expires without a byte."""
        headers = {**TUS, **self.headers, "Upload-Length": str(self.source.size)}
        answer, _ = await self.session.call(Call("POST", UPLOADS, self.params, headers))
        return answer.headers["location"].rstrip("/").rpartition("/")[2]

    async def _find(self, uid: str) -> None:
        """The task that was made of an upload. Raises NotFound: to send so much in one request would not go on after a
        cut, and the server gives a new upload a uid of its own.
        """
        try:
            task = await self.session.json(Call("GET", task_path(uid, "status")))
        except NotFound as error:
            raise NotFound(f"The upload {uid} is no longer kept: send the files again, without --uid") from error
        self._check_size(uid, task["input_bytes"])

    async def _resume(self, uid: str, offset: int) -> None:
        """The last byte arrives together with the task that is made of them."""
        patience = self.session.patience()
        while offset < self.source.size:
            headers = {**OFFSET, "Upload-Offset": str(offset)}
            try:
                await self.session.call(
                    Call("PATCH", UPLOADS + quote(uid, safe=""), (), headers, self._body(uid, offset)), repeat=False
                )
            except (*PASSING, Conflict) as error:
                arrived = await self._offset(uid)
                if arrived is None:
                    if isinstance(error, Conflict):
                        raise
                    return await self._find(uid)
                if arrived > offset:
                    patience.reset()
                else:
                    await patience.wait(error)
                offset = arrived
            else:
                return

    async def _offset(self, uid: str) -> int | None:
        """How much has arrived of an upload that isn't complete; None: there is none."""
        try:
            answer, _ = await self.session.call(Call("HEAD", UPLOADS + quote(uid, safe=""), headers=TUS))
        except NotFound:
            return None
        self._check_size(uid, int(answer.headers["upload-length"]))
        return int(answer.headers["upload-offset"])

    def _check_size(self, uid: str, begun_bytes: int | None) -> None:
        """None: the server no longer knows."""
        if begun_bytes not in (None, self.source.size):
            raise Conflict(
                f"What was begun as {uid} has {begun_bytes} bytes, this has {self.source.size}: "
                "send the same files, or leave the uid out"
            )

    def _body(self, uid: str, start: int) -> Body:
        return body_of(self.source, uid, self.on_progress, start)
