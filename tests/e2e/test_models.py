"""Models that change, by their operator, under tasks that run and that wait."""

from collections.abc import Iterator

import pytest

from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT, ModelMaker
from tests.images import Images
from tests.leaks import Leaks
from tests.waiting import eventually
from tests.zips import files_of, zip_of

SHOW_MODEL = "cp -R /model/. /output/"


@pytest.fixture(autouse=True)
def _time_passes(leaks: Leaks) -> Iterator[None]:
    yield
    leaks.let_time_pass()


def _path(core: Api, name: str) -> str:
    uid = core.get(f"/api/models/human_readable_id/{name}").json()["uid"]
    return f"/api/models/{uid}"


def test_a_new_zip_is_for_the_next_task(api: Api, core: Api, model: ModelMaker) -> None:
    """The revision says so; image and limits stay."""
    name = model(SHOW_MODEL, zip=zip_of({"weights": b"1"}), model_available="true", timeout_seconds="77")
    path = _path(core, name)
    assert files_of(api.output(name, INPUT)) == {"weights": b"1"}
    answer = core.call("PUT", path, params={"description": "better"}, zip=zip_of({"weights": b"2"}))
    assert answer.status_code == 200, answer.text
    shown = api.get(path).json()
    assert shown == answer.json()
    assert (shown["revision"], shown["description"], shown["timeout_seconds"]) == (2, "better", 77)
    assert files_of(api.output(name, INPUT)) == {"weights": b"2"}
    revisions = {task["attempts"][0]["revision"] for task in core.get("/api/tasks/").json()}
    assert revisions == {1, 2}


def test_another_image_is_for_the_tasks_that_wait(
    api: Api, core: Api, stack: Stack, images: Images, model: ModelMaker, no_agents: None
) -> None:
    """As long as nobody has begun with them."""
    name = model("echo old > /output/result")
    uid = api.post(name, INPUT)
    tag = images.running("echo new > /output/result")
    answer = core.call("PUT", _path(core, name), params={"container_tag": tag, "network": "true"})
    assert (answer.json()["container_tag"], answer.json()["network"]) == (tag, True)
    for agent in ("agent-1", "agent-2"):
        stack.start(agent)
    assert files_of(api.wait(uid).content) == {"result": b"new\n"}


def test_a_model_can_be_switched_off_and_on(api: Api, core: Api, model: ModelMaker) -> None:
    """Off, it takes nothing new, whichever way it comes; its list entry says so."""
    name = model("cp -R /input/. /output/")
    path = _path(core, name)
    assert core.call("PATCH", path, params={"enabled": "false"}).json()["enabled"] is False
    [listed] = [model for model in api.get("/api/models/").json() if model["human_readable_id"] == name]
    assert listed["enabled"] is False
    for size in (1, 2**21):
        answer = api.call("POST", "/api/tasks/", params={"model_human_readable_id": name}, zip=INPUT + bytes(size))
        assert answer.status_code == 409
    assert core.call("PATCH", path, params={"enabled": "true"}).status_code == 200
    api.output(name, INPUT)


def test_a_deleted_model_is_gone(api: Api, core: Api, model: ModelMaker) -> None:
    """Its tasks that wait fail and say why."""
    name = model("true", use_gpu="true")
    path = _path(core, name)
    uid = api.post(name, INPUT)
    assert core.call("DELETE", path).json()["human_readable_id"] == name
    eventually(lambda: api.get(f"/api/tasks/{uid}/status").json()["state"] == "failed")
    assert api.get(f"/api/tasks/{uid}/status").json()["reason"] == "model_deleted"
    for answer in (api.get(path), core.call("DELETE", path), core.call("PUT", path)):
        assert answer.status_code == 404
        assert answer.headers["Content-Type"] == "application/problem+json"
    gone = api.call("POST", "/api/tasks/", params={"model_human_readable_id": name}, zip=INPUT)
    assert gone.status_code == 550


@pytest.mark.parametrize(
    ("params", "status"),
    [({"use_gpu": "true"}, 422), ({"human_readable_id": "other"}, 422), ({"container_tag": "?"}, 422)],
)
def test_what_can_not_change(api: Api, core: Api, model: ModelMaker, params: dict[str, str], status: int) -> None:
    """The name, what it needs of GPUs, and what was never right; nothing is done then."""
    path = _path(core, model("true"))
    assert core.call("PUT", path, params=params).status_code == status
    assert api.get(path).json()["revision"] == 1


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
def test_nobody_else_changes_one(api: Api, core: Api, model: ModelMaker, method: str) -> None:
    """Though here anybody may register new ones: it may have rights that only an operator gives."""
    path = _path(core, model("true", network="true"))
    answer = api.call(method, path, params={"container_tag": "mine:1", "enabled": "false"})
    assert (answer.status_code, set(answer.headers["Allow"].split(", "))) == (405, {"GET", "HEAD"})
    assert api.get(path).json()["revision"] == 1
