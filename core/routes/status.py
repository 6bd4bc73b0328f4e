"""What clients call of their tasks beyond version 1: how one stands, to stop it, to try it again, to post it once."""

import base64
import hashlib
from typing import Final

from core.access import check_again
from core.calls import Call
from core.contract.errors import InvalidParameters
from core.contract.options import KEY, SECRET, Options
from core.contract.task import UID
from core.dispatch import Dispatch
from core.posted import Posted
from core.routes.parameters import parse
from core.routes.uploads import FIELD, announced, posted_zip
from core.serving import App

KEY_HEADER: Final = "idempotency-key"
SECRET_HEADER: Final = "webhook-secret"  # noqa: S105 - a name


def posted_once(call: Call, model: str) -> Posted:
    """As the client wants it, who may send the very same again under the same Idempotency-Key. The uid follows from the
    key, so that it is as hard to guess, and nothing has to remember both; other API keys' are others.
    """
    options = options_of(call)
    key = call.header(KEY_HEADER)
    if not key:
        return Posted.once(model, options, call.caller)
    if not KEY.fullmatch(key):
        raise InvalidParameters.wrong("header", KEY_HEADER, "16 to 255 visible characters, a UUID for example")
    whose = f"\n{call.caller.key_id}" if call.caller.key_id else ""
    digest = hashlib.sha256(f"{KEY_HEADER}\n{key}{whose}".encode()).digest()
    return Posted.repeatable(model, options, base64.urlsafe_b64encode(digest).decode().rstrip("="), call.caller)


def options_of(call: Call) -> Options:
    """Raises InvalidParameters. Where a webhook may lead is the dispatch's to say."""
    labels = [value for name, value in call.parameters if name == "label"]
    secret = call.header(SECRET_HEADER) or None
    options = parse(Options, {**call.args, "webhook_secret": secret, **({"label": labels} if labels else {})})
    if options.webhook and not secret:
        raise InvalidParameters.missing("header", SECRET_HEADER)
    if secret and not SECRET.fullmatch(secret):
        raise InvalidParameters.wrong(
            "header", SECRET_HEADER, "whsec_ and base64 of 24 bytes or more, or 24 to 255 visible characters"
        )
    return options


def add_routes(app: App, dispatch: Dispatch) -> None:
    @app.direct("GET", "/api/tasks/<uid>/status", problems=True)
    async def status(call: Call, uid: str) -> None:
        if seconds := call.wait_seconds:
            async with call.attended():
                await app.bells.outcome(uid, seconds, dispatch.outcome)
            await check_again(dispatch, call)
        await answer_status(call, uid)

    @app.direct("POST", "/api/tasks/<uid>/cancel", problems=True)
    async def cancel(call: Call, uid: str) -> None:
        await dispatch.cancel(uid)
        await answer_status(call, uid)

    @app.direct("POST", "/api/tasks/<uid>/retry", problems=True)
    async def retry(call: Call, uid: str) -> None:
        async with dispatch.store.quotas.begun(call.caller, uid):
            await dispatch.retry(uid)
        await answer_status(call, uid)

    @app.direct("PUT", "/api/tasks/<uid>", problems=True)
    async def put(call: Call, uid: str) -> None:
        """201, or 200 when the very same was there already."""
        if not UID.fullmatch(uid):
            raise InvalidParameters.wrong("path", "uid", "16 to 64 letters, digits, - and _; choose 43 at random")
        model = call.args.get("model_human_readable_id")
        if model is None:
            raise InvalidParameters.missing("query", "model_human_readable_id")
        posted = Posted.repeatable(model, options_of(call), uid, call.caller)
        zip = await posted_zip(call, max_bytes=dispatch.max_upload_bytes)
        if zip is None:
            raise InvalidParameters.missing("body", FIELD)
        is_new = await dispatch.submit(posted, zip, announced(call))
        await answer_status(call, uid, 201 if is_new else 200)

    async def answer_status(call: Call, uid: str, status: int = 200) -> None:
        shown = await dispatch.status(uid)
        await call.answer(status, shown.model_dump_json().encode())
