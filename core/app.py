"""Core as an app: the routes, the token that guards them, the documents."""

from contextlib import suppress

from quart import Response
from werkzeug.datastructures import Authorization

from core import metrics
from core.calls import Call
from core.client import CoreToken
from core.contract.errors import Unauthorized, Unavailable
from core.contract.http import Readiness
from core.dispatch import Dispatch
from core.openapi.operation import At
from core.openapi.page import add_docs
from core.routes import agents, models, tasks
from core.serving import App, json_response

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})
WITHOUT_STORE = frozenset({"/metrics"})


def make_app(dispatch: Dispatch, token: CoreToken) -> App:
    app = App("core")
    add_docs(app, "InferenceServer's core", At.CORE)
    for part in (tasks, models, agents):
        part.add_routes(app, dispatch)

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
        """From what is known of Redis and RabbitMQ: it asks nobody. While RabbitMQ is away tasks are taken, and rung
        later: to take core out of service then would turn a delay into a failure.
        """
        missing = {"redis": words} if (words := dispatch.store.pulse.missing) else {}
        degraded = (
            {"rabbitmq": f"{words}: tasks are taken, and start when it is back"}
            if (words := dispatch.broker.missing)
            else {}
        )
        readiness = Readiness(ready=not missing, missing=missing, degraded=degraded)
        return json_response(readiness.model_dump_json(exclude_defaults=True), 200 if readiness.ready else 503)

    @app.get("/metrics")
    async def exposition() -> Response:
        with suppress(Unavailable):
            dispatch.store.pulse.check()
            metrics.note_agents(await dispatch.store.agents.all())
        return Response(metrics.exposition(), content_type=metrics.CONTENT_TYPE)

    return app
