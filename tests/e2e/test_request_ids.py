"""One id from the client's request to the container that it leads to."""

import json
import re
import secrets
from pathlib import Path
from typing import Any

import pytest

from demo.image import docker
from demo.stack import Stack
from gpu_agent.engine import REQUEST, TASK
from tests.e2e.api import Api
from tests.e2e.conftest import AGENTS, INPUT, ModelMaker
from tests.e2e.gateways import gateway
from tests.waiting import eventually

HEADER = "X-Request-ID"


def lines(log: Path, request: str) -> list[dict[str, Any]]:
    """Those that have the request's id."""
    found = [line for line in log.read_text().splitlines() if request in line]
    return [line for line in map(json.loads, found) if line["request"] == request]


def events(log: Path, request: str) -> set[str]:
    return {line["event"] for line in lines(log, request)}


def test_it_goes_all_the_way(stack: Stack, api: Api, core: Api, model: ModelMaker) -> None:
    """Core's lines, the task, the agent's lines and the container have the id that the client sent."""
    name, request = model("until test -e /input/never; do sleep 0.1; done"), f"client.{secrets.token_hex(8)}"
    params = {"model_human_readable_id": name}
    answer = api.call("POST", "/api/tasks/", params=params, zip=INPUT, headers={HEADER: request})
    assert answer.headers[HEADER] == request
    uid = answer.json()
    assert core.get(f"/api/tasks/{uid}").json()["request_id"] == request

    def container() -> str:
        shown = f'{{{{.Label "{REQUEST}"}}}} {{{{.State}}}}'
        return docker(stack.docker_host, "ps", "--filter", f"label={TASK}={uid}", "--format", shown).strip()

    def started() -> list[dict[str, Any]]:
        told = [line for agent in AGENTS for line in lines(stack.log(agent), request)]
        return [line for line in told if line["event"] == "container.started"]

    eventually(lambda: container() == f"{request} running")
    [line] = eventually(started)
    assert (line["task"], line["attempt"], line["service"]) == (uid, 1, "gpu_agent")
    assert line["slot"]
    assert core.call("POST", f"/api/tasks/{uid}/cancel").status_code == 200
    eventually(lambda: not container())
    eventually(lambda: {"task.created", "task.claimed"} <= events(stack.log("core"), request))


def test_what_the_agent_asks_of_core_is_for_the_same_request(stack: Stack, api: Api, copying: str) -> None:
    """So that one id finds the end of a task as well."""
    answer = api.call("POST", "/api/tasks/", params={"model_human_readable_id": copying}, zip=INPUT)
    request = answer.headers[HEADER]
    assert api.wait_for_end(answer.json()) == 200
    eventually(lambda: {"task.created", "task.claimed", "task.finished"} <= events(stack.log("core"), request))


def test_what_failed_is_found_by_the_id_that_the_client_has(stack: Stack, tmp_path: Path) -> None:
    """The gateway has a line for it, and nothing of the client in it."""
    with gateway(stack, tmp_path, CORE_URL="http://127.0.0.1:1") as another:
        answer = another.get("/api/models/?secret=word")
        assert answer.status_code == 503
        request = answer.headers[HEADER]
        eventually(lambda: "request.unserved" in events(another.log, request))
    unanswered, unserved = lines(another.log, request)
    assert unanswered["event"] == "core.unanswered"
    assert (unserved["route"], unserved["status"]) == ("/api/models/", 503)
    assert "word" not in another.log.read_text()


@pytest.mark.parametrize("offered", ["", "with blanks", "x" * 129, "ünd"])
def test_an_id_that_is_none_is_replaced(api: Api, offered: str) -> None:
    answer = api.call("GET", "/api/models/", headers={HEADER: offered})
    assert re.fullmatch("[0-9a-f]{16}", answer.headers[HEADER])


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/docs", 200),
        ("GET", "/nothing", 404),
        ("GET", "/api/tasks", 307),
        ("PATCH", "/api/models/", 405),
        ("GET", f"/api/tasks/{'u' * 43}", 554),
        ("POST", "/api/tasks/", 422),
        ("GET", "/api/tasks/x/y/z", 404),
    ],
)
def test_each_answer_has_it(api: Api, core: Api, method: str, path: str, status: int) -> None:
    """Of pages, errors and refusals too, at the gateway and at core."""
    answer = api.call(method, path, headers={HEADER: "mine"})
    assert (answer.status_code, answer.headers[HEADER]) == (status, "mine")
    assert core.call(method, path, headers={HEADER: "mine"}).headers[HEADER] == "mine"
    assert core.call(method, path, headers={HEADER: "mine", "Authorization": "Bearer wrong"}).headers[HEADER] == "mine"
