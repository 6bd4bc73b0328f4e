"""What clients ask of their tasks beyond version 1, over HTTPS; and what operators see of all of them."""

import json
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.conftest import COPY, INPUT, ModelMaker
from tests.waiting import eventually
from tests.zips import zip_of

PROBLEM = "application/problem+json"
UNKNOWN = "x" * 43


def _status(api: Api, uid: str, **params: str) -> dict[str, Any]:
    answer = api.call("GET", f"/api/tasks/{uid}/status", params=params)
    assert answer.status_code == 200, answer.text
    status: dict[str, Any] = answer.json()
    return status


@pytest.fixture(scope="session")
def failing(model: ModelMaker) -> str:
    """A model that fails unless its input has a certain file."""
    return model("test -e /input/well && cp /input/well /output/ || { echo no luck >&2; exit 3; }")


def test_how_a_task_goes(api: Api, copying: str) -> None:
    """From its post to its end, which is told at once to whoever waits."""
    uid = api.post(copying, INPUT)
    status = _status(api, uid, wait="60")
    assert (status["state"], status["model"], status["attempt"], status["reason"]) == ("finished", copying, 1, None)
    assert status["created"] <= status["started"] <= status["finished"]
    assert status["output_bytes"] == len(api.wait(uid).content)
    assert (status["input_bytes"], status["can_retry"], status["priority"]) == (None, False, "normal")
    assert [(attempt["number"], attempt["reason"]) for attempt in status["attempts"]] == [(1, None)]
    assert "agent" not in json.dumps(status)


def test_position_and_what_it_waits_for(api: Api, waiting: str) -> None:
    """Of tasks that wait for a GPU which nobody has."""
    uids = [api.post(waiting, INPUT) for _ in range(3)]
    positions = [_status(api, uid)["position"] for uid in uids]
    assert [position - positions[0] for position in positions] == [0, 1, 2]
    assert "GPU" in _status(api, uids[0])["waits_for"]


def test_options(api: Api, core: Api, waiting: str) -> None:
    """Are shown, and labels find their tasks; each wrong one is named."""
    options = [("priority", "low"), ("timeout_seconds", "5"), ("label", "study=7"), ("label", "who=me & you")]
    params: Any = [("model_human_readable_id", waiting), *options]
    answer = api.call("POST", "/api/tasks/", params=params, zip=INPUT)
    assert answer.status_code == 200, answer.text
    uid = answer.json()
    status = _status(api, uid)
    assert (status["priority"], status["timeout_seconds"]) == ("low", 5)
    assert status["labels"] == {"study": "7", "who": "me & you"}
    api.post(waiting, INPUT)
    for wanted in ({"label": "study=7"}, {"search": uid[:12]}, {"label": "who=me & you", "model": waiting}):
        assert [task["uid"] for task in core.call("GET", "/api/tasks/", params=wanted).json()] == [uid]
    assert core.call("GET", "/api/tasks/", params={"label": "study=8"}).json() == []
    assert len(core.call("GET", "/api/tasks/", params={"state": "pending"}).json()) == 2
    for wrong in (("priority", "urgent"), ("ttl_seconds", "0"), ("timeout_seconds", "0"), ("label", "study")):
        answer = api.call("POST", "/api/tasks/", params=[("model_human_readable_id", waiting), wrong], zip=INPUT)  # type: ignore[arg-type]
        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"][:2] == ["query", wrong[0]]


def test_priority(api: Api, stack: Stack, model: ModelMaker, no_agents: None) -> None:
    """What was posted last comes first."""
    copying, order = model("date +%s%N > /output/when; sleep 0.3"), []
    for priority in ("low", "normal", "high"):
        params = {"model_human_readable_id": copying, "priority": priority}
        order.append(api.call("POST", "/api/tasks/", params=params, zip=INPUT).json())
    stack.start("agent-1")
    for uid in order:
        assert api.wait_for_end(uid) == 200
    began = [_status(api, uid)["started"] for uid in order]
    assert began == sorted(began, reverse=True)


def test_nobody_took_it_in_time(api: Api, waiting: str) -> None:
    """It fails, and its client is told why."""
    params = {"model_human_readable_id": waiting, "ttl_seconds": "1"}
    uid = api.call("POST", "/api/tasks/", params=params, zip=INPUT).json()
    status = _status(api, uid, wait="30")
    assert (status["state"], status["reason"]) == ("failed", "expired")
    assert api.get(f"/api/tasks/{uid}").json()["detail"]["reason"] == "expired"


def test_cancel(api: Api, model: ModelMaker, waiting: str) -> None:
    """One that waits and one that runs; twice is as once, and what has finished can't be."""
    sleeping = model("sleep 300")
    running, pending = api.post(sleeping, INPUT), api.post(waiting, INPUT)
    eventually(lambda: _status(api, running)["state"] == "running")
    for uid in (running, pending, running):
        answer = api.call("POST", f"/api/tasks/{uid}/cancel")
        assert (answer.status_code, answer.json()["reason"]) == (200, "cancelled")
    finished = api.post(model(COPY), INPUT)
    api.wait_for_end(finished)
    answer = api.call("POST", f"/api/tasks/{finished}/cancel")
    assert (answer.status_code, answer.headers["Content-Type"]) == (409, PROBLEM)


def test_retry(api: Api, failing: str) -> None:
    """Its second attempt gets the same input, and fails as the first did; the log's last lines are told."""
    uid = api.post(failing, INPUT)
    first = _status(api, uid, wait="60")
    assert (first["state"], first["reason"], first["exit_code"], first["can_retry"]) == (
        "failed",
        "exit_nonzero",
        3,
        True,
    )
    assert "no luck" in first["message"]
    assert api.call("POST", f"/api/tasks/{uid}/retry").json()["state"] in ("pending", "running", "failed")
    second = eventually(lambda: (status := _status(api, uid, wait="5"))["state"] == "failed" and status)
    assert [attempt["reason"] for attempt in second["attempts"]] == ["exit_nonzero"] * 2
    well = api.post(failing, zip_of({"well": b"!"}))
    api.wait_for_end(well)
    assert api.call("POST", f"/api/tasks/{well}/retry").status_code == 409


@pytest.mark.parametrize("is_form", [True, False])
def test_put(api: Api, copying: str, is_form: bool) -> None:
    """Under a uid that the client chose: sent again it is the same task; anything else is refused."""
    uid, params = secrets.token_urlsafe(32), {"model_human_readable_id": copying}

    def put(zip: bytes) -> tuple[int, dict[str, Any]]:
        body: dict[str, Any] = (
            {"zip": zip} if is_form else {"data": zip, "headers": {"Content-Type": "application/zip"}}
        )
        answer = api.call("PUT", f"/api/tasks/{uid}", params=params, **body)
        return answer.status_code, answer.json()

    first, again, other = put(INPUT), put(INPUT), put(zip_of({"other": b"1"}))
    assert (first[0], again[0], other[0]) == (201, 200, 409)
    assert first[1]["uid"] == again[1]["uid"] == uid
    assert "choose another" in other[1]["detail"]
    assert api.wait(uid).status_code == 200


def test_idempotency_key(api: Api, copying: str) -> None:
    """Posted at once by several it is one task; a key that can be guessed is refused."""
    params = {"model_human_readable_id": copying}

    def post(key: str, zip: bytes = INPUT) -> Any:
        answer = api.call("POST", "/api/tasks/", params=params, zip=zip, headers={"Idempotency-Key": key})
        return answer.json() if answer.status_code == 200 else answer.status_code

    key = secrets.token_hex(16)
    with ThreadPoolExecutor() as pool:
        uids = set(pool.map(post, [key] * 6))
    assert len(uids) == 1
    assert post(key, zip_of({"other": b"1"})) == 409
    assert post("1") == 422
    assert post(secrets.token_hex(16)) not in uids


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "status"), ("POST", "cancel"), ("POST", "retry")],
)
def test_problems(api: Api, core: Api, method: str, path: str) -> None:
    """Of calls that version 1 didn't have have standard status codes."""
    for client in (api, core):
        answer = client.call(method, f"/api/tasks/{UNKNOWN}/{path}")
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, PROBLEM)
        assert answer.json() == {
            "type": "about:blank", "title": "Not Found", "status": 404, "detail": "Task not found",
        }  # fmt: skip


def test_overview(core: Api, api: Api, waiting: str) -> None:
    """What waits, where, for how long, and how full Redis is."""
    api.post(waiting, INPUT)
    began = time.monotonic()
    overview = core.get("/api/overview").json()
    assert time.monotonic() - began < 10
    assert overview["ready"]
    assert overview["waiting"] >= 1
    assert {"unfinished_job_queue", "finished_job_queue"} <= overview["queues"].keys()
    assert 0 < overview["redis"]["used_bytes"] < overview["redis"]["limit_bytes"]
    assert api.get("/api/overview").status_code == 404
