"""Core as an app: the routes, the token that guards them, the documents."""

from quart import Response, request

from core.client import CoreToken
from core.contract.errors import Unauthorized
from core.dispatch import Dispatch
from core.openapi import PRIVATE, add_docs
from core.routes import agents, models, tasks
from core.serving import App, json_response

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/openapi.json"})


def make_app(dispatch: Dispatch, token: CoreToken) -> App:
    app = App("core")
    add_docs(app, "InferenceServer's core", PRIVATE)
    for part in (tasks, models, agents):
        app.register_blueprint(part.blueprint(dispatch))

    @app.before_request
    async def guard() -> None:
        if request.path in OPEN_PATHS or request.path.startswith("/docs"):
            return
        authorization = request.authorization
        offered = (authorization.token or authorization.password) if authorization else None
        if not token.opens(offered or ""):
            raise Unauthorized

    @app.get("/")
    async def hello() -> Response:
        return json_response('{"message":"Hello world - this is the core of InferenceServer"}')

    @app.get("/healthz")
    async def healthz() -> Response:
        return json_response('{"status":"alive"}')

    @app.get("/readyz")
    async def readyz() -> Response:
        """200 when core can take tasks: Redis answers. While RabbitMQ is away tasks are taken and rung later."""
        await dispatch.store.ping()
        broker = "connected" if dispatch.broker.is_connected else "away"
        return json_response(f'{{"status":"ready","rabbitmq":"{broker}"}}')

    return app
