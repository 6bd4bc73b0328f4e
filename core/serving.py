"""How gateway and core serve: Quart for pages and small JSON, `Call` for the rest, and Hypercorn as one process that
drains: on shutdown it cuts or forgets, which is mended here, once.
"""

import asyncio
import os
import resource
import signal
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, cast
from urllib.parse import quote

import structlog
import uvloop
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope, Scope
from prometheus_client import CollectorRegistry
from quart import Quart, Response
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.routing import RequestRedirect, Rule

from core import connections, http1, http2
from core.bells import Bells
from core.calls import JSON, TAKEN_SECONDS, Call, Gone, headers_of
from core.certificate import Certificate
from core.connections import Connections
from core.contract.errors import ContractError
from core.contract.http import STATUS, ErrorBody
from core.exchange import Exchange, Headers
from core.observe import REQUEST
from core.traffic import Traffic

log = structlog.get_logger()

Handler = Callable[..., Awaitable[None]]

MAX_BODY_BYTES: Final = 2**20
"""Of what Quart takes: it holds all of it."""

DRAIN_SECONDS: Final = 25.0
"""How long requests in flight have to end after SIGTERM."""

HANDSHAKE_SECONDS: Final = 10.0
"""How long a client has for TLS, which Hypercorn gives a minute."""

LAST_SECONDS: Final = 3.0
"""How long Hypercorn has to close idle connections, then the process ends without it."""

CLOSING: Final = ((b"connection", b"close"),)

BROKEN: Final = ErrorBody(detail="Internal Server Error").model_dump_json().encode()


class ServingLoop(uvloop.Loop):
    """Knows its listeners: Hypercorn keeps them to itself, and would take new work until the old has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.listeners: list[asyncio.AbstractServer] = []

    async def create_server(self, *args: Any, **kwargs: Any) -> asyncio.Server:
        server = cast(asyncio.Server, await super().create_server(*args, **kwargs))
        self.listeners.append(server)
        return server


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs a service's main on a loop that `serve` can drain, with as many open files as it may have: a listener takes
    two of the gateway's, and by itself a process has 1024.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with asyncio.Runner(loop_factory=ServingLoop) as runner:
        runner.run(main)


class App(Quart):
    """A Quart app with the errors of the contract. Its `direct` routes are answered without Quart's objects."""

    def __init__(self, name: str) -> None:
        super().__init__(name, static_folder=None)
        self.in_flight = 0
        self.is_quiet = asyncio.Event()
        self.is_draining = False
        self.figures = CollectorRegistry()
        """For Prometheus."""
        self.traffic = Traffic(self.figures)
        self.connections = Connections(self.figures)
        self.bells = Bells()
        """Rung when a task ends. Whoever makes the app lets them listen."""
        self.when_draining: list[Callable[[], None]] = [self.bells.close]
        """Called when no new requests are taken: those that could go on for ever end now."""
        self.guard: Callable[[Call], Awaitable[None]] | None = None
        """Raises a ContractError for a call that may not be answered."""
        self.standing: Callable[[HTTPScope], Headers] = lambda _: ()
        """The headers of all answers to a request."""
        self.certificate: Certificate | None = None
        """That it is served with."""
        self.answering: Callable[[Call, int], None] | None = None
        """Told of each call when its answer begins, and of the status."""
        self._direct: dict[str, Handler] = {}
        self.telling_problems: set[str] = set()
        self._routes = self.url_map.bind("localhost")
        self._without_parts: dict[tuple[str, str], Rule] = {}
        self.config.update(MAX_CONTENT_LENGTH=MAX_BODY_BYTES, RESPONSE_TIMEOUT=None)
        self.register_error_handler(ContractError, _refused)
        self.register_error_handler(HTTPException, _not_taken)
        self.register_error_handler(Exception, _broken)

    def direct(self, method: str, rule: str, *, problems: bool = False) -> Callable[[Handler], Handler]:
        """Registers a handler that is given the `Call`, and the rule's parts by name. `problems`: it is a call that
        version 1 didn't have, and what it refuses it tells in problem details with standard status codes.
        """

        def register(handler: Handler) -> Handler:
            endpoint = f"{method} {rule}"
            self.add_url_rule(rule, endpoint, methods=[method], provide_automatic_options=False)
            self._direct[endpoint] = handler
            if problems:
                self.telling_problems.add(endpoint)
            return handler

        return register

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Counts what is in flight, and tells clients of a draining server to come back on a new connection."""
        if scope["type"] != "http":
            return await super().__call__(scope, receive, send)
        self.in_flight += 1
        self.is_quiet.clear()
        exchange = Exchange(scope, receive, send, self.traffic, self._standing)
        REQUEST.set(exchange.id)  # of this task, in which nothing else is answered
        try:
            await self._answer(scope, exchange)
        finally:
            exchange.end()
            self.in_flight -= 1
            if not self.in_flight:
                self.is_quiet.set()

    async def _answer(self, scope: HTTPScope, exchange: Exchange) -> None:
        call = Call(scope, exchange.receive, exchange.send)
        if self.answering:
            exchange.answering = partial(self.answering, call)
        with suppress(Gone):
            await self._answer_somebody(call, scope, exchange)

    async def _answer_somebody(self, call: Call, scope: HTTPScope, exchange: Exchange) -> None:
        try:
            endpoint, parts = await self._admitted(call, exchange)
            if handler := self._direct.get(endpoint):
                await handler(call, **parts)
            else:
                await super().__call__(scope, exchange.receive, _patient(exchange.send))
        except (NotFound, RequestRedirect):
            location = self._canonical(call)
            await (call.answer(307, headers=[("Location", location)]) if location else _refuse(call, NotFound()))
        except HTTPException as error:
            await _refuse(call, error)
        except ContractError as error:
            if call.is_answered:
                log.info("answer.cut", error=str(error))  # the client sees that bytes are missing
            else:
                await call.refuse(error)
        except Gone:
            raise
        except Exception as error:
            log.error("request.failed", exc_info=error)
            if not call.is_answered:
                await call.answer(500, BROKEN)

    async def _admitted(self, call: Call, exchange: Exchange) -> tuple[str, Mapping[str, Any]]:
        """The route. Who isn't let in is told so, whatever is asked for, and in the words that belong there."""
        try:
            rule, parts = self._match(call)
            exchange.route = call.rule = rule.rule
            call.parts, endpoint = parts, rule.endpoint
            call.tells_problems = endpoint in self.telling_problems
        finally:
            if self.guard:
                await self.guard(call)
        return endpoint, parts

    def _match(self, call: Call) -> tuple[Rule, Mapping[str, Any]]:
        """As werkzeug says; of a path without parts it is remembered."""
        known = self._without_parts.get((call.method, call.path))
        if known:
            return known, {}
        rule, parts = self._routes.match(call.path, call.method, return_rule=True)
        if not parts:
            self._without_parts[call.method, call.path] = rule
        return rule, parts

    def _canonical(self, call: Call) -> str | None:
        """The path with or without its last slash, whichever is a route, and the query as it was."""
        path = call.path.removesuffix("/") if call.path.endswith("/") else f"{call.path}/"
        if not self._routes.allowed_methods(path):
            return None
        return quote(path) + (f"?{call.query_string}" if call.query_string else "")

    def _standing(self, scope: HTTPScope) -> Headers:
        """What each answer has beside its own headers."""
        is_last = self.is_draining and scope["http_version"].startswith("1")
        return (*self.standing(scope), *CLOSING) if is_last else self.standing(scope)


def _patient(send: ASGISendCallable) -> ASGISendCallable:
    """Ends with the connection when a piece isn't taken in time; a `Call` sees to that itself."""

    async def patient(message: Any) -> None:
        async with asyncio.timeout(TAKEN_SECONDS):
            await send(message)

    return patient


async def _refuse(call: Call, error: HTTPException) -> None:
    allowed = [(name, value) for name, value in error.get_headers() if name == "Allow"]
    body = ErrorBody(detail=error.name).model_dump_json().encode()
    await call.answer(error.code or 500, body, [*JSON, *allowed])


async def _refused(error: ContractError) -> Response:
    return json_response(ErrorBody(detail=error.detail).model_dump_json(), STATUS[type(error)], headers_of(error))


async def _not_taken(error: HTTPException) -> Response:
    return json_response(ErrorBody(detail=error.name).model_dump_json(), error.code or 500)


async def _broken(error: Exception) -> Response:
    log.error("request.failed", exc_info=error)
    return json_response(BROKEN.decode(), 500)


def json_response(body: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(body, status, dict(headers or {}), content_type="application/json")


class _Config(Config):
    """Hypercorn makes a context of files, once."""

    certificate: Certificate | None = None
    _dated: tuple[int, list[tuple[bytes, bytes]]] = (0, [])

    def response_headers(self, protocol: str) -> list[tuple[bytes, bytes]]:
        """The date, once a second."""
        second = int(time.time())
        if second != self._dated[0]:
            self._dated = (second, super().response_headers(protocol))
        return self._dated[1]

    @property
    def ssl_enabled(self) -> bool:
        return self.certificate is not None

    def create_ssl_context(self) -> ssl.SSLContext | None:
        return self.certificate.context if self.certificate else None


async def serve(
    app: App, *, host: str, port: int, keep_alive_seconds: float, certificate: Certificate | None = None
) -> None:
    """Until SIGTERM or SIGINT; then drains. With a certificate it speaks TLS, and nothing else.

    `keep_alive_seconds` is also how long the headers of a request may take.
    """
    http1.install()
    http2.install()
    connections.install(app.connections)
    config = _Config()
    config.certificate = app.certificate = certificate
    config.bind = [f"fd://{_listen(host, port).detach()}"]
    config.accesslog = None
    config.errorlog = "-"
    config.loglevel = "WARNING"
    config.graceful_timeout = 1
    config.keep_alive_timeout = keep_alive_seconds
    config.keep_alive_max_requests = 1_000_000
    config.include_server_header = False
    config.max_app_queue_size = 4
    config.ssl_handshake_timeout = HANDSHAKE_SECONDS
    asyncio.get_running_loop().set_exception_handler(_note)
    log.info("server.started", host=host, port=port, tls=certificate is not None)
    try:
        async with asyncio.TaskGroup() as group:
            watching = [group.create_task(app.traffic.watch(lambda: app.in_flight), name="traffic")]
            if certificate:
                watching.append(group.create_task(certificate.watch(app.figures), name="certificate"))
            await hypercorn_serve(app, config, shutdown_trigger=_drained(app))
            for task in watching:
                task.cancel()
    finally:
        log.info("server.stopped")
        end_soon(1)


def end_soon(status: int) -> None:
    """Ends the process if it hasn't ended by itself: Hypercorn waits for every idle connection to go."""
    asyncio.get_running_loop().call_later(LAST_SECONDS, os._exit, status)


def _note(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What nobody awaited. A client that goes away without a good-bye isn't worth a traceback."""
    error = context.get("exception")
    if isinstance(error, OSError):
        log.info("connection.broken", error=repr(error))
    else:
        log.error("loop.failed", message=context["message"], exc_info=error)


def _drained(app: App) -> Callable[[], Awaitable[None]]:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async def drained() -> None:
        await stop.wait()
        app.is_draining = True
        for end in app.when_draining:
            end()
        log.info("server.draining", in_flight=app.in_flight)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ServingLoop)  # noqa: S101 - `run` made it
        for listener in loop.listeners:
            listener.close()
        if app.in_flight:
            with suppress(TimeoutError):
                await asyncio.wait_for(app.is_quiet.wait(), DRAIN_SECONDS)
        app.connections.part()
        end_soon(0)

    return drained


def _listen(host: str, port: int) -> socket.socket:
    """SO_REUSEPORT, so that several processes can share the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    # Of its connections: what was written to one that is closed waits for its client no longer.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(TAKEN_SECONDS * 1000))
    if family is socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind((host, port))
    listener.setblocking(False)
    return listener
