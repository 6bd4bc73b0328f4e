"""Core's API: what operators and version 1's consumers call, behind the token."""

import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import requests

from core.contract.errors import Unauthorized
from demo.image import docker
from demo.stack import REPOSITORY, Stack
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT, ModelMaker
from tests.waiting import eventually
from tests.zips import zip_of

UNKNOWN = "A" * 43
OUTPUT = zip_of({"result.txt": b"42\n"})
TASK_FIELDS = {
    *("uid", "model_human_readable_id", "datetime_created", "datetime_dispatched", "datetime_finished"),
    *("input_zip", "output_zip", "input_volume_id", "output_volume_id", "status", "is_deleted"),
}
MODEL_FIELDS = {
    *("id", "uid", "human_readable_id", "description", "container_tag", "use_gpu", "model_available", "model_zip"),
    "model_volume_id",
}
NOT_FOUND = {"detail": {"detail": "Task not found"}}
GUARDED = [
    ("GET", "/api/tasks/"),
    ("POST", "/api/tasks/?model_human_readable_id=x"),
    ("PUT", f"/api/tasks/?uid={UNKNOWN}&status=1"),
    ("GET", f"/api/tasks/{UNKNOWN}"),
    ("DELETE", f"/api/tasks/{UNKNOWN}"),
    ("GET", f"/api/tasks/inputs/{UNKNOWN}"),
    ("GET", f"/api/tasks/outputs/{UNKNOWN}"),
    ("POST", f"/api/tasks/outputs/{UNKNOWN}"),
    ("GET", "/api/models/"),
    ("POST", "/api/models/?container_tag=x&human_readable_id=x"),
    ("GET", f"/api/models/{UNKNOWN}"),
    ("GET", "/api/models/human_readable_id/x"),
    ("GET", f"/api/models/zips/{UNKNOWN}"),
    ("POST", f"/api/tasks/{UNKNOWN}/claim"),
    ("GET", "/api/agents/"),
    ("POST", "/api/agents/"),
    ("POST", f"/api/tasks/{UNKNOWN}/cancel"),
    ("GET", "/nothing"),
]


def shown(core: Api, uid: str) -> dict[str, object]:
    answer = core.get(f"/api/tasks/{uid}")
    assert answer.status_code == 200
    task: dict[str, object] = answer.json()
    return task


def set_status(core: Api, uid: str, status: object) -> requests.Response:
    return core.call("PUT", "/api/tasks/", params={"uid": uid, "status": str(status)})


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("authorization", ["", "Bearer wrong", "Basic eDp3cm9uZw==", "Nonsense", "Bearer"])
def test_without_the_token_everything_is_401(stack: Stack, method: str, path: str, authorization: str) -> None:
    """Paths that don't exist included: a stranger learns nothing."""
    headers = {"Authorization": authorization} if authorization else {}
    answer = requests.request(method, stack.core_url + path, headers=headers, timeout=30)
    assert answer.status_code == 401
    assert answer.json()["detail"] == Unauthorized.detail


def test_the_token_is_taken_as_a_password(stack: Stack) -> None:
    """For consumers of version 1: with the token in the URL they needn't know of it."""
    token = stack.token_file.read_text().strip()
    url = stack.core_url.replace("http://", f"http://anybody:{token}@")
    assert requests.get(f"{url}/api/models/", timeout=30).status_code == 200


def test_an_agent_with_another_token_takes_nothing(stack: Stack, tmp_path: Path) -> None:
    """It would drop the messages of tasks that it may not claim: it ends, and says what it needs."""
    environment = {
        "PATH": os.environ["PATH"],
        "CORE_URL": stack.core_url,
        "CORE_TOKEN": "another",
        "RABBITMQ_URL": stack.rabbitmq_url,
        "DOCKER_HOST": stack.docker_host,
        "AGENT_NAME": "stranger",
        "WORK_DIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "gpu_agent"]
    ended = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "CORE_TOKEN" in ended.stderr
    assert "agent.started" not in ended.stdout


def test_a_task_as_json(api: Api, core: Api, waiting: str) -> None:
    """Version 1's fields, the times in UTC."""
    task = shown(core, uid := api.post(waiting, INPUT))
    assert task.keys() >= TASK_FIELDS
    assert (task["uid"], task["model_human_readable_id"], task["status"]) == (uid, waiting, -1)
    assert (task["output_zip"], task["datetime_finished"], task["is_deleted"]) == (None, None, False)
    assert isinstance(task["input_zip"], str)
    created = task["datetime_created"]
    assert isinstance(created, str)
    assert datetime.fromisoformat(created).utcoffset() is not None


def test_the_attempts_of_a_task(api: Api, core: Api, copying: str, stack: Stack) -> None:
    """Who ran it on which host, with which image, and when."""
    uid = api.post(copying, INPUT)
    assert api.wait(uid).status_code == 200
    [attempt] = core.get(f"/api/tasks/{uid}").json()["attempts"]
    assert attempt["agent"].startswith("agent-")
    assert attempt["host"] == docker(stack.docker_host, "info", "--format", "{{.Name}}").strip()
    assert attempt["image"].startswith("sha256:")
    assert attempt["started"] < attempt["ended"]
    assert (attempt["number"], attempt["gpus"], attempt["failure"]) == (1, [], None)


def test_a_running_task_is_cancelled(api: Api, core: Api, model: ModelMaker, stack: Stack) -> None:
    """At once for the client; the container goes with its agent's next renewal."""
    uid = api.post(model("sleep 1000"), INPUT)

    def containers() -> str:
        return docker(stack.docker_host, "ps", "-q", "--filter", f"label=inference-server.task={uid}")

    eventually(containers)
    assert core.call("POST", f"/api/tasks/{uid}/cancel").json()["state"] == "failed"
    answer = api.get(f"/api/tasks/{uid}")
    assert answer.status_code == 552
    assert answer.json()["detail"]["reason"] == "cancelled"
    eventually(lambda: not containers())


def test_tasks_are_listed(api: Api, core: Api, waiting: str) -> None:
    """The newest first."""
    uids = [api.post(waiting, INPUT) for _ in range(3)]
    listed = core.get("/api/tasks/").json()
    assert [task["uid"] for task in listed] == uids[::-1]
    assert all(task.keys() >= TASK_FIELDS for task in listed)


def test_a_task_posted_on_core(core: Api, waiting: str) -> None:
    """Core has all of the public API."""
    uid = core.post(waiting, INPUT)
    assert len(uid) == 43
    assert core.get(f"/api/tasks/outputs/{uid}").status_code == 551
    assert core.delete(uid).status_code == 200
    assert core.get(f"/api/tasks/outputs/{uid}").status_code == 554


def test_the_input_as_it_was_posted(api: Api, core: Api, waiting: str) -> None:
    """Byte for byte, as long as the task may need it."""
    uid = api.post(waiting, INPUT)
    answer = core.get(f"/api/tasks/inputs/{uid}")
    assert (answer.status_code, answer.content) == (200, INPUT)
    assert answer.headers["Content-Type"] == "application/zip"
    set_status(core, uid, 1)
    assert core.get(f"/api/tasks/inputs/{uid}").status_code == 410


def test_an_output_that_is_posted_finishes_the_task(api: Api, core: Api, waiting: str) -> None:
    """Both APIs give back the very bytes."""
    uid = api.post(waiting, INPUT)
    answer = core.call("POST", f"/api/tasks/outputs/{uid}", zip=OUTPUT)
    assert answer.status_code == 200
    assert core.get(f"/api/tasks/outputs/{uid}").content == OUTPUT
    assert api.get(f"/api/tasks/{uid}").content == OUTPUT
    task = shown(core, uid)
    assert task["status"] == 1
    assert isinstance(task["output_zip"], str)
    assert task["datetime_finished"] is not None


def test_an_output_without_a_file_is_422(api: Api, core: Api, waiting: str) -> None:
    """The task goes on."""
    uid = api.post(waiting, INPUT)
    answer = core.call("POST", f"/api/tasks/outputs/{uid}")
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["body", "zip_file"]
    assert shown(core, uid)["status"] == -1


@pytest.mark.parametrize("status", [2, 1, 0])
def test_a_status_is_set(api: Api, core: Api, waiting: str, status: int) -> None:
    """Straight from pending, and once more without harm; the answer is the task."""
    uid = api.post(waiting, INPUT)
    for _ in range(2):
        answer = set_status(core, uid, status)
        assert answer.status_code == 200
        assert (answer.json()["uid"], answer.json()["status"]) == (uid, status)
    public = {2: 551, 1: 553, 0: 552}
    assert api.get(f"/api/tasks/{uid}").status_code == public[status]


def test_the_status_may_come_before_the_output(api: Api, core: Api, waiting: str) -> None:
    """Consumers of version 1 do it in either order."""
    uid = api.post(waiting, INPUT)
    for status in (2, 1):
        assert set_status(core, uid, status).status_code == 200
    assert core.call("POST", f"/api/tasks/outputs/{uid}", zip=OUTPUT).status_code == 200
    assert api.get(f"/api/tasks/{uid}").content == OUTPUT


def test_an_end_is_final(api: Api, core: Api, waiting: str) -> None:
    """A failed task doesn't finish, nor does it run again."""
    uid = api.post(waiting, INPUT)
    set_status(core, uid, 0)
    for status in (1, 2, -1):
        assert set_status(core, uid, status).status_code == 409
    assert core.call("POST", f"/api/tasks/outputs/{uid}", zip=OUTPUT).status_code == 409
    assert shown(core, uid)["status"] == 0


@pytest.mark.parametrize("status", [7, "done", ""])
def test_an_unknown_status_is_422(api: Api, core: Api, waiting: str, status: object) -> None:
    """The parameter is named, and the task stays as it was."""
    uid = api.post(waiting, INPUT)
    answer = set_status(core, uid, status)
    assert answer.status_code == 422
    assert [fault["loc"] for fault in answer.json()["detail"]] == [["query", "status"]]
    assert shown(core, uid)["status"] == -1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/api/tasks/{UNKNOWN}"),
        ("DELETE", f"/api/tasks/{UNKNOWN}"),
        ("PUT", f"/api/tasks/?uid={UNKNOWN}&status=1"),
        ("GET", f"/api/tasks/inputs/{UNKNOWN}"),
        ("GET", f"/api/tasks/outputs/{UNKNOWN}"),
    ],
)
def test_an_unknown_task_is_554(core: Api, method: str, path: str) -> None:
    """On each call that names one."""
    answer = core.call(method, path)
    assert (answer.status_code, answer.json()) == (554, NOT_FOUND)


def test_an_output_for_an_unknown_task_is_554(core: Api) -> None:
    """Nothing of it stays."""
    answer = core.call("POST", f"/api/tasks/outputs/{UNKNOWN}", zip=OUTPUT)
    assert (answer.status_code, answer.json()) == (554, NOT_FOUND)


def test_a_model_by_either_name(core: Api, copying: str) -> None:
    """Version 1's fields; consumers look the model up by the task's model_human_readable_id."""
    by_name = core.get(f"/api/models/human_readable_id/{copying}")
    assert by_name.status_code == 200
    assert by_name.json().keys() >= MODEL_FIELDS
    by_uid = core.get(f"/api/models/{by_name.json()['uid']}")
    assert (by_uid.status_code, by_uid.json()) == (200, by_name.json())
    assert by_name.json() in core.get("/api/models/").json()


@pytest.mark.parametrize("name", ["with space", "ünïcode", "a/b", "50%", "a&b=c?d#e"])
def test_a_model_of_any_name(core: Api, name: str) -> None:
    """Whatever its owner calls it, it is found."""
    params = {"container_tag": "x", "human_readable_id": name}
    assert core.call("POST", "/api/models/", params=params).status_code == 200
    found = core.get(f"/api/models/human_readable_id/{requests.utils.quote(name, safe='')}")  # type: ignore[attr-defined]
    assert (found.status_code, found.json()["human_readable_id"]) == (200, name)


@pytest.mark.parametrize("path", [f"/api/models/{UNKNOWN}", "/api/models/human_readable_id/x", "/api/models/zips/x"])
def test_an_unknown_model_is_550(core: Api, path: str) -> None:
    """Version 1's own status."""
    answer = core.get(path)
    assert (answer.status_code, answer.json()) == (550, {"detail": "ModelNotFound"})


def test_a_models_zip(core: Api) -> None:
    """Byte for byte. Version 1 answered 422 here, so that models with a zip never ran."""
    params = {"container_tag": "x", "human_readable_id": "model-with-zip", "model_available": "True"}
    registered = core.call("POST", "/api/models/", params=params, zip=OUTPUT).json()
    answer = core.get(f"/api/models/zips/{registered['uid']}")
    assert (answer.status_code, answer.content) == (200, OUTPUT)


def test_a_model_without_a_zip_has_none_to_give(core: Api, copying: str) -> None:
    """404: the model is known, its zip is not."""
    uid = core.get(f"/api/models/human_readable_id/{copying}").json()["uid"]
    assert core.get(f"/api/models/zips/{uid}").status_code == 404


def test_only_operators_set_limits(core: Api, model: ModelMaker) -> None:
    """On core they are taken, and a limit that makes no sense is refused."""
    name = model("true", timeout_seconds="77", network="yes", memory_mb="100", pull="always")
    registered = core.get(f"/api/models/human_readable_id/{name}").json()
    assert {field: registered[field] for field in ("timeout_seconds", "network", "memory_mb", "pull")} == {
        "timeout_seconds": 77,
        "network": True,
        "memory_mb": 100,
        "pull": "always",
    }
    params = {"container_tag": "x", "human_readable_id": "limitless", "timeout_seconds": "0"}
    assert core.call("POST", "/api/models/", params=params).status_code == 422


def test_metrics_are_the_operators(core: Api) -> None:
    """In Prometheus's text format, for who has the token."""
    answer = core.get("/metrics")
    assert (answer.status_code, answer.headers["Content-Type"].split(";")[0]) == (200, "text/plain")
    figures = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
    assert figures["inference_server_store_up"] == "1.0"
    assert (
        0 < float(figures["inference_server_store_used_bytes"]) < float(figures["inference_server_store_limit_bytes"])
    )
    assert core.get("/metrics", Authorization="Bearer wrong").status_code == 401


def test_the_public_has_no_times_to_set(api: Api, core: Api) -> None:
    """How long something is kept is the operator's to say, as all limits are."""
    params = {"container_tag": "x", "keep_outputs_hours": "0.5"}
    for caller, kept in ((api, None), (core, 0.5)):
        name = f"kept-{kept}"
        assert caller.call("POST", "/api/models/", params=params | {"human_readable_id": name}).status_code == 200
        assert core.get(f"/api/models/human_readable_id/{name}").json()["keep_outputs_hours"] == kept
