"""HTTP/1.1 with fewer copies: what h11 doesn't see arrives all the same."""

import asyncio
import hashlib
import random
import socket
from collections.abc import AsyncIterator

import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config

from core import http1
from core.calls import Call
from core.serving import App

LARGE = random.Random(5).randbytes(3_000_000)
SMALL = b"small"


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Of a server that answers a body with its digest."""
    http1.install()
    app = App("test")

    @app.direct("POST", "/")
    async def digest(call: Call) -> None:
        found = hashlib.sha256()
        async for piece in call.pieces():
            found.update(piece)
        await call.answer(200, found.hexdigest().encode())

    listener = socket.create_server(("127.0.0.1", 0))
    number = listener.getsockname()[1]
    config, stop = Config(), asyncio.Event()
    config.bind = [f"fd://{listener.detach()}"]
    serving = asyncio.create_task(serve(app, config, shutdown_trigger=stop.wait))
    yield number
    stop.set()
    await serving


def _announced(body: bytes) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def _chunked(body: bytes) -> bytes:
    head = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"


@pytest.mark.parametrize("cut", [100, 65_536, 1_000_000, 10_000_000])
async def test_bodies_arrive_wherever_they_are_cut(port: int, cut: int) -> None:
    """One request after the other on one connection, each sent before the one before is answered."""
    sent = [(_announced, SMALL), (_announced, LARGE), (_chunked, LARGE), (_announced, LARGE), (_announced, SMALL)]
    stream = b"".join(form(body) for form, body in sent)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        for at in range(0, len(stream), cut):
            writer.write(stream[at : at + cut])
            await writer.drain()

    sending = asyncio.create_task(send())
    for _, body in sent:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(64) == hashlib.sha256(body).hexdigest().encode()
    await sending
    writer.close()


async def test_a_body_that_goes_on_is_another_request(port: int) -> None:
    """And refused as one, if it isn't."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(_announced(LARGE))
    writer.write(b"x" * 100_000)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
    await reader.readexactly(64)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 4")
    assert await reader.read() == b""
    writer.close()
