"""Core as an app: the routes, the token that guards them, the documents."""

import asyncio
from contextlib import suppress
from typing import Final

from quart import Response

from core import metrics
from core.access import Access
from core.audit import Audit
from core.calls import Call
from core.contract.errors import Unavailable
from core.dispatch import Dispatch
from core.exposition import CONTENT_TYPE, note_build
from core.live import Live
from core.openapi.operation import At
from core.openapi.page import add_docs
from core.overview import overview, readiness
from core.routes import agents, audits, dashboard, events, keys, models, operators, resumable, status, tasks
from core.serving import App, json_response
from core.token import CoreToken

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
OPEN_FOLDERS = ("/docs", "/page/")
WITHOUT_STORE = frozenset({"/metrics", "/api/overview", dashboard.PATH})
OVERVIEW_SECONDS: Final = 5.0
"""Prometheus waits for ten."""


def make_app(dispatch: Dispatch, live: Live, token: CoreToken, audit: Audit) -> App:
    app = App("core")
    note_build(app.figures, "core")
    add_docs(app, "InferenceServer's core", At.CORE)
    for part in (tasks, status, resumable, models, keys, agents, operators, audits, dashboard):
        part.add_routes(app, dispatch)
    events.add_routes(app, dispatch, live)
    app.when_draining.append(live.news.close)

    access = Access(dispatch, token, without_store=WITHOUT_STORE)

    async def guard(call: Call) -> None:
        if call.path not in OPEN_PATHS and not call.path.startswith(OPEN_FOLDERS):
            await access.admit(call)

    app.guard = guard
    app.answering = audit.note

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
