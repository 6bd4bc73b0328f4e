"""What can't be run is refused with a sentence, and nothing of it stays: no task, no zip, no message, no container."""

import contextlib
import re
import socket
import ssl
import stat
import struct
import zipfile
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
import requests

from core.store import keys
from demo.stack import Stack
from tests.conftest import SETTINGS
from tests.direct import redis_at
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT, eventually_settled
from tests.leaks import Leaks
from tests.waiting import eventually
from tests.zips import zip_of, zip_with_kind

MiB = 2**20
TOO_LARGE = int(SETTINGS["MAX_UPLOAD_MB"]) * MiB + 1
BOUNDARY = "boundary-of-the-form"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
PART = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="zip_file"; filename="x.zip"\r\n\r\n'.encode()
FLAGS = 6  # offset of an entry's flags in its own header; in the directory it is two more


def with_content_changed(zip: bytes) -> bytes:
    at = zip.index(b"Hello")
    return zip[:at] + b"J" + zip[at + 1 :]


def with_encryption_flag(zip: bytes) -> bytes:
    changed = bytearray(zip)
    changed[FLAGS] |= 1
    changed[zip.index(b"PK\1\2") + FLAGS + 2] |= 1
    return bytes(changed)


def claiming_size(zip: bytes, size: int) -> bytes:
    """The directory says that the first entry is this large, packed and unpacked."""
    at = zip.index(b"PK\1\2") + 20
    return zip[:at] + struct.pack("<2L", size, size) + zip[at + 8 :]


HELLO = zip_of({"hello.txt": b"Hello, model!\n" * 100})
BAD_ZIPS = {
    "no zip": (b"This is no zip. " * 100, "zip"),
    "no bytes": (b"", "empty|truncated"),
    "no entries": (zip_of({}), "empty"),
    "only folders": (zip_of({"a/": b"", "a/b/": b""}), "empty"),
    "content changed": (with_content_changed(HELLO), "checksum"),
    "end cut": (HELLO[:-10], "truncated|damaged|not a zip"),
    "half cut": (HELLO[: len(HELLO) // 2], "truncated|damaged|not a zip"),
    "start cut": (HELLO[20:], "truncated|damaged"),
    "encrypted": (with_encryption_flag(HELLO), "encrypted"),
    "climbs out": (zip_of({"../evil": b"x"}), r"\.\."),
    "climbs out inside": (zip_of({"a/../../evil": b"x"}), r"\.\."),
    "climbs out as on Windows": (zip_of({"a\\..\\..\\evil": b"x"}), r"\.\."),
    "absolute": (zip_of({"/etc/evil": b"x"}), "absolute"),
    "absolute as on Windows": (zip_of({"\\evil": b"x"}), "absolute"),
    "drive letter": (zip_of({"C:\\evil": b"x"}), "absolute"),
    "drive letter alone": (zip_of({"c:evil": b"x"}), "absolute"),
    "symbolic link": (zip_with_kind("link", b"/etc/passwd", stat.S_IFLNK), "symbolic link"),
    "device": (zip_with_kind("null", b"", stat.S_IFCHR), "special file"),
    "socket": (zip_with_kind("socket", b"", stat.S_IFSOCK), "special file"),
    "file as folder": (zip_of({"a": b"x", "a/b": b"y"}), "folder"),
    "bomb by ratio": (zip_of({"zeros": bytes(32 * MiB)}, compression=zipfile.ZIP_DEFLATED), "times its size"),
    "bomb by size": (claiming_size(HELLO, 2**32 - 2), "too large"),
}


@pytest.fixture(autouse=True)
def nothing_stays(core: Api, leaks: Leaks) -> Iterator[None]:
    """No task was made, and all that was stored meanwhile is gone."""
    yield
    assert core.get("/api/tasks/").json() == []
    eventually_settled(leaks)


def assert_is_refused(answer: requests.Response, fault: str) -> None:
    assert answer.status_code == 400, answer.text
    assert answer.json().keys() == {"detail"}
    sentence = answer.json()["detail"]
    assert isinstance(sentence, str)
    assert re.search(fault, sentence), sentence


@pytest.mark.parametrize("name", BAD_ZIPS)
def test_a_bad_zip_is_400(api: Api, copying: str, name: str) -> None:
    """The sentence names the fault."""
    zip, fault = BAD_ZIPS[name]
    answer = api.call("POST", "/api/tasks/", params={"model_human_readable_id": copying}, zip=zip)
    assert_is_refused(answer, fault)


@pytest.mark.parametrize("name", ["no zip", "no bytes", "content changed", "climbs out", "bomb by ratio"])
def test_a_bad_raw_body_is_400(api: Api, copying: str, name: str) -> None:
    """As in a form."""
    zip, fault = BAD_ZIPS[name]
    headers = {"Content-Type": "application/zip"}
    params = {"model_human_readable_id": copying}
    assert_is_refused(api.call("POST", "/api/tasks/", params=params, headers=headers, data=zip), fault)


@pytest.mark.parametrize("name", ["no zip", "no bytes", "no entries", "climbs out", "encrypted"])
def test_a_model_with_a_bad_zip_is_400(api: Api, name: str) -> None:
    """The model isn't registered, so its name stays free."""
    zip, fault = BAD_ZIPS[name]
    params = {"container_tag": "x", "human_readable_id": "bad-zip", "model_available": "true"}
    assert_is_refused(api.call("POST", "/api/models/", params=params, zip=zip), fault)
    assert "bad-zip" not in {model["human_readable_id"] for model in api.get("/api/models/").json()}


@pytest.mark.parametrize(
    ("content_type", "body", "fault"),
    [
        ("multipart/form-data", PART + INPUT, "boundary"),
        (FORM, PART + INPUT, "breaks off"),
        (FORM, PART + INPUT + f"\r\n--{BOUNDARY}\r\n".encode(), "breaks off"),
        (FORM, PART[:40], "breaks off"),
        (FORM, b"this is no form", "malformed|breaks off"),
        (FORM, INPUT, "malformed|breaks off"),
    ],
    ids=["no boundary", "no end", "another part", "in a header", "text", "a raw zip"],
)
def test_a_bad_form_is_400(api: Api, copying: str, content_type: str, body: bytes, fault: str) -> None:
    """A form that isn't one, or that breaks off, even behind a whole zip."""
    headers, params = {"Content-Type": content_type}, {"model_human_readable_id": copying}
    assert_is_refused(api.call("POST", "/api/tasks/", params=params, headers=headers, data=body), fault)


@contextlib.contextmanager
def connection_to(url: str, stack: Stack) -> Iterator[socket.socket]:
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), 30) as plain:
        if parts.scheme == "http":
            yield plain
            return
        context = ssl.create_default_context(cafile=stack.certificates.ca_cert)
        with context.wrap_socket(plain, server_hostname="localhost") as connection:
            yield connection


def head_of_post(path: str, token: str = "", **headers: str | int) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/zip"]
    lines += [f"Authorization: Bearer {token}"] if token else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("way", ["public task", "public model", "private task", "private model"])
def test_what_is_too_large_by_its_headers_is_413_before_it_is_sent(stack: Stack, copying: str, way: str) -> None:
    """The answer comes while the client has sent nothing but the headers."""
    server, kind = way.split()
    path = {
        "task": f"/api/tasks/?model_human_readable_id={copying}",
        "model": "/api/models/?container_tag=x&human_readable_id=too-large&model_available=true",
    }[kind]
    url, token = (stack.gateway_url, "") if server == "public" else (stack.core_url, stack.token_file.read_text())
    with connection_to(url, stack) as connection:
        connection.sendall(head_of_post(path, token.strip(), Content_Length=TOO_LARGE))
        assert connection.recv(12) == b"HTTP/1.1 413"


@pytest.mark.parametrize("sent", [1000, 5 * MiB], ids=["little", "much"])
@pytest.mark.parametrize("way", ["closed", "reset"])
def test_of_an_upload_that_breaks_off_nothing_stays(stack: Stack, api: Api, copying: str, sent: int, way: str) -> None:
    """Whether the client said goodbye or not."""
    with connection_to(stack.gateway_url, stack) as connection:
        path = f"/api/tasks/?model_human_readable_id={copying}"
        connection.sendall(head_of_post(path, Content_Length=50 * MiB) + bytes(sent))
        if sent > MiB:
            eventually(lambda: uploads_of(stack))
        if way == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    eventually(lambda: not uploads_of(stack))


def test_of_a_chunked_upload_that_breaks_off_nothing_stays(stack: Stack, copying: str) -> None:
    """Its length was never known."""
    with connection_to(stack.gateway_url, stack) as connection:
        path = f"/api/tasks/?model_human_readable_id={copying}"
        connection.sendall(head_of_post(path, Transfer_Encoding="chunked"))
        for _ in range(5):
            connection.sendall(b"100000\r\n" + bytes(MiB) + b"\r\n")
        eventually(lambda: uploads_of(stack))
    eventually(lambda: not uploads_of(stack))


def uploads_of(stack: Stack) -> int:
    """How many zips are being written or removed."""
    with redis_at(stack.redis_url) as redis:
        return int(str(redis.zcard(keys.LOOSE)))
