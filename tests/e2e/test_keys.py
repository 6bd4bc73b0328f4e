"""API keys, on a core and a gateway that require them, beside the stack's."""

import base64
import re
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from inference_client import NotAllowed

from core.access import RIGHTS
from core.contract.http import CLIENT_ADDRESS, CLIENT_AUTHORIZATION
from core.contract.key import Scope
from core.openapi.document import document
from core.openapi.operation import At
from core.tus import RESUMABLE, VERSION
from demo.stack import Stack
from deploy.keys import Core, main
from tests.direct import keys_in, redis_at
from tests.e2e import gateways
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT
from tests.e2e.guarded import Guarded
from tests.e2e.test_metrics import figures_of, of
from tests.leaks import Leaks
from tests.waiting import eventually

REFUSED = 401
NOT_THERE = (404, 554)
UNKNOWN = "A" * 43
TUS = {RESUMABLE: VERSION}
BYTES = TUS | {"Content-Type": "application/offset+octet-stream"}
HALF = len(INPUT) // 2


@pytest.fixture(scope="module")
def keys(guarded: Guarded) -> dict[str, str]:
    """One of each kind, by what there is to say of it."""
    made = {scope.value: guarded.make(scope) for scope in Scope}
    made |= {kind: guarded.make(Scope.SUBMIT, Scope.MODELS) for kind in ("another", "revoked")}
    made["expired"] = guarded.make(Scope.ADMIN, expires_days=1e-9)
    guarded.revoke(made["revoked"]["id"])
    found = {kind: key["key"] for kind, key in made.items()}
    some = found["submit"]
    return found | {
        "unknown": some.replace(made["submit"]["id"], "0" * 12),
        "wrong": some[:-4] + ("AAAA" if some[-4:] != "AAAA" else "BBBB"),
        "malformed": some[:-1],
        "token": str(guarded.operator.session.headers["Authorization"]).removeprefix("Bearer "),
    }


@dataclass(frozen=True)
class Case:
    """How a row of the table is met through the gateway. `make`, with the owner's key, what `call` is then for."""

    call: Callable[[Api, str], requests.Response]
    status: int
    make: Callable[[Api, str], str] = lambda *_: UNKNOWN


def _post(api: Api, model: str) -> str:
    return api.post(model, INPUT)


def _cancelled(api: Api, model: str) -> str:
    uid = api.post(model, INPUT)
    assert api.call("POST", f"/api/tasks/{uid}/cancel").status_code == 200
    return uid


def _upload(api: Api, model: str) -> str:
    headers = TUS | {"Upload-Length": str(len(INPUT))}
    answer = api.call("POST", "/api/uploads/", params={"model_human_readable_id": model}, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"].rpartition("/")[2]


@pytest.fixture(autouse=True)
def _no_uploads(leaks: Leaks, stack: Stack, core: Api) -> Iterator[None]:
    """Those that a test leaves unfinished are given up."""
    yield
    with redis_at(stack.redis_url) as redis:
        for name in keys_in(redis, "upload:*"):
            core.call("DELETE", f"/api/uploads/{name[len('upload:{') : -1]}", headers=TUS)


def _calls(method: str, path: str, **how: Any) -> Callable[[Api, str], requests.Response]:
    return lambda api, uid: api.call(method, path.format(uid=uid), **how)


def _sends(method: str, path: str, **how: Any) -> Callable[[Api, str], requests.Response]:
    """In pieces, so that the gateway asks core before it passes them on."""
    return lambda api, uid: api.call(method, path.format(uid=uid), data=iter([INPUT[:HALF], INPUT[HALF:]]), **how)


MODEL = "nothing"
TO_MODEL = {"model_human_readable_id": MODEL}
NEW_MODEL = {"container_tag": "x"}
CASES = {
    ("GET", "/api/admission"): Case(_sends("POST", "/api/tasks/", params=TO_MODEL), 550),
    ("POST", "/api/tasks/"): Case(_calls("POST", "/api/tasks/", params=TO_MODEL, zip=INPUT), 550),
    ("PUT", "/api/tasks/<uid>"): Case(_calls("PUT", f"/api/tasks/{UNKNOWN}", params=TO_MODEL, zip=INPUT), 404),
    ("GET", "/api/tasks/outputs/<uid>"): Case(_calls("GET", "/api/tasks/{uid}"), 551, _post),
    ("GET", "/api/tasks/<uid>/status"): Case(_calls("GET", "/api/tasks/{uid}/status"), 200, _post),
    ("GET", "/api/tasks/<uid>/events"): Case(_calls("HEAD", "/api/tasks/{uid}/events"), 200, _post),
    ("GET", "/api/tasks/<uid>/log"): Case(_calls("GET", "/api/tasks/{uid}/log"), 200, _post),
    ("POST", "/api/tasks/<uid>/cancel"): Case(_calls("POST", "/api/tasks/{uid}/cancel"), 200, _post),
    ("POST", "/api/tasks/<uid>/retry"): Case(_calls("POST", "/api/tasks/{uid}/retry"), 200, _cancelled),
    ("DELETE", "/api/tasks/<uid>"): Case(_calls("DELETE", "/api/tasks/{uid}"), 200, _post),
    ("OPTIONS", "/api/uploads/"): Case(_calls("OPTIONS", "/api/uploads/"), 204),
    ("POST", "/api/uploads/"): Case(
        _calls("POST", "/api/uploads/", params=TO_MODEL, headers=TUS | {"Upload-Length": "9"}), 404
    ),
    ("GET", "/api/uploads/<uid>/admission"): Case(
        _sends("PATCH", "/api/uploads/{uid}", headers=BYTES | {"Upload-Offset": "0"}), 204, _upload
    ),
    ("HEAD", "/api/uploads/<uid>"): Case(_calls("HEAD", "/api/uploads/{uid}", headers=TUS), 200, _upload),
    ("PATCH", "/api/uploads/<uid>"): Case(
        _calls("PATCH", "/api/uploads/{uid}", headers=BYTES | {"Upload-Offset": "0"}, data=INPUT), 204, _upload
    ),
    ("DELETE", "/api/uploads/<uid>"): Case(_calls("DELETE", "/api/uploads/{uid}", headers=TUS), 204, _upload),
    ("GET", "/api/models/"): Case(_calls("GET", "/api/models/"), 200),
    ("GET", "/api/models/<uid>"): Case(_calls("GET", f"/api/models/{UNKNOWN}"), 404),
    ("POST", "/api/models/"): Case(_calls("POST", "/api/models/", params=NEW_MODEL), 422),
}


def test_each_row_of_the_table_is_tried() -> None:
    assert CASES.keys() == RIGHTS.keys()


@pytest.mark.parametrize("row", CASES, ids=" ".join)
def test_what_a_key_opens(guarded: Guarded, keys: dict[str, str], waiting: str, row: tuple[str, str]) -> None:
    """Without a good key nothing; of another scope it is forbidden; what is another's isn't there."""
    case, right = CASES[row], RIGHTS[row]
    owner, answers = guarded.with_key(keys["submit"]), {}
    made = [case.make(owner, waiting) for _ in right.scopes]
    for kind in ("unknown", "wrong", "malformed", "revoked", "expired", "token", None):
        answer = case.call(guarded.with_key(keys[kind] if kind else None), made[0])
        answers[kind] = answer.status_code
        assert answer.headers.get("WWW-Authenticate", "").startswith('Basic realm="'), kind
    assert set(answers.values()) == {REFUSED}, answers
    for scope in Scope:
        if scope not in right.scopes:
            assert case.call(guarded.with_key(keys[scope]), made[0]).status_code == 403, scope
    if right.is_own:
        another = guarded.with_key(keys["another"])
        assert case.call(another, made[0]).status_code == case.call(another, UNKNOWN).status_code
        assert case.call(another, made[0]).status_code in NOT_THERE
    for scope, uid in zip(right.scopes, made, strict=True):
        answer = case.call(guarded.with_key(keys[scope]), uid)
        assert answer.status_code == case.status, (scope, answer.text)


def test_what_isnt_in_the_table_is_for_no_client(guarded: Guarded, core: Api, keys: dict[str, str]) -> None:
    """With whatever key, or while none are required: what core offers beyond it is for operators and agents."""
    open_paths = {"/", "/healthz", "/readyz"}
    beyond = 0
    for path, methods in document("", At.CORE)["paths"].items():
        rule = re.sub(r"{(\w+)}", r"<\1>", path).replace("<attempt>", "<int:attempt>")
        for method in methods:
            if (method.upper(), rule) in RIGHTS or path in open_paths or path == "/api/uploads/{uid}":
                continue
            path_here = path.format(uid=UNKNOWN, attempt=1, human_readable_id="x", id="0" * 12)
            for api, offered in ((guarded.operator, keys["admin"]), (guarded.operator, keys["submit"]), (core, "")):
                headers = {CLIENT_AUTHORIZATION: f"Bearer {offered}", CLIENT_ADDRESS: "192.0.2.7"}
                answer = api.call(method.upper(), path_here, headers=headers)
                assert answer.status_code == 403, (method, path, offered)
            beyond += 1
    assert beyond > 20


def test_who_waits_at_core_with_a_key_that_is_revoked_hears_nothing(guarded: Guarded, waiting: str) -> None:
    """Neither how its task ended, nor soon of any other's end."""
    made = guarded.make(Scope.ADMIN)
    api = Api.private(guarded.core_url, made["key"])
    uids = [guarded.operator.post(waiting, INPUT) for _ in range(2)]
    paths = [f"/api/tasks/{uids[0]}/status", f"/api/tasks/outputs/{uids[1]}"]

    def in_flight() -> float:
        return of(figures_of(guarded.operator.get("/metrics").text), "http_requests_in_flight")

    others = in_flight()
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(api.call, "GET", path, params={"wait": "60"}) for path in paths]
        answers.append(pool.submit(api.get, "/api/tasks/ended"))
        eventually(lambda: in_flight() >= others + len(answers))
        guarded.revoke(made["id"])
        for uid in uids:
            guarded.operator.call("POST", f"/api/tasks/{uid}/cancel").raise_for_status()
        *waited, ended = [answer.result() for answer in answers]
    assert [answer.status_code for answer in waited] == [REFUSED] * len(paths)
    assert ended.status_code == 200


def test_an_admins_key_opens_core(guarded: Guarded, keys: dict[str, str]) -> None:
    """In place of core's token, all of it; others' keys open there what they do at a gateway."""
    found = {}
    for kind in ("admin", "submit", "models", "expired", "wrong"):
        api = Api.private(guarded.core_url, keys[kind])
        paths = ("/api/agents/", "/api/models/", f"/api/models/{UNKNOWN}", "/api/tasks/")
        found[kind] = [api.get(path).status_code for path in paths]
    assert found == {
        "admin": [200, 200, 550, 200],
        "submit": [403, 200, 550, 403],
        "models": [403, 200, 550, 403],
        "expired": [401] * 4,
        "wrong": [401] * 4,
    }


def test_a_gateway_opens_core_with_the_token_only(guarded: Guarded, keys: dict[str, str]) -> None:
    """With an admin's key in its place it would open everything to its clients."""
    api = Api.private(guarded.core_url, keys["admin"])
    assert (
        api.call("GET", "/api/models/", headers={CLIENT_AUTHORIZATION: f"Bearer {keys['submit']}"}).status_code == 401
    )


def test_keys_open_nothing_where_they_arent_required(api: Api, core: Api, stack: Stack, keys: dict[str, str]) -> None:
    """Not core either; a client that sends one nevertheless is served as everybody."""
    assert Api.private(stack.core_url, keys["admin"]).get("/api/agents/").status_code == 401
    with_key = {"Authorization": f"Bearer {keys['wrong']}"}
    assert api.call("GET", "/api/models/", headers=with_key).status_code == 200
    params = {"container_tag": "x", "human_readable_id": "of-anybody", "network": "true"}
    made = api.call("POST", "/api/models/", params=params, headers=with_key)
    assert made.status_code == 200, made.text
    core.call("DELETE", f"/api/models/{made.json()['uid']}").raise_for_status()
    assert made.json()["network"] is False


def test_the_password_may_be_the_key(guarded: Guarded, keys: dict[str, str]) -> None:
    """So a browser asks for it by itself, and sends it with everything."""
    api = guarded.with_key(None)
    offered = base64.b64encode(f"anybody:{keys['submit']}".encode()).decode()
    assert api.get("/api/models/", Authorization=f"Basic {offered}").status_code == 200


@pytest.mark.parametrize("header", [CLIENT_AUTHORIZATION, CLIENT_AUTHORIZATION.title()])
def test_clients_dont_speak_for_gateways(guarded: Guarded, keys: dict[str, str], header: str) -> None:
    """What a gateway says of a client, a client can't say of itself."""
    answer = guarded.with_key(None).call("GET", "/api/models/", headers={header: f"Bearer {keys['admin']}"})
    assert answer.status_code == REFUSED


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "null"])
def test_other_sites_cant_use_a_browsers_key(guarded: Guarded, keys: dict[str, str], waiting: str, origin: str) -> None:
    """It sends the key along with their forms, and says whose they are."""
    owner = guarded.with_key(keys["submit"])
    uid = owner.post(waiting, INPUT)
    assert owner.call("POST", f"/api/tasks/{uid}/cancel", headers={"Origin": origin}).status_code == 403
    assert owner.call("GET", f"/api/tasks/{uid}/status", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert owner.call("POST", f"/api/tasks/{uid}/cancel", headers={"Origin": guarded.gateway.url}).status_code == 200


def test_a_revoked_key_is_out_at_once(guarded: Guarded, waiting: str) -> None:
    """Also for who waits for a task's end, and its tasks are left to admins."""
    made = guarded.make(Scope.SUBMIT)
    api = guarded.with_key(made["key"])
    uid = api.post(waiting, INPUT)
    assert api.get(f"/api/tasks/{uid}").status_code == 551
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(api.get, f"/api/tasks/{uid}?wait=60")
        guarded.revoke(made["id"])
        answer = api.get(f"/api/tasks/{uid}")
        assert (answer.status_code, "was revoked" in answer.json()["detail"]) == (401, True)
        guarded.operator.call("POST", f"/api/tasks/{uid}/cancel").raise_for_status()
        assert waits.result().status_code == 401
    assert guarded.operator.get(f"/api/tasks/{uid}").json()["owner"] == made["id"]


def test_who_uses_a_revoked_key_is_known(guarded: Guarded) -> None:
    """From an address of his own: of one only a few refusals a minute are entered."""
    made = guarded.make(Scope.SUBMIT)
    guarded.revoke(made["id"])
    headers = {CLIENT_AUTHORIZATION: f"Bearer {made['key']}", CLIENT_ADDRESS: "198.51.100.7"}
    assert guarded.operator.call("GET", "/api/models/", headers=headers).status_code == 401

    def refused() -> list[str]:
        entries = guarded.operator.get(f"/api/audit/?key={made['id']}").json()
        return [entry["who"] for entry in entries if entry["action"] == "access.refused"]

    assert eventually(refused) == [made["name"]]


def test_the_same_words_of_two_keys_are_two_tasks(guarded: Guarded, keys: dict[str, str], waiting: str) -> None:
    """An Idempotency-Key is its API key's own; a chosen uid is who took it first."""
    first, second = (guarded.with_key(keys[kind]) for kind in ("submit", "another"))
    once = {"headers": {"Idempotency-Key": secrets.token_hex()}, "zip": INPUT}
    posted = [
        api.call("POST", "/api/tasks/", params={"model_human_readable_id": waiting}, **once).json()  # type: ignore[arg-type]
        for api in (first, first, second)
    ]
    assert posted[0] == posted[1] != posted[2]
    uid = secrets.token_urlsafe(32)
    put = [
        api.call("PUT", f"/api/tasks/{uid}", params={"model_human_readable_id": waiting}, zip=INPUT).status_code
        for api in (first, first, second)
    ]
    assert put == [201, 200, 409]


def test_tasks_from_before_are_the_admins(api: Api, guarded: Guarded, keys: dict[str, str], waiting: str) -> None:
    """What was posted while no keys were required is nobody's. Where they aren't any more, a uid is enough again."""
    before = api.post(waiting, INPUT)
    asked = [guarded.with_key(keys[kind]).get(f"/api/tasks/{before}").status_code for kind in ("submit", "admin")]
    assert asked == [554, 551]
    own = guarded.with_key(keys["submit"]).post(waiting, INPUT)
    assert api.get(f"/api/tasks/{own}").status_code == 551


def test_limits_of_models_are_the_admins(guarded: Guarded, core: Api, keys: dict[str, str]) -> None:
    """A key for models registers them, also where the gateway lets nobody do so, and gives no privileges."""
    found = {}
    for kind in ("models", "admin"):
        params = {"container_tag": "x", "human_readable_id": f"of-{kind}", "network": "true", "timeout_seconds": "7"}
        answer = guarded.with_key(keys[kind]).call("POST", "/api/models/", params=params)
        assert answer.status_code == 200, answer.text
        found[kind] = (answer.json()["network"], answer.json()["timeout_seconds"])
        core.call("DELETE", f"/api/models/{answer.json()['uid']}").raise_for_status()
    assert found == {"models": (False, 24 * 3600), "admin": (True, 7)}


def test_posts_are_counted(guarded: Guarded, waiting: str) -> None:
    """Until they are used up; then it is said when there will be another, and nothing else is refused."""
    api = guarded.with_key(guarded.make(Scope.SUBMIT, posts_per_minute=1)["key"])
    uid = api.post(waiting, INPUT)
    for answer in (
        api.call("POST", "/api/tasks/", params={"model_human_readable_id": waiting}, zip=INPUT),
        _sends("POST", "/api/tasks/", params={"model_human_readable_id": waiting})(api, ""),
        api.call("PUT", f"/api/tasks/{UNKNOWN}", params={"model_human_readable_id": waiting}, zip=INPUT),
    ):
        assert answer.status_code == 429
        assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert api.get(f"/api/tasks/{uid}/status").status_code == 200


def test_living_tasks_are_counted(guarded: Guarded, waiting: str) -> None:
    """Those that have ended aren't, nor what was refused; a task that is tried again is, and one that is uploaded."""
    made = guarded.make(Scope.SUBMIT, tasks_at_once=2)
    api = guarded.with_key(made["key"])
    to_model = {"model_human_readable_id": waiting}
    for broken in (b"", b"no zip", INPUT[:-9]):
        assert api.call("POST", "/api/tasks/", params=to_model, data=broken).status_code in (400, 422)
    first, second = api.post(waiting, INPUT), api.post(waiting, INPUT)

    def full(answer: requests.Response) -> bool:
        return answer.status_code == 429 and int(answer.headers["Retry-After"]) > 0

    upload = _upload(api, waiting)
    append = _calls("PATCH", f"/api/uploads/{upload}", headers=BYTES | {"Upload-Offset": "0"}, data=INPUT)
    assert full(api.call("POST", "/api/tasks/", params=to_model, zip=INPUT))
    assert full(append(api, ""))
    api.call("POST", f"/api/tasks/{first}/cancel").raise_for_status()
    eventually(lambda: append(api, "").status_code == 204)
    assert full(api.call("POST", f"/api/tasks/{first}/retry"))
    shown = {key["id"]: key for key in guarded.operator.get("/api/keys/").json()}[made["id"]]
    assert (shown["living_tasks"], shown["last_used"][:4]) == (2, shown["created"][:4])
    api.delete(second)
    eventually(lambda: api.call("POST", f"/api/tasks/{first}/retry").status_code == 200)
    guarded.revoke(made["id"])


def test_operators_at_a_gateway(
    guarded: Guarded, stack: Stack, keys: dict[str, str], core: Api, waiting: str, tmp_path: Path
) -> None:
    """Only where it allows them, and only with an admin's key: core's token isn't for it."""
    path = f"/api/models/{core.get(f'/api/models/human_readable_id/{waiting}').json()['uid']}"
    calls = [("GET", f"/api/{part}") for part in ("tasks/", "keys/", "audit/", "overview")]
    calls.append(("PATCH", f"{path}?enabled=true"))
    with gateways.gateway(
        stack, tmp_path, CORE_URL=guarded.core_url, GATEWAY_WORKERS="1", ALLOW_OPERATORS="yes"
    ) as its:
        apis = {kind: Api.public(its.url, its.ca_cert) for kind in ("admin", "submit", "token", "expired")}
        for kind, api in apis.items():
            api.session.headers["Authorization"] = f"Bearer {keys[kind]}"
        statuses = {kind: [api.call(*call).status_code for call in calls] for kind, api in apis.items()}
        made = apis["admin"].call("POST", "/api/keys/?name=of%20a%20test")
        assert made.status_code == 201
        assert apis["admin"].call("DELETE", f"/api/keys/{made.json()['id']}").status_code == 200
        assert apis["admin"].call("DELETE", "/api/keys/%2e%2e").status_code == 404
    expected = {"admin": 200, "submit": 403, "token": 401, "expired": 401}
    assert statuses == {kind: [status] * len(calls) for kind, status in expected.items()}
    assert {guarded.with_key(keys["admin"]).call(*call).status_code for call in calls} == {404, 405}


def test_a_key_is_shown_once(guarded: Guarded, keys: dict[str, str]) -> None:
    """Neither lists nor logs have it, nor what was offered instead."""
    offered = {key for kind, key in keys.items() if kind != "token"}
    listed = guarded.operator.get("/api/keys/").text
    logged = "".join(file.read_text() for file in guarded.logs.glob("*.log"))
    assert "key.made" in logged
    assert not [key for key in offered if key in listed + logged or key[-20:] in listed + logged]


@pytest.mark.parametrize(
    "query", ["", "name=", "name=a%0Ab", "name=x&scope=all", "name=x&expires_days=0", "name=x&posts_per_minute=0"]
)
def test_what_no_key_can_be(core: Api, query: str) -> None:
    answer = core.call("POST", f"/api/keys/?{query}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")


@pytest.mark.parametrize("id", ["0" * 12, f"isk_{'0' * 12}_{'s' * 43}", "isk_"])
def test_a_key_that_isnt_there_isnt_revoked(core: Api, id: str) -> None:
    assert core.call("DELETE", f"/api/keys/{id}").status_code == 404


def test_just_keys(guarded: Guarded, stack: Stack, capfd: pytest.CaptureFixture[str]) -> None:
    """Makes, lists and revokes; only the key itself is on stdout when one is made, and it works."""

    def typed(*words: str) -> tuple[int, str, str]:
        return main(words, lambda: Core(stack.core_url, stack.token_file)), *capfd.readouterr()

    name = f"of {secrets.token_hex(4)}"
    code, key, said = typed("make", name, "--scope", "submit", "--scope", "models", "--tasks-at-once", "5")
    assert (code, "submit,models" in said, "0 of 5 tasks" in said) == (0, True, True)
    assert guarded.with_key(key.strip()).get("/api/models/").status_code == 200
    _, listed, _ = typed("list")
    [line] = [line for line in listed.splitlines() if name in line]
    assert "used 2" in line
    assert typed("revoke", key)[0] == 0
    assert typed("revoke", line.split()[0])[0] == 0
    assert guarded.with_key(key.strip()).get("/api/models/").status_code == 401
    assert typed("revoke", "0" * 12)[::2] == (1, "There is no key of this id\n")
    assert typed("revoke", "isk_")[::2] == (1, "This is no key's id: just keys list shows them\n")


def test_what_the_client_says(guarded: Guarded, keys: dict[str, str], waiting: str) -> None:
    """Where a key goes, why one isn't good, and what it isn't for."""
    said = {}
    for kind in (None, "wrong", "expired", "models"):
        with guarded.client(keys[kind] if kind else None) as client, pytest.raises(NotAllowed) as refused:
            client.submit(waiting, INPUT)
        said[kind] = str(refused.value)
    assert "operators make keys" in said[None]
    assert "INFER_KEY" in said[None]
    assert "look whether it is whole" in said["wrong"]
    assert "has expired" in said["expired"]
    assert "This key is for models" in said["models"]


def test_the_client_waits_until_it_may(guarded: Guarded, waiting: str, caplog: pytest.LogCaptureFixture) -> None:
    """As it does when the server is away for a moment."""
    key = guarded.make(Scope.SUBMIT, tasks_at_once=1)["key"]
    with guarded.client(key) as client, guarded.client(key) as another, ThreadPoolExecutor() as pool:
        first = client.submit(waiting, INPUT)
        second = pool.submit(another.submit, waiting, INPUT)
        eventually(lambda: "limit of tasks at once" in caplog.text)
        client.cancel(first.uid)
        assert second.result().state == "pending"
