"""The public API, row by row as CONTRACT has it: what version 1's clients send and branch on."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from core.store import keys
from demo.image import docker
from demo.ports import Ports
from demo.stack import Stack
from gpu_agent.engine import TASK
from tests.direct import redis_at
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT, ModelMaker
from tests.images import Images
from tests.waiting import eventually
from tests.zips import files_of, zip_of

UNKNOWN = "A" * 43
NOT_YET = {"detail": {"detail": "Job status is 'pending' or 'running'"}}
GONE = {"detail": {"detail": "Job status is 'finished', but output zip does not exist"}}
NOT_FOUND = {"detail": {"detail": "Task not found"}}
MISSING = {"msg": "field required", "type": "value_error.missing"}
MODEL_FIELDS = {
    *("uid", "human_readable_id", "description", "container_tag", "use_gpu", "model_available", "model_volume_id"),
}


def name(request: pytest.FixtureRequest) -> str:
    """A model's name of the test's own."""
    return f"m-{request.node.name}"


def is_running(core: Api, uid: str) -> bool:
    return bool(core.get(f"/api/tasks/{uid}").json()["status"] == 2)


class TestPages:
    def test_root_greets(self, api: Api) -> None:
        """Clients look for 'Hello world' to see that the server is there."""
        answer = api.get("/")
        assert answer.status_code == 200
        assert answer.json()["message"].startswith("Hello world - ")

    @pytest.mark.parametrize("path", ["/nothing", "/api", "/api/nothing/", "/api/tasks/outputs/x", "/api/admission"])
    def test_an_unknown_path_is_404(self, api: Api, path: str) -> None:
        """Core's own calls are unknown to the public, too."""
        answer = api.get(path)
        assert answer.status_code == 404
        assert answer.json() == {"detail": "Not Found"}

    @pytest.mark.parametrize(
        ("method", "path", "allowed"),
        [
            ("PUT", "/api/tasks/", {"POST"}),
            ("GET", "/api/tasks/", {"POST"}),
            ("DELETE", "/api/models/", {"GET", "POST"}),
            ("POST", f"/api/tasks/{UNKNOWN}", {"GET", "PUT", "DELETE"}),
            ("PATCH", f"/api/tasks/{UNKNOWN}", {"GET", "PUT", "DELETE"}),
        ],
    )
    def test_a_wrong_method_is_405_and_says_what_is_allowed(
        self, api: Api, method: str, path: str, allowed: set[str]
    ) -> None:
        """Listing tasks and setting their status are not the public's."""
        answer = api.call(method, path)
        assert answer.status_code == 405
        assert answer.json() == {"detail": "Method Not Allowed"}
        assert allowed <= set(answer.headers["Allow"].split(", ")) <= allowed | {"HEAD", "OPTIONS"}

    @pytest.mark.parametrize(
        ("method", "path", "canonical"),
        [
            ("POST", "/api/tasks?model_human_readable_id=a%20b%26c&x=%C3%BC", None),
            ("GET", "/api/models", "/api/models/"),
            ("POST", "/api/models?container_tag=t&human_readable_id=x", None),
            ("GET", f"/api/tasks/{UNKNOWN}/", f"/api/tasks/{UNKNOWN}"),
            ("DELETE", f"/api/tasks/{UNKNOWN}/?x=1", f"/api/tasks/{UNKNOWN}?x=1"),
        ],
    )
    def test_the_other_form_of_a_path_is_307(self, api: Api, method: str, path: str, canonical: str | None) -> None:
        """The query is kept, byte for byte."""
        answer = api.call(method, path)
        assert answer.status_code == 307
        location = answer.headers["Location"].removeprefix(api.url)
        assert location == (canonical or path.replace("?", "/?"))

    def test_a_form_survives_the_redirect(self, api: Api, waiting: str) -> None:
        """requests follows a 307 with the form that it had."""
        url = f"{api.url}/api/tasks?model_human_readable_id={waiting}"
        answer = api.session.post(url, files={"zip_file": INPUT}, timeout=60)
        assert answer.status_code == 200
        assert [past.status_code for past in answer.history] == [307]


class TestPost:
    def test_the_answer_is_the_bare_uid(self, api: Api, waiting: str) -> None:
        """43 url-safe characters as a JSON string, another each time, that can be polled at once."""
        uids = set()
        for _ in range(10):
            answer = api.call("POST", "/api/tasks/", params={"model_human_readable_id": waiting}, zip=INPUT)
            assert answer.status_code == 200
            assert answer.headers["Content-Type"] == "application/json"
            assert re.fullmatch(r'"[A-Za-z0-9_-]{43}"', answer.text)
            assert api.get(f"/api/tasks/{answer.json()}").status_code == 551
            uids.add(answer.json())
        assert len(uids) == 10

    def test_unknown_parameters_are_ignored(self, api: Api, waiting: str) -> None:
        """Clients of other versions send more."""
        params = {"model_human_readable_id": waiting, "urgency": "9", "status": "1"}
        answer = api.call("POST", "/api/tasks/", params=params, zip=INPUT)
        assert answer.status_code == 200
        assert api.get(f"/api/tasks/{answer.json()}").status_code == 551

    def test_the_parameter_has_a_second_name(self, api: Api, waiting: str) -> None:
        """human_readable_id names the model as well."""
        answer = api.call("POST", "/api/tasks/", params={"human_readable_id": waiting}, zip=INPUT)
        assert answer.status_code == 200

    @pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
    def test_a_raw_body_is_taken(self, api: Api, core: Api, waiting: str, is_chunked: bool) -> None:
        """application/zip without a form, its length known or not."""
        body = iter([INPUT[:100], INPUT[100:]]) if is_chunked else INPUT
        headers = {"Content-Type": "application/zip"}
        params = {"model_human_readable_id": waiting}
        answer = api.call("POST", "/api/tasks/", params=params, headers=headers, data=body)
        assert answer.status_code == 200
        assert core.get(f"/api/tasks/inputs/{answer.json()}").content == INPUT

    def test_other_fields_of_the_form_are_ignored(self, api: Api, core: Api, waiting: str) -> None:
        """Before and after the file, a second file included."""
        url = f"{api.url}/api/tasks/?model_human_readable_id={waiting}"
        files = {"zip_file": ('name with ünicode;".zip', INPUT), "other": ("x", b"\r\n--x--" * 50)}
        answer = api.session.post(url, data={"before": "1"}, files=files, timeout=60)
        assert answer.status_code == 200
        assert core.get(f"/api/tasks/inputs/{answer.json()}").content == INPUT

    def test_an_unknown_model_is_550(self, api: Api) -> None:
        """Version 1's own status, with its word."""
        answer = api.call("POST", "/api/tasks/", params={"model_human_readable_id": "nobody's"}, zip=INPUT)
        assert answer.status_code == 550
        assert answer.json() == {"detail": "ModelNotFound"}

    def test_a_missing_parameter_is_422(self, api: Api) -> None:
        """In FastAPI's shape, which names the parameter."""
        answer = api.call("POST", "/api/tasks/", zip=INPUT)
        assert answer.status_code == 422
        assert answer.json() == {"detail": [{"loc": ["query", "model_human_readable_id"], **MISSING}]}

    @pytest.mark.parametrize("files", [None, {"other": INPUT}], ids=["no body", "another file"])
    def test_a_missing_file_is_422(self, api: Api, waiting: str, files: dict[str, bytes] | None) -> None:
        """In FastAPI's shape, which names the field of the form."""
        url = f"{api.url}/api/tasks/?model_human_readable_id={waiting}"
        answer = api.session.post(url, files=files, timeout=60)
        assert answer.status_code == 422
        assert answer.json() == {"detail": [{"loc": ["body", "zip_file"], **MISSING}]}

    def test_all_that_is_missing_is_named(self, api: Api) -> None:
        """Parameter and file at once; what is missing is said before what is unknown."""
        answer = api.call("POST", "/api/tasks/")
        assert answer.status_code == 422
        assert [fault["loc"] for fault in answer.json()["detail"]] == [
            ["query", "model_human_readable_id"],
            ["body", "zip_file"],
        ]
        assert api.call("POST", "/api/tasks/", params={"model_human_readable_id": "unknown"}).status_code == 422


class TestGet:
    def test_finished_is_200_with_the_zip(self, api: Api, copying: str) -> None:
        """What the model left, as a zip to download."""
        answer = api.wait(api.post(copying, INPUT))
        assert answer.status_code == 200
        assert answer.headers["Content-Type"] == "application/zip"
        assert int(answer.headers["Content-Length"]) == len(answer.content)
        assert answer.headers["Content-Disposition"].startswith("attachment")
        assert files_of(answer.content).items() >= files_of(INPUT).items()

    def test_pending_is_551(self, api: Api, core: Api, waiting: str) -> None:
        """The detail is nested twice, as version 1 has it."""
        uid = api.post(waiting, INPUT)
        answer = api.get(f"/api/tasks/{uid}")
        assert (answer.status_code, answer.json()) == (551, NOT_YET)
        assert core.get(f"/api/tasks/{uid}").json()["status"] == -1

    def test_running_is_551(self, api: Api, core: Api, model: ModelMaker) -> None:
        """Clients can't tell running from pending."""
        uid = api.post(model("sleep 1000"), INPUT)
        eventually(lambda: is_running(core, uid))
        answer = api.get(f"/api/tasks/{uid}")
        assert (answer.status_code, answer.json()) == (551, NOT_YET)

    def test_failed_is_552_and_says_why(self, api: Api, model: ModelMaker) -> None:
        """Version 1's words, and beside them a reason, a message with the log's end, the exit code."""
        answer = api.wait(api.post(model("echo no luck >&2; exit 3"), INPUT))
        assert answer.status_code == 552
        assert set(answer.json()) == {"detail"}
        detail = answer.json()["detail"]
        assert set(detail) == {"detail", "reason", "message", "exit_code"}
        assert detail["detail"] == "Job status is 'failed'"
        assert (detail["reason"], detail["exit_code"]) == ("exit_nonzero", 3)
        assert "no luck" in detail["message"]

    def test_a_lost_output_is_553(self, api: Api, core: Api, stack: Stack, waiting: str) -> None:
        """The task remembers that it finished."""
        uid = api.post(waiting, INPUT)
        assert core.call("POST", f"/api/tasks/outputs/{uid}", zip=INPUT).status_code == 200
        blob = core.get(f"/api/tasks/{uid}").json()["output_zip"]
        with redis_at(stack.redis_url) as redis:
            assert redis.delete(keys.blob(blob), keys.chunk(blob, 0)) == 2
        answer = api.get(f"/api/tasks/{uid}")
        assert (answer.status_code, answer.json()) == (553, GONE)

    def test_finished_without_output_is_553(self, api: Api, core: Api, waiting: str) -> None:
        """A consumer of version 1 may set a task finished and never post its output."""
        uid = api.post(waiting, INPUT)
        assert core.call("PUT", "/api/tasks/", params={"uid": uid, "status": "1"}).status_code == 200
        answer = api.get(f"/api/tasks/{uid}")
        assert (answer.status_code, answer.json()) == (553, GONE)

    @pytest.mark.parametrize("method", ["GET", "DELETE"])
    @pytest.mark.parametrize("uid", [UNKNOWN, "x", "..", "%2e%2e", "a b", "ü", "a" * 5000])
    def test_unknown_is_554(self, api: Api, method: str, uid: str) -> None:
        """Whatever it looks like, unless it isn't a path at all."""
        answer = api.call(method, f"/api/tasks/{uid}")
        if ".." in unquote(uid):
            assert answer.status_code in (307, 404, 405, 554)  # clients and servers may resolve it
        else:
            assert (answer.status_code, answer.json()) == (554, NOT_FOUND)


class TestDelete:
    def test_pending_is_withdrawn(self, api: Api, waiting: str) -> None:
        """200 with the task as it was; afterwards nobody knows it."""
        uid = api.post(waiting, INPUT)
        answer = api.delete(uid)
        assert answer.status_code == 200
        assert (answer.json()["uid"], answer.json()["status"]) == (uid, -1)
        assert (api.get(f"/api/tasks/{uid}").status_code, api.delete(uid).status_code) == (554, 554)

    def test_running_is_cancelled(self, api: Api, core: Api, stack: Stack, model: ModelMaker) -> None:
        """The container is gone within seconds, and the agent is free for the next task."""
        uid = api.post(model("sleep 1000"), INPUT)

        def containers() -> str:
            return docker(stack.docker_host, "ps", "--all", "--quiet", "--filter", f"label={TASK}={uid}")

        eventually(containers)
        answer = api.delete(uid)
        assert (answer.status_code, answer.json()["status"]) == (200, 2)
        assert api.get(f"/api/tasks/{uid}").status_code == 554
        eventually(lambda: not containers(), within_seconds=15)

    def test_finished_is_removed_with_its_output(self, api: Api, copying: str) -> None:
        """200 with the task; afterwards 554."""
        uid = api.post(copying, INPUT)
        assert api.wait(uid).status_code == 200
        answer = api.delete(uid)
        assert (answer.status_code, answer.json()["status"]) == (200, 1)
        assert api.get(f"/api/tasks/{uid}").status_code == 554


class TestModels:
    def test_every_model_is_listed_with_version_1s_fields(self, api: Api, copying: str, waiting: str) -> None:
        """In the list are all that are registered."""
        answer = api.get("/api/models/")
        assert answer.status_code == 200
        models = {model["human_readable_id"]: model for model in answer.json()}
        assert models.keys() >= {copying, waiting}
        assert all(model.keys() >= MODEL_FIELDS for model in models.values())

    def test_defaults(self, api: Api, request: pytest.FixtureRequest) -> None:
        """A model uses a GPU and has no zip unless it says so."""
        params = {"container_tag": "registry.example:5000/a/b:1", "human_readable_id": name(request)}
        answer = api.call("POST", "/api/models/", params=params)
        assert answer.status_code == 200
        model = answer.json()
        assert model.keys() >= MODEL_FIELDS | {"id", "model_zip"}
        assert (model["use_gpu"], model["model_available"]) == (True, False)
        assert (model["model_zip"], model["model_volume_id"]) == (None, None)
        assert model["container_tag"] == "registry.example:5000/a/b:1"

    @pytest.mark.parametrize("path", ["/api/models/", "/api/tasks/"])
    def test_a_model_is_registered_at_either_path(self, api: Api, request: pytest.FixtureRequest, path: str) -> None:
        """Version 1's documentation names the wrong one. Parameters that only operators have are ignored."""
        params = {"container_tag": "x", "human_readable_id": name(request), "description": "Ünï & more"}
        answer = api.call("POST", path, params={**params, "network": "true", "timeout_seconds": "1", "foo": "bar"})
        assert answer.status_code == 200
        assert answer.json()["description"] == "Ünï & more"
        assert (answer.json()["network"], answer.json()["timeout_seconds"]) == (False, 24 * 3600)

    @pytest.mark.parametrize("spelled", ["true", "True", "TRUE", "1", "on", "On", "yes", "YES"])
    @pytest.mark.parametrize("field", ["use_gpu", "model_available"])
    def test_true_is_spelled_in_many_ways(
        self, api: Api, request: pytest.FixtureRequest, field: str, spelled: str
    ) -> None:
        """Any case."""
        params = {"container_tag": "x", "human_readable_id": name(request), field: spelled}
        zip = INPUT if field == "model_available" else None
        answer = api.call("POST", "/api/models/", params=params, zip=zip)
        assert answer.status_code == 200
        assert answer.json()[field] is True

    @pytest.mark.parametrize("spelled", ["false", "False", "FALSE", "0", "off", "Off", "no", "NO"])
    def test_false_is_spelled_in_many_ways(self, api: Api, request: pytest.FixtureRequest, spelled: str) -> None:
        """Any case."""
        params = {"container_tag": "x", "human_readable_id": name(request), "use_gpu": spelled}
        answer = api.call("POST", "/api/models/", params=params)
        assert answer.status_code == 200
        assert answer.json()["use_gpu"] is False

    @pytest.mark.parametrize(
        ("parameters", "missing"),
        [
            ({"container_tag": "x"}, "human_readable_id"),
            ({"human_readable_id": "x"}, "container_tag"),
        ],
    )
    def test_a_missing_parameter_is_422(self, api: Api, parameters: dict[str, str], missing: str) -> None:
        """In FastAPI's shape."""
        answer = api.call("POST", "/api/models/", params=parameters)
        assert answer.status_code == 422
        assert answer.json() == {"detail": [{"loc": ["query", missing], **MISSING}]}

    def test_what_is_neither_true_nor_false_is_422(self, api: Api) -> None:
        """The parameter is named."""
        params = {"container_tag": "x", "human_readable_id": "x", "use_gpu": "perhaps"}
        answer = api.call("POST", "/api/models/", params=params)
        assert answer.status_code == 422
        assert [fault["loc"] for fault in answer.json()["detail"]] == [["query", "use_gpu"]]

    def test_a_taken_name_is_409(self, api: Api, copying: str) -> None:
        """The registered model stays as it was."""
        answer = api.call("POST", "/api/models/", params={"container_tag": "another", "human_readable_id": copying})
        assert answer.status_code == 409
        [model] = [model for model in api.get("/api/models/").json() if model["human_readable_id"] == copying]
        assert model["container_tag"] != "another"

    @pytest.mark.parametrize(("flag", "zip"), [("true", None), ("false", INPUT)])
    def test_a_zip_and_a_flag_that_contradict_are_422(
        self, api: Api, request: pytest.FixtureRequest, flag: str, zip: bytes | None
    ) -> None:
        """A flag without a zip, or a zip without the flag: nothing is registered."""
        params = {"container_tag": "x", "human_readable_id": name(request), "model_available": flag}
        answer = api.call("POST", "/api/models/", params=params, zip=zip)
        assert answer.status_code == 422
        assert name(request) not in {model["human_readable_id"] for model in api.get("/api/models/").json()}

    def test_a_zip_is_mounted_and_kept(self, api: Api, stack: Stack, images: Images) -> None:
        """/model is read-only, and filled once: the next task finds what the first had."""
        tag = images.running("touch /model/mine 2>/dev/null && exit 9; cp -R /model/. /output/")
        params = {"container_tag": tag, "human_readable_id": "with-zip", "use_gpu": "off", "model_available": "on"}
        weights = zip_of({"weights/a.bin": b"\0" * 1000, "empty/": b""})
        registered = api.call("POST", "/api/models/", params=params, zip=weights).json()
        assert registered["model_zip"]
        assert registered["model_volume_id"]

        assert files_of(api.output("with-zip", INPUT)).keys() == {"weights/", "weights/a.bin", "empty/"}
        docker(stack.docker_host, "volume", "inspect", registered["model_volume_id"])
        (stack.folder / "work" / "models" / registered["model_zip"] / "kept").touch()
        assert "kept" in files_of(api.output("with-zip", INPUT))


@pytest.fixture
def strict_api(stack: Stack, tmp_path: Path) -> Iterator[Api]:
    """A gateway beside the stack's whose operator registers all models."""
    settings = {"CORE_URL": stack.core_url, "CORE_TOKEN_FILE": str(stack.token_file), "ALLOW_PUBLIC_POST_MODEL": ""}
    gateway = Stack(
        tmp_path,
        Ports.free(),
        settings=settings,
        certificates=stack.certificates.folder,
        only=["gateway"],
    )
    gateway.up()
    api = Api.public(gateway.gateway_url, stack.certificates.ca_cert)
    with api.session:
        yield api
    gateway.down()
    gateway.delete()


def test_the_public_registers_models_only_where_the_operator_lets_it(strict_api: Api) -> None:
    """403 at either path; everything else works as ever."""
    params = {"container_tag": "x", "human_readable_id": "sneaked-in"}
    for path in ("/api/models/", "/api/tasks/"):
        answer = strict_api.call("POST", path, params=params, zip=INPUT)
        assert answer.status_code == 403
        assert answer.json().keys() == {"detail"}
    assert "sneaked-in" not in {model["human_readable_id"] for model in strict_api.get("/api/models/").json()}


def test_the_documentation_is_there(api: Api) -> None:
    """A page that loads nothing from elsewhere, and the description of the calls for machines."""
    page = api.get("/docs")
    assert (page.status_code, page.headers["Content-Type"].split(";")[0]) == (200, "text/html")
    assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", page.text)
    assert page.headers["Content-Security-Policy"].startswith("default-src 'self'; ")
    for name in re.findall(r'(?:href|src)="(/[^"]+)"', page.text):
        assert api.get(name).status_code == 200
    described = api.get("/openapi.json").json()
    assert described["openapi"].startswith("3.")
    assert described["paths"].keys() >= {"/api/tasks/", "/api/tasks/{uid}", "/api/models/"}


def test_a_browser_gets_the_web_page(api: Api) -> None:
    """Who accepts HTML gets HTML, everybody else the JSON greeting; the page loads nothing from elsewhere."""
    answer = api.get("/", Accept="text/html,application/xhtml+xml;q=0.9,*/*;q=0.8")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self';")
    assert "http" not in answer.text
    for name in re.findall(r'(?:href|src)="(/[^"]+)"', answer.text):
        assert api.get(name).status_code == 200
