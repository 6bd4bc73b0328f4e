"""Core as an app: the routes, the token that guards them, the documents."""

from contextlib import suppress

from quart import Response
from werkzeug.datastructures import Authorization

from core import metrics
from core.calls import Call
from core.client import CoreToken
from core.contract.errors import Unauthorized, Unavailable
from core.dispatch import Dispatch
from core.live import Live
from core.openapi.operation import At
from core.openapi.page import add_docs
from core.overview import readiness
from core.routes import agents, events, models, operators, resumable, status, tasks
from core.serving import App, json_response

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
WITHOUT_STORE = frozenset({"/metrics", "/api/overview"})


def make_app(dispatch: Dispatch, live: Live, token: CoreToken) -> App:
    app = App("core")
    add_docs(app, "InferenceServer's core", At.CORE)
    for part in (tasks, status, resumable, models, agents, operators):
        part.add_routes(app, dispatch)
    events.add_routes(app, dispatch, live)
    app.when_draining.append(live.news.close)

    def guard(call: Call) -> None:
        if call.path in OPEN_PATHS or call.path.startswith("/docs"):
            return
        authorization = Authorization.from_header(call.header("authorization"))
        offered = (authorization.token or authorization.password) if authorization else None
        if not token.opens(offered or ""):
            raise Unauthorized
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
        known = readiness(dispatch)
        return json_response(known.model_dump_json(exclude_defaults=True), 200 if known.ready else 503)

    @app.get("/metrics")
    async def exposition() -> Response:
        with suppress(Unavailable):
            dispatch.store.pulse.check()
            metrics.note_agents(await dispatch.store.agents.all())
        return Response(metrics.exposition(), content_type=metrics.CONTENT_TYPE)

    return app
