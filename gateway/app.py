"""The public API: version 1's, and nothing that isn't on this list."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from importlib import resources
from typing import Final

from quart import Response, request

from core import tus
from core.calls import Call
from core.client import CoreClient, Unoffered, on_own_behalf
from core.contract.errors import Forbidden, KeyRefused, ModelNotFound, TaskNotFound, Unavailable
from core.contract.http import AWAY, FINISHED, Asked, ErrorBody, Outcome, Readiness
from core.contract.model import ModelSpec
from core.contract.parameters import Switch
from core.contract.task import UID
from core.gathering import Gathering
from core.openapi.operation import At
from core.openapi.page import add_docs
from core.pages import add_files, page_file
from core.serving import App, json_response
from gateway import auth, operators
from gateway.relay import SMALL_BYTES, own_token, relay, relay_upload

POLLED_AT_ONCE: Final = 1000
"""What clients ask again and again becomes one question to core."""

READY_SECONDS: Final = 1.0
PAGE = resources.files("gateway").joinpath("page")
PUBLIC_MODEL_PARAMETERS = frozenset({*ModelSpec.model_fields, *Switch.model_fields})
"""Limits and privileges are the operator's to give."""


def make_app(core: CoreClient, *, allow_public_post_model: bool, allow_operators: bool = False) -> App:
    async def outcomes(asked: Sequence[tuple[str, str, str]]) -> list[Outcome]:
        """Of many clients' tasks at once."""
        uids, offered, addresses = zip(*asked, strict=True)
        of_keys = {"offered": offered, "addresses": addresses} if any(offered) else {}
        with on_own_behalf():
            return await core.outcomes(Asked(uids=uids, **of_keys))

    app = App("gateway")
    app.guard = auth.guard
    polls = Gathering(outcomes, at_once=POLLED_AT_ONCE)
    add_docs(app, "InferenceServer", At.GATEWAY)
    add_files(app, PAGE)
    draining = asyncio.Event()
    app.when_draining.append(draining.set)

    @app.get("/")
    async def hello() -> Response:
        """Version 1's words for its clients; the page for a browser."""
        if "text/html" in request.headers.get("Accept", ""):
            return await page_file(PAGE, "index.html")
        return json_response('{"message":"Hello world - Welcome to InferenceServer"}')

    @app.get("/healthz")
    async def healthz() -> Response:
        return json_response('{"status":"alive"}')

    @app.direct("GET", "/readyz")
    async def readyz(call: Call) -> None:
        """Core's answer, which names parts and no places, and what is wrong here."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                found = await core.readiness()
        except (TimeoutError, Unavailable):
            found = Readiness(ready=False, missing={"core": "does not answer"})
        found = found.beside("gateway", app.certificate.trouble if app.certificate else "")
        await call.answer(200 if found.ready else 503, found.model_dump_json(exclude_defaults=True).encode())

    @app.direct("POST", "/api/tasks/")
    async def post_task(call: Call) -> None:
        if "container_tag" in call.args:
            return await post_model(call)  # how version 1's documentation registers a model
        model = call.args.get("model_human_readable_id") or call.args.get("human_readable_id")
        await relay_upload(call, core, "/api/tasks/", call.parameters, model=model)

    @app.direct("PUT", "/api/tasks/<uid>", problems=True)
    async def put_task(call: Call, uid: str) -> None:
        model = call.args.get("model_human_readable_id")
        await relay_upload(call, core, f"/api/tasks/{_known_form(uid)}", call.parameters, model=model)

    @app.direct("GET", "/api/tasks/<uid>")
    async def get_task(call: Call, uid: str) -> None:
        """Asked for over and over until it is there: only then is there anything to relay."""
        path = f"/api/tasks/outputs/{_known_form(uid)}"
        try:
            outcome = await ask(call, uid)
        except Unoffered:
            outcome = FINISHED  # or not: an older core says so itself
        if outcome.status == FINISHED.status:
            await relay(call, core, call.method, path)
        else:
            await call.answer(outcome.status, outcome.body.encode())

    @app.direct("GET", "/api/tasks/<uid>/status", problems=True)
    async def status(call: Call, uid: str) -> None:
        """Whoever waits waits here, and not at core."""
        path = f"/api/tasks/{_known_form(uid)}/status"
        if call.wait_seconds:
            with suppress(Unoffered):
                await ask(call, uid)
        await relay(call, core, "GET", path)

    @app.direct("POST", "/api/tasks/<uid>/cancel", problems=True)
    async def cancel(call: Call, uid: str) -> None:
        await relay(call, core, "POST", f"/api/tasks/{_known_form(uid)}/cancel")

    @app.direct("POST", "/api/tasks/<uid>/retry", problems=True)
    async def retry(call: Call, uid: str) -> None:
        await relay(call, core, "POST", f"/api/tasks/{_known_form(uid)}/retry")

    @app.direct("GET", "/api/tasks/<uid>/events", problems=True)
    async def events(call: Call, uid: str) -> None:
        path = f"/api/tasks/{_known_form(uid)}/events"
        await relay(call, core, call.method, path, params=call.parameters, until=draining)

    @app.direct("GET", "/api/tasks/<uid>/log", problems=True)
    async def printed(call: Call, uid: str) -> None:
        await relay(call, core, call.method, f"/api/tasks/{_known_form(uid)}/log", params=call.parameters)

    @app.direct("DELETE", "/api/tasks/<uid>")
    async def delete_task(call: Call, uid: str) -> None:
        await relay(call, core, "DELETE", f"/api/tasks/{_known_form(uid)}")

    @app.direct("GET", "/api/models/")
    async def models(call: Call) -> None:
        await relay(call, core, "GET", "/api/models/")

    @app.direct("POST", "/api/models/")
    async def post_model(call: Call) -> None:
        """Only new ones. Limits and privileges are given at core, or with an admin's key."""
        key = auth.key_of(call)
        if key and (not allow_public_post_model or await core.knows(key)):
            await relay_upload(call, core, "/api/models/", call.parameters, key=key)
        elif allow_public_post_model:
            await relay_upload(call, core, "/api/models/", _public(call))
        else:
            with own_token():
                await core.models()  # where a key is needed core says so
            raise Forbidden("Models are the operator's here")

    @app.direct("GET", "/api/models/<uid>", problems=True)
    async def model(call: Call, uid: str) -> None:
        with own_token():
            found = await core.model(_of_model(uid))
        await call.answer(200, found.model_dump_json().encode())

    @app.direct("OPTIONS", "/api/uploads/", problems=True)
    @app.direct("OPTIONS", "/api/uploads/<uid>", problems=True)
    async def offer_uploads(call: Call, **_: str) -> None:
        call.headers.append((tus.RESUMABLE, tus.VERSION))
        await relay(call, core, "OPTIONS", "/api/uploads/")

    @app.direct("POST", "/api/uploads/", problems=True)
    async def open_upload(call: Call) -> None:
        tus.meet(call)
        await relay_upload(call, core, "/api/uploads/", call.parameters)

    @app.direct("PATCH", "/api/uploads/<uid>", problems=True)
    async def append(call: Call, uid: str) -> None:
        tus.meet(call)
        path, size = f"/api/uploads/{_known_form(uid)}", call.content_length
        if size is None or size > SMALL_BYTES:
            tus.check_type(call)
            with own_token():
                await core.admit_more(uid, offset=tus.number(call, tus.OFFSET), size=size)
        await relay(call, core, "PATCH", path)

    for method in ("HEAD", "DELETE"):

        @app.direct(method, "/api/uploads/<uid>", problems=True)
        async def upload(call: Call, uid: str) -> None:
            tus.meet(call)
            await relay(call, core, call.method, f"/api/uploads/{_known_form(uid)}")

    async def ask(call: Call, uid: str) -> Outcome:
        if not (seconds := call.wait_seconds):
            return await poll(call, uid)
        async with call.attended():
            return await app.bells.outcome(uid, seconds, partial(poll, call))

    async def poll(call: Call, uid: str) -> Outcome:
        with own_token():
            outcome = await polls.ask((uid, auth.offered_by(call), call.client_address))
        if outcome.status == AWAY.status:
            raise Unavailable
        if outcome.status == HTTPStatus.UNAUTHORIZED:
            raise KeyRefused(ErrorBody.model_validate_json(outcome.body).detail)
        return outcome

    if allow_operators:
        operators.add_routes(app, core)
    return app


def _public(call: Call) -> Sequence[tuple[str, str]]:
    """The parameters of a model that anybody may give."""
    return [(name, value) for name, value in call.args.items() if name in PUBLIC_MODEL_PARAMETERS]


def _of_model(uid: str) -> str:
    """As `_known_form`."""
    if not UID.fullmatch(uid):
        raise ModelNotFound
    return uid


def _known_form(uid: str) -> str:
    """A uid is put into a path of core: '..' must not get there."""
    if not UID.fullmatch(uid):
        raise TaskNotFound
    return uid
