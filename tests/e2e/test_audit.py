"""Who did what, as an operator reads it afterwards."""

import json
import secrets
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import pytest

from core.audit import REFUSED_BY_ADDRESS
from demo.stack import Stack
from deploy import audit
from deploy.compose import DeploymentError
from deploy.keys import Core
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT, ModelMaker
from tests.e2e.tus import Tus, uid_of
from tests.waiting import eventually

Entries = list[dict[str, Any]]
Trail = Callable[..., Entries]


@pytest.fixture
def trail(core: Api) -> Trail:
    """What is said of a task or a model, oldest first: `trail(uid, 3)`, once there are so many entries."""

    def entries(about: str, count: int) -> Entries:
        def found() -> Entries:
            entries: Entries = core.call("GET", "/api/audit/", params={"task": about}).json()
            return entries if len(entries) >= count else []

        return eventually(found)[::-1]

    return entries


def test_a_task_from_its_post_to_its_deletion(api: Api, core: Api, copying: str, trail: Trail) -> None:
    """By whom, whence, and under which request."""
    posted = api.call("POST", "/api/tasks/", params={"model_human_readable_id": copying}, zip=INPUT)
    uid = posted.json()
    assert api.wait(uid).status_code == 200
    assert api.get(f"/api/tasks/{uid}/log").status_code == 200
    assert core.get(f"/api/tasks/outputs/{uid}").status_code == 200
    assert api.call("POST", f"/api/tasks/{uid}/cancel").status_code == 409
    assert api.delete(uid).status_code == 200
    entries = [entry for entry in trail(uid, 7) if entry["what"] != "input"]
    assert [(entry["action"], entry["what"], entry["who"], entry["status"]) for entry in entries] == [
        ("task.submitted", "", "anybody", 200),
        ("task.read", "output", "anybody", 200),
        ("task.read", "log", "anybody", 200),
        ("task.read", "output", "operator", 200),
        ("task.cancelled", "", "anybody", 409),
        ("task.deleted", "", "anybody", 200),
    ]
    assert entries[0]["request"] == posted.headers["X-Request-ID"]
    assert {entry["address"] for entry in entries} <= {"127.0.0.1", "::1"}


def test_who_reads_in_ranges_or_polls_is_one_entry(api: Api, copying: str, trail: Trail) -> None:
    uid = api.post(copying, INPUT)
    size = len(api.wait(uid).content)
    for start in range(size // 2, size):
        assert api.get(f"/api/tasks/{uid}", Range=f"bytes={start}-").status_code == 206
    assert api.delete(uid).status_code == 200
    entries = trail(uid, 4)
    assert [entry["action"] for entry in entries if entry["who"] == "anybody"] == [
        "task.submitted",
        "task.read",
        "task.deleted",
    ]


def test_an_upload_becomes_a_task(api: Api, copying: str, trail: Trail) -> None:
    """With its last bytes."""
    tus = Tus(api)
    path = tus.opened(copying, len(INPUT))
    for start, stop in ((0, 10), (10, len(INPUT))):
        assert tus.append(path, start, INPUT[start:stop]).status_code == 204
    uid = uid_of(path)
    actions = [entry["action"] for entry in trail(uid, 2) if entry["who"] == "anybody"]
    assert actions == ["upload.opened", "task.submitted"]


def test_operators_read_it_line_by_line(api: Api, core: Api, waiting: str, trail: Trail) -> None:
    uid = api.post(waiting, INPUT)
    trail(uid, 1)
    [first] = core.call("GET", "/api/audit/", params={"task": uid, "since": "2020-01-01T00:00Z"}).json()
    assert audit.line(first).endswith(f"anybody  task.submitted  {uid}  200")
    assert audit.line(first | {"status": 507}).endswith(f"task.submitted failed  {uid}  507")
    assert core.call("GET", "/api/audit/", params={"task": uid, "since": "2999-01-01T00:00Z"}).json() == []
    assert core.call("GET", "/api/audit/", params={"since": "yesterday"}).status_code == 422


def test_just_audit_says_when_there_is_more(
    api: Api, stack: Stack, waiting: str, trail: Trail, capsys: pytest.CaptureFixture[str]
) -> None:
    uid = api.post(waiting, INPUT)
    api.delete(uid)
    trail(uid, 2)
    every = {"since": None, "task": None, "key": None, "limit": None, "json": False}

    def typed(**said: object) -> tuple[int, str]:
        audit.show(Namespace(**every | said), lambda: Core(stack.core_url, stack.token_file))
        out, err = capsys.readouterr()
        return len(out.splitlines()), err

    assert typed(limit=1) == (1, "The newest 1; --limit N shows more.\n")
    assert typed(task=uid, limit=1) == (1, "The newest 1; --limit N shows more.\n")
    assert typed(task=uid) == (2, "")
    assert typed(key=secrets.token_hex(6)) == (0, "")
    with pytest.raises(DeploymentError, match="no key's id"):
        typed(key="isk_")


def test_models(core: Api, model: ModelMaker, trail: Trail) -> None:
    uid = core.get(f"/api/models/human_readable_id/{model('true')}").json()["uid"]
    core.call("PUT", f"/api/models/{uid}", params={"description": "changed"})
    core.call("PATCH", f"/api/models/{uid}", params={"enabled": "false"})
    core.call("DELETE", f"/api/models/{uid}")
    assert [(entry["action"], entry["who"]) for entry in trail(uid, 4)] == [
        ("model.added", "operator"),
        ("model.changed", "operator"),
        ("model.switched", "operator"),
        ("model.deleted", "operator"),
    ]


def test_a_flood_of_refused_calls_is_noted_a_few_times(stack: Stack, core: Api) -> None:
    """Also who isn't let in; what the calls were is told by their routes, never in the caller's words."""
    log = stack.log("core")
    before = log.read_text().count("audit.access.refused")
    stranger = Api.private(stack.core_url, "a guess")
    for _ in range(3 * REFUSED_BY_ADDRESS):
        assert stranger.get("/api/tasks/secret-of-the-caller").status_code == 401
    lines = [json.loads(line) for line in log.read_text().splitlines() if '"audit.access.refused"' in line][before:]
    assert len(lines) <= REFUSED_BY_ADDRESS
    assert "secret-of-the-caller" not in json.dumps([line["what"] for line in lines])
    assert core.call("GET", "/api/audit/", params={"limit": "1"}).status_code == 200
