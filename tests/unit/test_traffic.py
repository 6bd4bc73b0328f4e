"""What a server counts and logs of its requests."""

import asyncio
import re

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from core.calls import Call
from core.contract.errors import TaskNotFound, Unavailable
from core.observe import REQUEST
from core.serving import App
from core.traffic import LINES_PER_MINUTE, Traffic

COUNT = "inference_server_http_request_duration_seconds_count"


@pytest.fixture
def app() -> App:
    app = App("test")

    @app.direct("GET", "/tasks/<uid>")
    async def direct(call: Call, uid: str) -> None:
        if uid == "unknown":
            raise TaskNotFound
        if uid == "away":
            raise Unavailable
        await call.answer(200, REQUEST.get().encode())

    @app.get("/page")
    async def page() -> str:
        return REQUEST.get()

    return app


def counted(app: App, **labels: str) -> float | None:
    return app.figures.get_sample_value(COUNT, labels)


@pytest.mark.parametrize("path", ["/tasks/known", "/page"])
async def test_a_request_has_its_id_while_it_is_answered(app: App, path: str) -> None:
    """And only then: the next one on the connection has another."""
    client = app.test_client()
    sent = await client.get(path, headers={"X-Request-ID": "from-client"})
    assert (await sent.get_data(), sent.headers["X-Request-ID"]) == (b"from-client", "from-client")
    made = [(await client.get(path)).headers["X-Request-ID"] for _ in range(2)]
    assert len({*made, "from-client"}) == 3
    assert all(re.fullmatch("[0-9a-f]{16}", one) for one in made)
    assert REQUEST.get() == ""


async def test_routes_are_labels_and_paths_are_not(app: App) -> None:
    client = app.test_client()
    for uid in ("one", "two", "unknown"):
        await client.get(f"/tasks/{uid}")
    await client.get("/tasks/one?wait=1")
    await client.get("/tasks/one", headers={"Prefer": "wait=1"})
    await client.get("/anything")
    await client.put("/tasks/one")
    assert counted(app, method="GET", route="/tasks/<uid>", status="200") == 2
    assert counted(app, method="GET", route="/tasks/<uid>", status="554") == 1
    assert counted(app, method="GET", route="/tasks/<uid>?wait", status="200") == 2
    assert counted(app, method="any", route="unmatched", status="404") == 1
    assert counted(app, method="any", route="unmatched", status="405") == 1


async def test_what_fails_for_the_servers_sake_is_logged(app: App) -> None:
    """And nothing else: a status of version 1 isn't a failure."""
    client = app.test_client()
    with capture_logs() as lines:
        for uid in ("known", "unknown", "away"):
            await client.get(f"/tasks/{uid}")
    [line] = lines
    about = {"event": "request.unserved", "method": "GET", "route": "/tasks/<uid>", "status": 503}
    assert about.items() <= line.items()


def test_what_is_slow_is_logged_unless_it_has_a_reason() -> None:
    def lines(*, is_patient: bool = False, received: int = 0) -> list[str]:
        with capture_logs() as found:
            Traffic(CollectorRegistry()).note("GET", "/", 200, 6.0, is_patient=is_patient, received=received)
        return [line["event"] for line in found]

    assert lines() == ["request.slow"]
    assert lines(is_patient=True) == []
    assert lines(received=2**30) == []


def test_lines_are_bounded() -> None:
    """While a part is away thousands of requests fail; what isn't logged is counted."""
    now = 0.0
    its = Traffic(CollectorRegistry(), clock=lambda: now)

    def fail() -> None:
        its.note("GET", "/", 503, 0.0, is_patient=False, received=0)

    with capture_logs() as lines:
        for _ in range(LINES_PER_MINUTE + 1000):
            fail()
        assert len(lines) == LINES_PER_MINUTE
        now = 61.0
        fail()
    assert [(line["event"], line.get("count")) for line in lines[LINES_PER_MINUTE:]] == [
        ("requests.unlogged", 1000),
        ("request.unserved", None),
    ]


async def test_the_loop_is_watched() -> None:
    registry = CollectorRegistry()
    watching = asyncio.create_task(Traffic(registry).watch(lambda: 7))
    async with asyncio.timeout(10):
        while not registry.get_sample_value("inference_server_event_loop_lag_seconds_count"):
            await asyncio.sleep(0.01)
    assert registry.get_sample_value("inference_server_http_requests_in_flight") == 7
    watching.cancel()
