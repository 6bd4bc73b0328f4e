"""Requests as no browser sends them: too much of everything, ways out of the public list, words for those inside."""

import json
import re
import secrets
from urllib.parse import quote

import pytest
import requests

from demo.stack import Stack
from tests.attacks.wire import Door, request
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT

MODELS = "/api/models/"
UPGRADE = (b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
WEBSOCKET = (
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
)

FLOODS = {
    "a long path": request("GET", "/" + "a" * 300_000),
    "a long query": request("GET", f"{MODELS}?{'a&' * 150_000}"),
    "a long method": request("A" * 300_000, MODELS),
    "a long header": request("GET", MODELS, b"X-Any: " + b"a" * 300_000),
    "a long name": request("GET", MODELS, b"a" * 300_000 + b": any"),
    "60,000 headers": request("GET", MODELS, *[b"a:"] * 60_000),
    "1,000 headers": request("GET", MODELS, *[b"a:"] * 1000),
    "a cookie of 64 KB": request("GET", MODELS, b"Cookie: " + b"a" * 65_536),
}


@pytest.mark.parametrize("data", FLOODS.values(), ids=FLOODS)
def test_a_head_has_its_bounds(door: Door, data: bytes) -> None:
    """It is refused while it comes, and not when all of it is there."""
    with door.opened() as wire:
        wire.send(data)
        assert wire.answer().status == 431
        assert wire.ends()


def test_many_parameters_are_read_once(door: Door) -> None:
    """As many as a head holds."""
    answer = door.ask(request("POST", f"/api/tasks/?{'label=a&' * 1900}", b"Content-Length: 0"))
    assert answer.status == 422


@pytest.mark.parametrize("value", [b"h2c", b"h2c\r\nUpgrade: h2c"])
def test_nobody_is_taken_to_another_protocol(door: Door, value: bytes) -> None:
    """A request that goes along with an upgrade would be checked by nobody."""
    answer = door.ask(request("GET", MODELS, *UPGRADE, b"Upgrade: " + value))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")


@pytest.mark.parametrize("path", ["/", MODELS, "/api/tasks/ended", "/nothing"])
def test_there_are_no_websockets(door: Door, path: str) -> None:
    with door.opened() as wire:
        wire.send(request("GET", path, *WEBSOCKET))
        assert wire.answer().status in (400, 404, 405)
        assert wire.ends()


@pytest.mark.parametrize(
    "data",
    [
        b"CONNECT 127.0.0.1:6379 HTTP/1.1\r\nHost: 127.0.0.1:6379\r\n\r\n",
        b"GET http://127.0.0.1:6379/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET //127.0.0.1:6379/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=["CONNECT", "absolute", "two slashes", "asterisk"],
)
def test_it_is_no_proxy(door: Door, data: bytes) -> None:
    """To wherever: neither a tunnel nor a redirect."""
    answer = door.ask(data)
    assert answer.status == 404
    assert "location" not in answer.headers


@pytest.mark.parametrize("method", ["TRACE", "TRACK", "PROPFIND", "get", "A" * 200])
def test_other_methods_are_refused(door: Door, method: str) -> None:
    """And nothing of the request comes back."""
    answer = door.ask(request(method, "/", b"X-Any: secret"))
    assert answer.status == 405 or (method == "get" and answer.status == 200)
    assert b"secret" not in answer.body


PRIVATE = ("/metrics", "/api/tasks/", "/api/tasks/outcomes", "/api/tasks/ended", "/api/agents/", "/api/gateways/")
PRIVATE_OF_ONE = ("/api/tasks/inputs/{}", "/api/tasks/{}/attempts/1/renew", "/api/tasks/{}/claim")
DETOURS = {
    "plain": "{}",
    "dots": "/api/models/../..{}",
    "coded dots": "/api/models/%2e%2e/%2e%2e{}",
    "coded slashes": "/docs%2f..{}",
    "doubly coded": "/docs/%252e%252e{}",
    "backslashes": "/docs\\..\\..{}",
    "two slashes": "/{}",
    "NUL": "{}%00",
    "semicolon": "{};a=b",
    "fullwidth dots": "/docs/%EF%BC%8E%EF%BC%8E{}",
    "overlong dots": "/docs/%c0%ae%c0%ae{}",
    "as a task": "/api/tasks/..{}/status",
    "as a task, coded": "/api/tasks/..%2f..%2f..{}",
    "as an upload": "/api/uploads/..{}",
}


@pytest.mark.parametrize("detour", DETOURS.values(), ids=DETOURS)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_cores_alone_is_reached_by_no_detour(door: Door, core: Api, detour: str, method: str) -> None:
    """Neither as it is nor by what core, a router or a URL's parser could make of it."""
    uid = secrets.token_urlsafe(32)
    for path in (*PRIVATE, *(path.format(uid) for path in PRIVATE_OF_ONE)):
        answer = door.ask(request(method, detour.format(path), b"Content-Length: 0"))
        assert answer.is_refusal or (answer.status, method) == (307, "GET"), path
        assert "/api" in answer.headers.get("location", "/api/")
        assert b"inference_server_" not in answer.body


@pytest.mark.parametrize(
    "headers",
    [
        {"admission-ticket": "mine"},
        {"client-authorization": "Bearer anything", "client-address": "127.0.0.1"},
        {"Authorization": "Basic b3BlcmF0b3I6d3Jvbmc="},
        {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "core", "Forwarded": "for=127.0.0.1;host=core"},
        {"X-Original-URL": "/api/agents/", "X-Rewrite-URL": "/metrics", "X-HTTP-Method-Override": "DELETE"},
    ],
    ids=["admission", "client's", "authorization", "forwarded", "overrides"],
)
def test_words_among_servers_mean_nothing_from_outside(api: Api, headers: dict[str, str]) -> None:
    """What gateway and core say to each other, and what proxies say, strangers may say as they like."""
    assert api.call("GET", MODELS, headers=headers).json() == api.get(MODELS).json()
    assert api.call("GET", "/api/agents/", headers=headers).status_code == 404


def test_a_ticket_of_ones_own_is_no_room(api: Api, core: Api, waiting: str) -> None:
    """The one that core gives is the gateway's to pass on."""
    ticket = core.get("/api/admission?size=5000000").json()["ticket"]
    headers = {"admission-ticket": ticket, "Content-Type": "application/zip"}
    params = {"model_human_readable_id": waiting}
    assert api.call("POST", "/api/tasks/", params=params, headers=headers, data=INPUT).status_code == 200
    assert core.get("/api/admission?size=5000000").status_code == 200


@pytest.mark.parametrize("offered", ['x"}\n{"event":"forged', "x" * 5000, "\x1b[2J", "%0d%0aevent"])
def test_nobody_writes_our_logs(stack: Stack, door: Door, offered: str) -> None:
    """The id that a client chooses is in each line, so it may be only what it may be."""
    answer = door.ask(request("GET", "/api/models/", b"X-Request-ID: " + quote(offered, '"{}:\x1b').encode("latin-1")))
    assert answer.status == 400 or re.fullmatch("[0-9a-f]{16}", answer.headers["x-request-id"])
    for name in ("gateway", "core"):
        for line in stack.log(name).read_text().splitlines():
            assert "forged" not in line
            assert not line.startswith("{") or json.loads(line)


RANGES = {
    "3,000 ranges": "bytes=" + ",".join(["0-0"] * 3000),
    "overlapping": "bytes=0-,0-,0-,0-,0-",
    "beyond all": f"bytes={10**40}-{10**41}",
    "5,000 digits": "bytes=" + "9" * 5000 + "-",
    "suffix of 5,000 digits": "bytes=-" + "9" * 5000,
    "backwards": "bytes=5-2",
    "negative": "bytes=-5--2",
    "no numbers": "bytes=a-b",
    "another unit": "lines=1-2",
    "NaN": "bytes=NaN-",
}


@pytest.fixture(scope="module")
def finished(api: Api, copying: str) -> str:
    """A task's uid."""
    uid = api.post(copying, INPUT)
    assert api.wait_for_end(uid) == 200
    return uid


@pytest.mark.parametrize("asked", RANGES.values(), ids=RANGES)
def test_ranges_multiply_nothing(api: Api, finished: str, asked: str) -> None:
    """The whole, a part or nothing: never more than there is."""
    whole = api.get(f"/api/tasks/{finished}")
    answer = api.get(f"/api/tasks/{finished}", Range=asked)
    assert answer.status_code in (200, 206, 416)
    assert len(answer.content) <= len(whole.content)


@pytest.mark.parametrize("tags", [",".join(['"a"'] * 3000), "*" * 5000, "W/" * 5000], ids=["many", "stars", "weak"])
def test_validators_may_be_anything(api: Api, finished: str, tags: str) -> None:
    assert api.get(f"/api/tasks/{finished}", If_None_Match=tags).status_code == 200


def test_an_expectation_is_no_promise(door: Door) -> None:
    """100 comes only for a body that is wanted to be read."""
    with door.opened() as wire:
        wire.send(request("POST", "/api/tasks/", b"Expect: 100-continue", b"Content-Length: 0"))
        assert wire.answer().status == 422
    answer = door.ask(request("POST", "/api/tasks/", b"Expect: anything", b"Content-Length: 0"))
    assert answer.status in (417, 422)


def test_plain_http_on_the_port_of_tls_says_nothing(stack: Stack) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.get(stack.gateway_url.replace("https", "http"), timeout=10)
