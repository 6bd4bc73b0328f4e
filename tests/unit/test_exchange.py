"""A request on its way through a server."""

import asyncio
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from core.exchange import Exchange
from core.traffic import Traffic

MORE = {"type": "http.request", "body": b"more", "more_body": True}
LEFT = {"type": "http.disconnect"}


@pytest.mark.parametrize(
    ("version", "headers"),
    [("1.1", [(b"content-length", b"1000")]), ("1.1", [(b"transfer-encoding", b"chunked")]), ("2", [])],
)
async def test_a_body_that_nobody_asked_for_is_drained(version: str, headers: list[tuple[bytes, bytes]]) -> None:
    """Hypercorn sees that the client has gone only when all before it was read, and goes on as long as nothing is."""
    coming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    for message in (MORE, MORE):
        coming.put_nowait(message)

    async def send(message: Any) -> None:
        pass

    scope = {"method": "GET", "path": "/", "query_string": b"", "http_version": version, "headers": headers}
    exchange = Exchange(cast(Any, scope), cast(Any, coming.get), send, Traffic(CollectorRegistry()), lambda _: ())
    await exchange.send({"type": "http.response.start", "status": 200, "headers": []})
    await exchange.send({"type": "http.response.body", "body": b"answer", "more_body": False})
    exchange.end()
    coming.put_nowait(LEFT)
    async with asyncio.timeout(5):
        while not coming.empty():
            await asyncio.sleep(0)
