"""The public API: version 1's, and nothing that isn't on this list."""

import asyncio
from collections.abc import Mapping
from importlib import resources
from typing import Final

from quart import Response, request, send_from_directory

from core.client import CoreClient
from core.contract.errors import Forbidden, TaskNotFound, Unavailable
from core.contract.http import Readiness
from core.contract.model import ModelSpec
from core.contract.task import UID
from core.openapi import PUBLIC, add_docs
from core.serving import App, json_response
from gateway.relay import SMALL_BYTES, relay

READY_SECONDS: Final = 1.0
PAGE = resources.files("gateway").joinpath("page")
PUBLIC_MODEL_PARAMETERS = frozenset(ModelSpec.model_fields)
"""Limits and privileges are the operator's to give, on core."""


def make_app(core: CoreClient, *, allow_public_post_model: bool) -> App:
    app = App("gateway")
    add_docs(app, "InferenceServer", PUBLIC)

    @app.get("/")
    async def hello() -> Response:
        """Version 1's words for its clients; the page for a browser."""
        if "text/html" in request.headers.get("Accept", ""):
            return await page_file("index.html")
        return json_response('{"message":"Hello world - Welcome to InferenceServer"}')

    @app.get("/page/<name>")
    async def page_file(name: str) -> Response:
        response = await send_from_directory(str(PAGE), name)
        response.headers["Content-Security-Policy"] = "default-src 'self'"
        return response

    @app.get("/healthz")
    async def healthz() -> Response:
        return json_response('{"status":"alive"}')

    @app.get("/readyz")
    async def readyz() -> Response:
        """Core's answer, which names parts and no places."""
        try:
            async with asyncio.timeout(READY_SECONDS):
                return await relay(core, "GET", "/readyz")
        except (TimeoutError, Unavailable):
            readiness = Readiness(ready=False, missing={"core": "does not answer"})
            return json_response(readiness.model_dump_json(exclude_defaults=True), 503)

    @app.post("/api/tasks/")
    async def post_task() -> Response:
        if "container_tag" in request.args:
            return await post_model()  # how version 1's documentation registers a model
        model = request.args.get("model_human_readable_id") or request.args.get("human_readable_id")
        return await relay_upload("/api/tasks/", request.args, model=model)

    @app.get("/api/tasks/<uid>")
    async def get_task(uid: str) -> Response:
        return await relay(core, request.method, f"/api/tasks/outputs/{_known_form(uid)}")

    @app.delete("/api/tasks/<uid>")
    async def delete_task(uid: str) -> Response:
        return await relay(core, "DELETE", f"/api/tasks/{_known_form(uid)}")

    @app.get("/api/models/")
    async def models() -> Response:
        return await relay(core, "GET", "/api/models/")

    @app.post("/api/models/")
    async def post_model() -> Response:
        if not allow_public_post_model:
            raise Forbidden("Registering models is the operator's here")
        params = {name: value for name, value in request.args.items() if name in PUBLIC_MODEL_PARAMETERS}
        return await relay_upload("/api/models/", params, model=None)

    async def relay_upload(path: str, params: Mapping[str, str], *, model: str | None) -> Response:
        """A small body goes at once; before a large one core is asked."""
        size = request.content_length
        if size is not None and size <= SMALL_BYTES:
            return await relay(core, "POST", path, params=params)
        admission = await core.admit(model=model, size=size)
        return await relay(core, "POST", path, params=params, admission=admission)

    return app


def _known_form(uid: str) -> str:
    """A uid is put into a path of core: '..' must not get there."""
    if not UID.fullmatch(uid):
        raise TaskNotFound
    return uid
