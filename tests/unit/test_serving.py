"""The errors of the contract as answers, whether Quart or a handler of its own makes them."""

import json

import pytest
from quart import Response

from core.calls import Call
from core.contract.errors import TaskFailed, Unavailable
from core.serving import App


@pytest.fixture
def app() -> App:
    app = App("test")

    @app.get("/api/tasks/")
    async def page() -> Response:
        return Response("page")

    @app.get("/api/tasks/<uid>")
    async def task(uid: str) -> Response:
        return Response(_refused(uid))

    @app.direct("GET", "/direct/<uid>")
    async def direct(call: Call, uid: str) -> None:
        await call.answer(200, _refused(uid).encode())

    return app


def _refused(uid: str) -> str:
    if uid == "failed":
        raise TaskFailed.because(reason="timeout", message="too long", exit_code=None)
    if uid == "away":
        raise Unavailable
    if uid == "bug":
        raise KeyError("an internal text")
    return uid


@pytest.mark.parametrize(
    ("asked", "location"),
    [
        ("/api/tasks", "/api/tasks/"),
        ("/api/tasks?a=b%20c", "/api/tasks/?a=b%20c"),
        ("/api/tasks/x/?q=1", "/api/tasks/x?q=1"),
        ("/direct/x/?q=1", "/direct/x?q=1"),
    ],
)
async def test_the_canonical_path_is_told(app: App, asked: str, location: str) -> None:
    """As version 1 did: 307, and the query stays."""
    answer = await app.test_client().get(asked)
    assert (answer.status_code, answer.headers["Location"]) == (307, location)


@pytest.mark.parametrize("path", ["/api/tasks", "/direct"])
async def test_errors_are_json(app: App, path: str) -> None:
    """Each with its status; a bug says nothing of itself."""
    client = app.test_client()
    failed = await client.get(f"{path}/failed")
    assert failed.status_code == 552
    assert json.loads(await failed.get_data())["detail"]["reason"] == "timeout"
    away = await client.get(f"{path}/away")
    assert away.status_code == 503
    assert int(away.headers["Retry-After"]) > 0
    bug = await client.get(f"{path}/bug")
    assert (bug.status_code, await bug.get_data()) == (500, b'{"detail":"Internal Server Error"}')
    missing = await client.get("/nothing")
    assert (missing.status_code, await missing.get_data()) == (404, b'{"detail":"Not Found"}')
    method = await client.put(f"{path}/uid")
    assert method.status_code == 405
    assert "GET" in method.headers["Allow"]
