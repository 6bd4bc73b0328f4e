"""How gateway and core serve: Quart made to hold back, Hypercorn as one process that drains.

Quart buffers request bodies without a bound and Hypercorn cuts or forgets on shutdown; both are mended here, once.
"""

import asyncio
import os
import signal
import socket
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, Final, NoReturn, cast
from urllib.parse import quote

import hypercorn.asyncio.tcp_server
import structlog
import uvloop
from hypercorn.asyncio import serve as hypercorn_serve
from hypercorn.config import Config
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, Scope
from quart import Quart, Request, Response, current_app, request
from quart.asgi import ASGIHTTPConnection
from quart.wrappers.base import BaseRequestWebsocket
from quart.wrappers.request import Body
from werkzeug.exceptions import HTTPException, NotFound
from werkzeug.routing import RequestRedirect

from core.contract.errors import ContractError, InvalidRequest, Unauthorized
from core.contract.http import RETRY_AFTER_SECONDS, STATUS, ErrorBody

log = structlog.get_logger()

RECEIVED_AT_ONCE_BYTES: Final = 2**18
HELD_BYTES: Final = 2**20
"""How much of a request body waits in memory; past it the socket isn't read."""

PIECE_BYTES: Final = 256
"""What a piece costs beside its bytes: a client may send them one by one."""

STALL_SECONDS: Final = 60.0
"""A client that sends nothing for so long in the middle of a body is cut off."""

TAKEN_SECONDS: Final = 300.0
"""A client that doesn't take a piece of up to a megabyte in this time is cut off: under 4 KB/s it isn't reading."""

DRAIN_SECONDS: Final = 25.0
"""How long requests in flight have to end after SIGTERM."""

LAST_SECONDS: Final = 3.0
"""How long Hypercorn has to close idle connections, then the process ends without it."""

LINGER_BYTES: Final = 64 * 2**20
LINGER_SECONDS: Final = 10.0
"""How much of a refused body is read to its end, because many clients read no answer before they have sent all."""

# Hypercorn reads 64 KiB at a time; four times that takes a third off the cost of a byte.
hypercorn.asyncio.tcp_server.MAX_RECV = RECEIVED_AT_ONCE_BYTES


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
    """Runs a service's main on a loop that `serve` can drain."""
    with asyncio.Runner(loop_factory=ServingLoop) as runner:
        runner.run(main)


class BoundedBody(Body):
    """A request body of which at most HELD_BYTES and a piece wait in memory. Iterate it once, or await it if small."""

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:  # noqa: ARG002
        self._pieces: deque[bytes] = deque()
        self._held = 0
        self.is_whole = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def put(self, piece: bytes) -> None:
        """Waits for room."""
        self._pieces.append(piece)
        self._held += len(piece) + PIECE_BYTES
        self._changed.set()
        if self._held >= HELD_BYTES:
            self._room.clear()
            await self._room.wait()

    def end(self) -> None:
        self.is_whole = True
        self._changed.set()

    async def __anext__(self) -> bytes:
        """Raises InvalidRequest when the client stalls."""
        while not self._pieces:
            if self.is_whole:
                raise StopAsyncIteration
            self._changed.clear()
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                raise InvalidRequest(f"The body stalled for {STALL_SECONDS:.0f} seconds") from None
        piece = self._pieces.popleft()
        self._held -= len(piece) + PIECE_BYTES
        if self._held < HELD_BYTES:
            self._room.set()
        return piece

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._read_all().__await__()

    async def _read_all(self) -> bytes:
        return b"".join([piece async for piece in self])

    async def linger(self) -> None:
        """Reads what a refused request still sends, within bounds, so that its client gets to read the answer."""
        left = LINGER_BYTES
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                async for piece in self:
                    left -= len(piece)
                    if left < 0:
                        return
        except (TimeoutError, ContractError):
            return


class BoundedRequest(Request):
    body_class = BoundedBody


class HoldingConnection(ASGIHTTPConnection):
    """Passes pieces on only as fast as the handler takes them, and ends an answer when the request has ended."""

    async def handle_request(self, request: Request, send: ASGISendCallable) -> None:
        body = cast(BoundedBody, request.body)

        async def send_and_linger(message: Any) -> None:
            """The client has the whole answer by the time its last, empty piece is held back."""
            if message["type"] == "http.response.body" and not message.get("more_body") and not body.is_whole:
                await body.linger()
            await send(message)

        await super().handle_request(request, send_and_linger)

    async def handle_messages(self, request: Request, receive: ASGIReceiveCallable) -> None:
        body = cast(BoundedBody, request.body)
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            if message["type"] == "http.request":
                if piece := message.get("body", b""):
                    await body.put(piece)
                if not message.get("more_body", False):
                    body.end()


class App(Quart):
    """A Quart app with bounded bodies and the errors of the contract."""

    request_class = BoundedRequest
    asgi_http_class = HoldingConnection

    def __init__(self, name: str) -> None:
        super().__init__(name, static_folder=None)
        self.in_flight = 0
        self.is_quiet = asyncio.Event()
        self.is_draining = False
        self.config.update(MAX_CONTENT_LENGTH=None, RESPONSE_TIMEOUT=None, BODY_TIMEOUT=None)
        self.register_error_handler(ContractError, _refused)
        self.register_error_handler(HTTPException, _no_such_route)
        self.register_error_handler(Exception, _broken)

    def raise_routing_exception(self, request: BaseRequestWebsocket) -> NoReturn:
        """Werkzeug's redirect to the canonical path is a 308, which Quart would answer by itself."""
        if isinstance(request.routing_exception, RequestRedirect):
            raise NotFound
        super().raise_routing_exception(request)

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """Counts what is in flight, and tells clients of a draining server to come back on a new connection."""
        if scope["type"] != "http":
            return await super().__call__(scope, receive, send)
        self.in_flight += 1
        self.is_quiet.clear()
        try:
            await super().__call__(scope, receive, self._guarded(send, scope["http_version"]))
        finally:
            self.in_flight -= 1
            if not self.in_flight:
                self.is_quiet.set()

    def _guarded(self, send: ASGISendCallable, http_version: str) -> ASGISendCallable:
        """Ends with the connection when a piece isn't taken in time."""

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start" and self.is_draining and http_version.startswith("1"):
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            async with asyncio.timeout(TAKEN_SECONDS):
                await send(message)

        return guarded


async def _refused(error: ContractError) -> Response:
    response = json_response(ErrorBody(detail=error.detail).model_dump_json(), STATUS[type(error)])
    if seconds := RETRY_AFTER_SECONDS.get(type(error)):
        response.headers["Retry-After"] = str(seconds)
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


async def _no_such_route(error: HTTPException) -> Response:
    if isinstance(error, NotFound) and (location := _canonical()):
        return Response("", 307, {"Location": location})
    response = json_response(ErrorBody(detail=error.name).model_dump_json(), error.code or 500)
    for name, value in error.get_headers():
        if name == "Allow":
            response.headers[name] = value
    return response


def _canonical() -> str | None:
    """The path with or without its last slash, whichever is a route, and the query as it was."""
    path = request.path.removesuffix("/") if request.path.endswith("/") else f"{request.path}/"
    adapter = current_app.create_url_adapter(request)
    if adapter is None or not adapter.allowed_methods(path):
        return None
    query = request.query_string.decode("latin-1")
    return quote(path) + (f"?{query}" if query else "")


async def _broken(error: Exception) -> Response:
    log.error("request.failed", exc_info=error)
    return json_response(ErrorBody(detail="Internal Server Error").model_dump_json(), 500)


def json_response(body: str, status: int = 200) -> Response:
    return Response(body, status, content_type="application/json")


async def serve(
    app: App, *, host: str, port: int, keep_alive_seconds: float, tls: tuple[str, str] | None = None
) -> None:
    """Until SIGTERM or SIGINT; then drains.

    `tls`: the files of the certificate chain and of the key. `keep_alive_seconds` is also how long the headers of a
    request may take.
    """
    config = Config()
    config.bind = [f"fd://{_listen(host, port).detach()}"]
    config.accesslog = None
    config.errorlog = "-"
    config.loglevel = "WARNING"
    config.graceful_timeout = 1
    config.keep_alive_timeout = keep_alive_seconds
    config.keep_alive_max_requests = 1_000_000
    config.include_server_header = False
    config.max_app_queue_size = 4
    if tls:
        config.certfile, config.keyfile = tls
        # Uploads over HTTP/2 cost several times as much: clients that offer both get 1.1.
        config.alpn_protocols = ["http/1.1", "h2"]
    asyncio.get_running_loop().set_exception_handler(_note)
    log.info("server.started", host=host, port=port, tls=bool(tls))
    try:
        await hypercorn_serve(app, config, shutdown_trigger=_drained(app))
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
        log.info("server.draining", in_flight=app.in_flight)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, ServingLoop)  # noqa: S101 - `run` made it
        for listener in loop.listeners:
            listener.close()
        if app.in_flight:
            with suppress(TimeoutError):
                await asyncio.wait_for(app.is_quiet.wait(), DRAIN_SECONDS)
        end_soon(0)

    return drained


def _listen(host: str, port: int) -> socket.socket:
    """SO_REUSEPORT, so that several processes can share the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family is socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    listener.bind((host, port))
    listener.setblocking(False)
    return listener
