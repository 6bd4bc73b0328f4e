"""Plain HTTP, for who typed no https: told where to come, and nothing else. No body is waited for."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from http import HTTPStatus
from typing import Final

import h11

from core.connections import Connections
from core.contract.http import ErrorBody
from gateway.settings import Settings

HEAD_BYTES: Final = 2**13
HEAD_SECONDS: Final = 5.0
"""For a request's head, all of it."""

HTTPS_PORT: Final = 443
INSECURE: Final = ErrorBody(detail="Come by https").model_dump_json().encode()
_HOST: Final = re.compile(rb"([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
_TARGET: Final = re.compile(rb"/[!-~]*")


@asynccontextmanager
async def to_https(settings: Settings, connections: Connections) -> AsyncIterator[None]:
    """Where HTTP_REDIRECT_PORT is set. All processes of a gateway share it. They are counted with the `connections`."""
    if settings.http_redirect_port is None:
        yield
        return
    answer = partial(_serve, connections, https_port=settings.https_port)
    try:
        server = await asyncio.start_server(
            answer, settings.gateway_host, settings.http_redirect_port, limit=HEAD_BYTES, reuse_port=True
        )
    except OSError as error:
        raise SystemExit(f"HTTP_REDIRECT_PORT must be a port that is free here: {error}") from error
    try:
        yield
    finally:
        server.close()


async def _serve(
    connections: Connections, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, https_port: int
) -> None:
    peer = writer.get_extra_info("peername")
    with connections.one(peer[0] if peer else "::") as may_stay:
        if may_stay:
            await _answer(reader, writer, https_port=https_port)
        else:
            writer.transport.abort()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, https_port: int) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES)
    try:
        # One who goes away, or isn't done in time, gets no answer.
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(HEAD_SECONDS):
                writer.write(_response(*_judge(await _head(connection, reader), https_port)))
                await writer.drain()
    finally:
        writer.close()


async def _head(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """None: it is none, or too long. Raises ConnectionError if the client goes."""
    try:
        while (event := connection.next_event()) is h11.NEED_DATA:
            connection.receive_data(await reader.read(HEAD_BYTES))
    except h11.RemoteProtocolError:
        return None
    if isinstance(event, h11.Request):
        return event
    raise ConnectionResetError


def _judge(request: h11.Request | None, https_port: int) -> tuple[HTTPStatus, str | None]:
    """The status, and where to go."""
    if request is None or not (location := _location(request, https_port)):
        return HTTPStatus.BAD_REQUEST, None
    has_body = any(
        name == b"transfer-encoding" or (name == b"content-length" and int(value)) for name, value in request.headers
    )
    if request.method not in (b"GET", b"HEAD") or has_body:
        return HTTPStatus.FORBIDDEN, None
    return HTTPStatus.PERMANENT_REDIRECT, location


def _location(request: h11.Request, https_port: int) -> str | None:
    """The same at the https port; None unless it is a path of a host."""
    host = _HOST.fullmatch(next((value for name, value in request.headers if name == b"host"), b""))
    if not host or not _TARGET.fullmatch(request.target):
        return None
    port = "" if https_port == HTTPS_PORT else f":{https_port}"
    return f"https://{host[1].decode()}{port}{request.target.decode()}"


def _response(status: HTTPStatus, location: str | None) -> bytes:
    body = INSECURE if status == HTTPStatus.FORBIDDEN else b""
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"Location: {location}"] if location else []
    lines += ["Content-Type: application/json"] if body else []
    return "\r\n".join([*lines, "", ""]).encode() + body
