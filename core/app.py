"""Core as an app: the routes, the token that guards them, the documents."""

import asyncio
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from quart import Response
from werkzeug.datastructures import Authorization

from core import metrics
from core.calls import Call
from core.client import CoreToken
from core.contract.errors import Forbidden, Unauthorized, Unavailable
from core.dispatch import Dispatch
from core.exposition import CONTENT_TYPE, note_build
from core.live import Live
from core.openapi.operation import At
from core.openapi.page import add_docs
from core.overview import overview, readiness
from core.routes import agents, dashboard, events, models, operators, resumable, status, tasks
from core.serving import App, json_response

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
OPEN_FOLDERS = ("/docs", "/page/")
WITHOUT_STORE = frozenset({"/metrics", "/api/overview", dashboard.PATH})
OVERVIEW_SECONDS: Final = 5.0
"""Prometheus waits for ten."""


def make_app(dispatch: Dispatch, live: Live, token: CoreToken) -> App:
    app = App("core")
    note_build(app.figures, "core")
    add_docs(app, "InferenceServer's core", At.CORE)
    for part in (tasks, status, resumable, models, agents, operators, dashboard):
        part.add_routes(app, dispatch)
    events.add_routes(app, dispatch, live)
    app.when_draining.append(live.news.close)

    def guard(call: Call) -> None:
        if call.path in OPEN_PATHS or call.path.startswith(OPEN_FOLDERS):
            return
        authorization = Authorization.from_header(call.header("authorization"))
        offered = (authorization.token or authorization.password) if authorization else None
        if not token.opens(offered or ""):
            raise Unauthorized
        if _is_from_elsewhere(call):
            raise Forbidden("Another site's page may not do this")
        if call.path not in WITHOUT_STORE:
            dispatch.store.pulse.check()

    app.guard = guard

    @app.get("/")
    async def hello() -> Response:
        return json_response('{"message":"Hello world - this is the core of InferenceServer"}')

    @app.get("/healthz")
    async def healthz() -> Response:
        return json_response('{"status":"alive"}')

    @app.get("/readyz")
    async def readyz() -> Response:
        known = readiness(dispatch).beside("core", app.certificate.trouble if app.certificate else "")
        return json_response(known.model_dump_json(exclude_defaults=True), 200 if known.ready else 503)

    @app.get("/metrics")
    async def exposition() -> Response:
        with suppress(Unavailable):
            dispatch.store.pulse.check()
            metrics.note_agents(await dispatch.store.agents.all())
        with suppress(TimeoutError):
            async with asyncio.timeout(OVERVIEW_SECONDS):
                metrics.note_overview(await overview(dispatch))
        return Response(metrics.exposition(app.figures), content_type=CONTENT_TYPE)

    return app


def _is_from_elsewhere(call: Call) -> bool:
    """A browser that was told the token once sends it along with other sites' forms, too, and names their origin with
    all that may change something. Other clients name none.
    """
    if call.path.startswith("/api/") and call.header("sec-fetch-site") == "cross-site":
        return True
    origin = call.header("origin")
    return bool(origin) and urlsplit(origin).netloc != call.header("host")
