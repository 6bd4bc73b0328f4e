"""Uploads that can be resumed, by tus 1.0. The uid of one is that of the task that it becomes."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from core import tus
from core.calls import Call, Gone, Headers
from core.contract.audit import Action
from core.contract.errors import ContractError, UploadNotFound
from core.contract.http import TICKET_HEADER
from core.contract.parameters import Continuation, Submission
from core.contract.task import UID
from core.dispatch import Dispatch
from core.resumable import Resumable
from core.routes.parameters import parse
from core.routes.status import options_of
from core.serving import App
from core.store.uploads import Standing


def add_routes(app: App, dispatch: Dispatch) -> None:
    uploads = Resumable(dispatch)

    @app.direct("OPTIONS", "/api/uploads/", problems=True)
    @app.direct("OPTIONS", "/api/uploads/<uid>", problems=True)
    async def offer(call: Call, **_: str) -> None:
        call.headers.append((tus.RESUMABLE, tus.VERSION))
        max_size = (tus.MAX_SIZE, str(dispatch.max_upload_bytes))
        await call.answer(204, headers=[(tus.SUPPORTED, tus.VERSION), (tus.EXTENSION, tus.EXTENSIONS), max_size])

    @app.direct("POST", "/api/uploads/", problems=True)
    async def create(call: Call) -> None:
        """Perhaps with the first bytes."""
        tus.meet(call)
        length = tus.number(call, tus.LENGTH)
        if call.has_body:
            tus.check_type(call)
        said = tus.metadata(call)
        model = parse(Submission, {"human_readable_id": said["model"], **call.args} if "model" in said else call.args)
        uid = await uploads.open(
            model.model_human_readable_id,
            length,
            options_of(call),
            metadata=call.header(tus.METADATA.lower()),
            ticket=call.header(TICKET_HEADER),
            owner=call.caller.key_id,
        )
        call.about = uid
        standing = await uploads.standing(uid)
        if call.has_body:
            try:
                standing = await uploads.append(uid, 0, call.pieces(), size=call.content_length, caller=call.caller)
            except (ContractError, Gone):  # its client doesn't learn of it
                await uploads.forget(uid)
                raise
        if standing.is_finished:
            call.did = Action.TASK_SUBMITTED
        await call.answer(201, headers=[("Location", f"/api/uploads/{uid}"), *_progress(standing)])

    @app.direct("HEAD", "/api/uploads/<uid>", problems=True)
    async def ask(call: Call, uid: str) -> None:
        tus.meet(call)
        standing = await uploads.standing(_known_form(uid))
        headers = [("Cache-Control", "no-store"), (tus.LENGTH, str(standing.length)), *_progress(standing)]
        if standing.coming and standing.coming.metadata:
            headers.append((tus.METADATA, standing.coming.metadata))
        await call.answer(200, headers=headers)

    @app.direct("PATCH", "/api/uploads/<uid>", problems=True)
    async def append(call: Call, uid: str) -> None:
        tus.meet(call)
        tus.check_type(call)
        offset = tus.number(call, tus.OFFSET)
        standing = await uploads.append(
            _known_form(uid), offset, call.pieces(), size=call.content_length, caller=call.caller
        )
        if standing.is_finished:
            call.did = Action.TASK_SUBMITTED
        await call.answer(204, headers=_progress(standing))

    @app.direct("DELETE", "/api/uploads/<uid>", problems=True)
    async def give_up(call: Call, uid: str) -> None:
        tus.meet(call)
        await uploads.give_up(_known_form(uid))
        await call.answer(204, headers=())

    @app.direct("GET", "/api/uploads/<uid>/admission", problems=True)
    async def admit(call: Call, uid: str) -> None:
        asked = parse(Continuation, call.args)
        await uploads.admit(_known_form(uid), asked.offset, asked.size)
        await call.answer(204, headers=())


def _progress(standing: Standing) -> Headers:
    headers = [(tus.OFFSET, str(standing.offset))]
    if standing.seconds_left is not None:
        expires = datetime.now(UTC) + timedelta(seconds=standing.seconds_left)
        headers.append((tus.EXPIRES, format_datetime(expires, usegmt=True)))
    return headers


def _known_form(uid: str) -> str:
    if not UID.fullmatch(uid):
        raise UploadNotFound
    return uid
