"""How many connections one address, and all together, may have, and how long they may wait for a request."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial

import hypercorn.asyncio.run
import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config
from prometheus_client import CollectorRegistry

from core.calls import Call
from core.connections import Connection, Connections, whose
from core.serving import App

ASKED = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"


def test_one_address_has_its_share_and_no_more() -> None:
    """Others go on; and so does it, when it has closed some."""
    connections = Connections(CollectorRegistry())
    connections.most, connections.most_of_one = 3, 2
    with ExitStack() as stack:
        assert stack.enter_context(connections.one("192.0.2.1"))
        with connections.one("192.0.2.1") as may_stay:
            assert may_stay
            assert not stack.enter_context(connections.one("192.0.2.1"))
            assert stack.enter_context(connections.one("192.0.2.2"))
            assert not stack.enter_context(connections.one("192.0.2.3"))
        assert stack.enter_context(connections.one("192.0.2.1"))


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_whose_an_address_is(address: str, counted: str) -> None:
    """A customer's network of IPv6 is one client."""
    assert whose(address) == counted


@asynccontextmanager
async def _served(app: App, monkeypatch: pytest.MonkeyPatch, *, keep_alive_seconds: float) -> AsyncIterator[int]:
    """Yields the port."""
    monkeypatch.setattr(hypercorn.asyncio.run, "TCPServer", partial(Connection, app.connections))
    listener = socket.create_server(("127.0.0.1", 0))
    number = listener.getsockname()[1]
    config, stop = Config(), asyncio.Event()
    config.keep_alive_timeout = keep_alive_seconds
    config.bind = [f"fd://{listener.detach()}"]
    serving = asyncio.create_task(serve(app, config, shutdown_trigger=stop.wait))
    yield number
    stop.set()
    await serving


@asynccontextmanager
async def _client(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield reader, writer
    writer.close()
    await writer.wait_closed()


def _slow(seconds: float) -> App:
    app = App("test")

    @app.direct("GET", "/")
    async def answer(call: Call) -> None:
        await asyncio.sleep(seconds)
        await call.answer(200, b"{}")

    return app


async def test_who_asks_for_nothing_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its first request, and after its last one; an answer may take longer than that."""
    async with _served(_slow(0.6), monkeypatch, keep_alive_seconds=0.2) as port, asyncio.timeout(10):
        async with _client(port) as (reader, _):
            assert await reader.read() == b""
        async with _client(port) as (reader, writer):
            for _ in range(2):
                writer.write(ASKED)
                assert (await reader.readuntil(b"{}")).startswith(b"HTTP/1.1 200")
            assert await reader.read() == b""


async def test_a_server_that_stops_parts_with_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """And with whoever would wait; what was asked is answered."""
    app = _slow(0.3)
    async with (
        _served(app, monkeypatch, keep_alive_seconds=60) as port,
        asyncio.timeout(10),
        _client(port) as (waiting, _),
        _client(port) as (asking, writer),
    ):
        writer.write(ASKED)
        while not (app.in_flight and app.connections.pauses):
            await asyncio.sleep(0.01)
        app.connections.part()
        assert await waiting.read() == b""
        assert (await asking.read()).endswith(b"{}")
    assert not app.connections.pauses
