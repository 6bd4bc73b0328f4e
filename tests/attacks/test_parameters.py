"""Parameters that somebody hoped would be put into a command, a path, a query or an address."""

import json
import secrets
from typing import Any

import pytest

from tests.e2e.api import Api
from tests.e2e.conftest import INPUT

SECRET = {"Webhook-Secret": "s" * 24}


def is_refused(answer: Any) -> bool:
    """In words, none of which are about our insides."""
    assert "Traceback" not in answer.text
    return answer.status_code in (307, 400, 404, 405, 409, 413, 422, 431) or answer.status_code >= 550


UIDS = {
    "a path": "../../etc/passwd",
    "a coded path": "..%2f..%2foutcomes",
    "a wildcard": "*",
    "a hash tag": "{due}",
    "a key": "x}:input",
    "a line": "x%0d%0aDEL due",
    "NUL": "x%00",
    "a space": "x y",
    "5,000 letters": "A" * 5000,
    "too short": "A" * 15,
    "other letters": "ü" * 43,
    "other digits": "١" * 43,
    "half a letter": "%ff%fe%c3",
    "a script": "<script>alert(1)</script>",
    "a format": "%25s%25n{0.__class__}",
}


@pytest.mark.parametrize("uid", UIDS.values(), ids=UIDS)
def test_uids_that_are_none(api: Api, uid: str) -> None:
    """Wherever a uid stands."""
    for method, path in (
        ("GET", "/api/tasks/{}"),
        ("HEAD", "/api/tasks/{}"),
        ("DELETE", "/api/tasks/{}"),
        ("PUT", "/api/tasks/{}?model_human_readable_id=x"),
        ("GET", "/api/tasks/{}/status?wait=1"),
        ("GET", "/api/tasks/{}/events"),
        ("GET", "/api/tasks/{}/log"),
        ("POST", "/api/tasks/{}/cancel"),
        ("POST", "/api/tasks/{}/retry"),
        ("GET", "/api/models/{}"),
    ):
        answer = api.call(method, path.format(uid))
        assert is_refused(answer), (method, path)
        assert "<script>" not in answer.text


TAGS = {
    "an option": "--privileged",
    "an option behind": "busybox --privileged",
    "a command": "busybox;id",
    "a substitution": "$(id)",
    "backticks": "`id`",
    "a line": "busybox\nRUN id",
    "a path": "../../etc/passwd",
    "a URL": "http://127.0.0.1:2375/images",
    "a socket": "unix:///var/run/docker.sock",
    "userinfo": "user:password@example.org/image",
    "a query": "busybox?registry=127.0.0.1",
    "a fragment": "busybox#x",
    "a capital": "Busybox",
    "two tags": "busybox:1:2",
    "half a digest": "busybox@sha256:abc",
    "another digest": f"busybox@md5:{'a' * 32}",
    "NUL": "busybox\0",
    "a line's end": "busybox\n",
    "nothing": "",
    "10,000 letters": "a" * 10_000,
    "other letters": "büsybox",
    "dots": "a/../b",
}


@pytest.mark.parametrize("tag", TAGS.values(), ids=TAGS)
def test_images_that_are_none(api: Api, core: Api, tag: str) -> None:
    """Before any engine hears of them, at the gateway and at core."""
    name = secrets.token_hex(8)
    for client in (api, core):
        params = {"human_readable_id": name, "container_tag": tag}
        answer = client.call("POST", "/api/models/", params=params)
        assert answer.status_code == 422, answer.text
    assert core.get(f"/api/models/human_readable_id/{name}").status_code == 550


PRIVILEGES = ("network", "memory_mb", "pids", "output_mb", "timeout_seconds", "gpu_count", "shm_mb", "max_attempts")


def test_strangers_give_no_privileges(api: Api, core: Api) -> None:
    """A model that anybody may register runs as any."""
    name = secrets.token_hex(8)
    params = {"human_readable_id": name, "container_tag": "busybox", "network": "true", "memory_mb": "1000000"}
    made = api.call("POST", "/api/models/", params={**params, "pids": "4000000", "output_mb": "1000000"}).json()
    try:
        assert (made["network"], made["memory_mb"], made["pids"], made["output_mb"]) == (False, None, 4096, 8192)
        again = api.call("POST", "/api/models/", params={**params, "container_tag": "evil"})
        assert again.status_code == 409
        for method in ("PUT", "PATCH", "DELETE"):
            assert api.call(method, f"/api/models/{made['uid']}", params=params).status_code == 405
    finally:
        core.call("DELETE", f"/api/models/{made['uid']}")


NAMES = {"NUL": "a\0b", "a line": "a\nb", "257 letters": "a" * 257, "nothing": "", "an escape": "a\x1b[2J"}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_names_of_models_that_are_none(api: Api, name: str) -> None:
    params = {"human_readable_id": name, "container_tag": "busybox"}
    assert api.call("POST", "/api/models/", params=params).status_code == 422


WEBHOOKS = {
    "loopback": "https://127.0.0.2/",
    "localhost": "https://localhost/",
    "a name below localhost": "https://a.localhost/",
    "short": "https://127.1/",
    "a number": "https://2130706434/",
    "octal": "https://0177.0.0.2/",
    "hexadecimal": "https://0x7f.0x0.0x0.0x2/",
    "a hexadecimal number": "https://0x7f000002/",
    "with a dot": "https://127.0.0.2./",
    "other digits": "https://１２７.０.０.２/",
    "circled digits": "https://①②⑦.⓪.⓪.②/",
    "zero": "https://0/",
    "any": "https://0.0.0.0/",
    "IPv6": "https://[::1]/",
    "IPv6, any": "https://[::]/",
    "mapped": "https://[::ffff:127.0.0.2]/",
    "mapped, in hexadecimal": "https://[::ffff:7f00:2]/",
    "compatible": "https://[::127.0.0.2]/",
    "translated": "https://[64:ff9b::7f00:2]/",
    "6to4": "https://[2002:7f00:2::]/",
    "link-local": "https://[fe80::1%25eth0]/",
    "unique local": "https://[fd00:ec2::254]/",
    "metadata": "https://169.254.169.254/latest/meta-data/",
    "private": "https://10.1.2.3/",
    "private, too": "https://192.168.0.1/",
    "carrier": "https://100.64.0.1/",
    "multicast": "https://224.0.0.1/",
    "broadcast": "https://255.255.255.255/",
    "a user": "https://example.org@127.0.0.2/",
    "a user before": "https://user:password@example.org/",
    "a backslash": "https://example.org\\@127.0.0.2/",
    "another scheme": "gopher://example.org/",
    "a file": "file:///etc/passwd",
    "no TLS": "http://example.org/",
    "no host": "https:///x",
    "port 0": "https://example.org:0/",
    "port 70000": "https://example.org:70000/",
    "a line": "https://example.org/\r\nHost: core",
    "3,000 letters": f"https://example.org/{'a' * 3000}",
}
LOOKED_UP_LATER = ("localhost", "a name below localhost")
"""Names are resolved when they are called, and their addresses judged then: tests/unit/test_webhooks.py."""


@pytest.mark.parametrize(
    "url", [pytest.param(url, id=name) for name, url in WEBHOOKS.items() if name not in LOOKED_UP_LATER]
)
def test_webhooks_lead_to_nobody_inside(api: Api, waiting: str, url: str) -> None:
    """However it is spelled."""
    params = {"model_human_readable_id": waiting, "webhook": url}
    answer = api.call("POST", "/api/tasks/", params=params, headers=SECRET, zip=INPUT)
    assert answer.status_code == 422, answer.text


NUMBERS = [
    "NaN",
    "inf",
    "-inf",
    "1e400",
    "-1",
    "0",
    "9" * 5000,
    "0x10",
    "1_0",
    "١",
    "",
    " ",
    "1;2",
    "[]",
    "null",
    "2147483648000",
]


@pytest.mark.parametrize("name", ["ttl_seconds", "timeout_seconds", "priority"])
@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: value[:8] or "empty")
def test_options_that_are_none(api: Api, waiting: str, name: str, value: str) -> None:
    params = {"model_human_readable_id": waiting, name: value}
    answer = api.call("POST", "/api/tasks/", params=params, zip=INPUT)
    assert answer.status_code == 422 or (answer.status_code == 200 and value in ("0x10", "1_0", "١", " "))


@pytest.mark.parametrize("wait", ["NaN", "-inf", "-1", "", "x", "1,2", "[]"])
def test_waits_that_are_none(api: Api, wait: str) -> None:
    assert api.get(f"/api/tasks/{'A' * 43}?wait={wait}").status_code == 422


@pytest.mark.parametrize("wait", ["inf", "1e400", "9" * 5000], ids=["inf", "1e400", "5,000 digits"])
def test_nobody_waits_for_ever(api: Api, wait: str) -> None:
    """What isn't there is told at once, however long somebody would wait."""
    assert api.get(f"/api/tasks/{'A' * 43}?wait={wait}").status_code == 554
    assert api.get(f"/api/tasks/{'A' * 43}", Prefer=f"wait={wait}").status_code == 554


LABELS = [
    "no value",
    "=x",
    "a=" + "x" * 256,
    "a\0=x",
    "a=x\ny",
    "ä=x",
    "../a=\x1b[2J",
    "a" * 64 + "=x",
    "{a}=b",
    "a b=c",
]


@pytest.mark.parametrize("label", LABELS, ids=lambda label: repr(label[:8]))
def test_labels_that_are_none(api: Api, waiting: str, label: str) -> None:
    params = {"model_human_readable_id": waiting, "label": label}
    assert api.call("POST", "/api/tasks/", params=params, zip=INPUT).status_code == 422


def test_labels_have_a_bound(api: Api, waiting: str) -> None:
    query = "&".join(f"label=a{number}=x" for number in range(33))
    path = f"/api/tasks/?model_human_readable_id={waiting}&{query}"
    assert api.call("POST", path, zip=INPUT).status_code == 422


@pytest.mark.parametrize("key", ["short", "a" * 256, "ü" * 20, "a b" * 10], ids=lambda key: key[:5])
def test_idempotency_keys_that_are_none(api: Api, waiting: str, key: str) -> None:
    headers = {"Idempotency-Key": key.encode()}
    params = {"model_human_readable_id": waiting}
    answer = api.call("POST", "/api/tasks/", params=params, headers=headers, zip=INPUT)  # type: ignore[arg-type]
    assert answer.status_code == 422


@pytest.mark.parametrize("id", ["x", "-1", "9" * 5000, "0-0\r\nX: y", "$", ">", "+", "*", "1-2-3", "0-" + "9" * 30])
def test_ids_of_events_that_are_none(api: Api, waiting: str, id: str) -> None:
    """They would be ids of a stream in Redis. Who has missed nothing, or asks for what isn't, hears how it stands."""
    uid = api.post(waiting, INPUT)
    answer = api.session.get(f"{api.url}/api/tasks/{uid}/events", params={"last_event_id": id}, stream=True, timeout=5)
    with answer:
        assert answer.status_code in (200, 400, 422)
        if answer.status_code == 200:
            assert next(answer.iter_lines()).startswith((b":", b"id:", b"event:", b"data:", b"retry:"))
    api.delete(uid)


BODIES = {
    "deep": b"[" * 100_000,
    "deep objects": b'{"uids":' * 50_000,
    "no UTF-8": b'{"uids": ["\xff\xfe"]}',
    "half a pair": b'{"uids": ["\\ud800"]}',
    "NaN": b'{"uids": NaN}',
    "a number of 5,000 digits": b'{"uids": [' + b"9" * 5000 + b"]}",
    "a key twice": b'{"uids": "x", "uids": 1}',
    "nothing": b"",
    "no object": b"[]",
    "10,000 strings": json.dumps({"uids": ["../x"] * 10_000}).encode(),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("path", ["/api/tasks/outcomes", "/api/agents/", "/api/tasks/{}/claim"])
def test_json_that_is_none(core: Api, path: str, body: bytes) -> None:
    """Of those inside, too: an agent may be somebody else by now."""
    answer = core.call("POST", path.format("A" * 43), data=body)
    assert answer.status_code in (200, 400, 413, 422, 554)
