"""Quart made to hold back, and the errors of the contract as answers."""

import asyncio
import json

import pytest
from quart import Response

from core.contract.errors import TaskFailed, Unavailable
from core.serving import HELD_BYTES, App, BoundedBody


@pytest.fixture
def app() -> App:
    app = App("test")

    @app.get("/api/tasks/")
    async def page() -> Response:
        return Response("page")

    @app.get("/api/tasks/<uid>")
    async def task(uid: str) -> Response:
        if uid == "failed":
            raise TaskFailed.because(reason="timeout", message="too long", exit_code=None)
        if uid == "away":
            raise Unavailable
        if uid == "bug":
            raise KeyError("an internal text")
        return Response(uid)

    return app


async def test_a_body_holds_back_what_is_not_read() -> None:
    """The socket isn't read while HELD_BYTES wait, however slow the handler is; nothing is lost or reordered."""
    body = BoundedBody(None, None)
    await body.put(bytes(HELD_BYTES // 2))
    waiting = asyncio.create_task(body.put(bytes(HELD_BYTES // 2)))
    await asyncio.sleep(0)
    assert not waiting.done()
    assert len(await anext(body)) == HELD_BYTES // 2
    await waiting
    body.end()
    assert len(await body) == HELD_BYTES // 2


async def test_pieces_count_as_well_as_bytes() -> None:
    """A client that sends a byte at a time fills no memory with the objects around them."""
    body, sent = BoundedBody(None, None), 0

    async def send() -> None:
        nonlocal sent
        while True:
            await body.put(b"x")
            sent += 1

    sending = asyncio.create_task(send())
    await asyncio.sleep(0.05)
    sending.cancel()
    assert sent < 10_000


async def test_a_body_that_is_whole_ends() -> None:
    """Also an empty one, and also when asked twice."""
    body = BoundedBody(None, None)
    body.end()
    assert await body == b""
    assert await body == b""


@pytest.mark.parametrize(
    ("asked", "location"),
    [
        ("/api/tasks", "/api/tasks/"),
        ("/api/tasks?a=b%20c", "/api/tasks/?a=b%20c"),
        ("/api/tasks/x/?q=1", "/api/tasks/x?q=1"),
    ],
)
async def test_the_canonical_path_is_told(app: App, asked: str, location: str) -> None:
    """As version 1 did: 307, and the query stays."""
    answer = await app.test_client().get(asked)
    assert (answer.status_code, answer.headers["Location"]) == (307, location)


async def test_errors_are_json(app: App) -> None:
    """Each with its status; a bug says nothing of itself."""
    client = app.test_client()
    failed = await client.get("/api/tasks/failed")
    assert failed.status_code == 552
    assert json.loads(await failed.get_data())["detail"]["reason"] == "timeout"
    away = await client.get("/api/tasks/away")
    assert away.status_code == 503
    assert int(away.headers["Retry-After"]) > 0
    bug = await client.get("/api/tasks/bug")
    assert (bug.status_code, await bug.get_data()) == (500, b'{"detail":"Internal Server Error"}')
    missing = await client.get("/nothing")
    assert (missing.status_code, await missing.get_data()) == (404, b'{"detail":"Not Found"}')
    method = await client.put("/api/tasks/")
    assert method.status_code == 405
    assert "GET" in method.headers["Allow"]
