"""Outputs are downloads: in parts, with a validator, their size known before."""

import random

import pytest
import requests

from core.store.blobs import CHUNK_BYTES
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT
from tests.zips import zip_of

OUTPUT = zip_of({"random.bin": random.Random(1).randbytes(2 * CHUNK_BYTES)})
SIZE = len(OUTPUT)


@pytest.fixture
def path(api: Api, core: Api, waiting: str) -> str:
    """Of a finished task whose output spreads over three chunks."""
    uid = api.post(waiting, INPUT)
    assert core.call("POST", f"/api/tasks/outputs/{uid}", zip=OUTPUT).status_code == 200
    return f"/api/tasks/{uid}"


def test_the_whole(api: Api, path: str) -> None:
    """200 with what a download manager needs to know."""
    answer = api.get(path)
    assert (answer.status_code, answer.content) == (200, OUTPUT)
    assert answer.headers["Content-Length"] == str(SIZE)
    assert answer.headers["Content-Type"] == "application/zip"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["ETag"].startswith('"')
    assert answer.headers["Content-Disposition"].endswith('.zip"')


def test_head_is_get_without_the_body(api: Api, path: str) -> None:
    """The same status and headers."""
    head, get = api.call("HEAD", path), api.get(path)
    assert (head.status_code, head.content) == (200, b"")
    others = ("date", "x-request-id")
    assert {**head.headers, **dict.fromkeys(others)} == {**get.headers, **dict.fromkeys(others)}


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        (f"bytes={CHUNK_BYTES - 1}-{CHUNK_BYTES}", CHUNK_BYTES - 1, CHUNK_BYTES + 1),
        (f"bytes={CHUNK_BYTES}-", CHUNK_BYTES, SIZE),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        ("bytes=-100", SIZE - 100, SIZE),
        (f"bytes=10-{SIZE + 1000}", 10, SIZE),
        (f"bytes=-{SIZE + 1000}", 0, SIZE),
    ],
)
def test_a_part(api: Api, path: str, asked: str, start: int, stop: int) -> None:
    """206 with those bytes and where they lie."""
    answer = api.get(path, Range=asked)
    assert (answer.status_code, answer.content) == (206, OUTPUT[start:stop])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer.headers["Content-Length"] == str(stop - start)


@pytest.mark.parametrize("asked", ["lines=1-2", "bytes=nonsense", "bytes=5-2", "bytes=0-1,4-5", ""])
def test_what_is_no_single_range_gets_the_whole(api: Api, path: str, asked: str) -> None:
    """A server may ignore a Range; an unreadable one it must."""
    answer = api.get(path, Range=asked)
    assert (answer.status_code, answer.content) == (200, OUTPUT)


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", f"bytes={SIZE + 5}-{SIZE + 6}"])
def test_a_range_past_the_end_is_416(api: Api, path: str, asked: str) -> None:
    """And says how long the zip is."""
    answer = api.get(path, Range=asked)
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"


def test_a_validator_of_this_zip_is_304(api: Api, path: str) -> None:
    """Nothing is sent again to who has it; who has another one gets it."""
    etag = api.get(path).headers["ETag"]
    same = api.get(path, If_None_Match=f'"another", {etag}')
    assert (same.status_code, same.content, same.headers["ETag"]) == (304, b"", etag)
    assert api.get(path, If_None_Match='"another"').status_code == 200


def test_a_broken_download_goes_on_where_it_broke(api: Api, path: str) -> None:
    """If-Range: the rest when it still is the same zip, else all of it."""
    etag = api.get(path).headers["ETag"]
    rest = api.get(path, Range="bytes=1000-", If_Range=etag)
    assert (rest.status_code, rest.content) == (206, OUTPUT[1000:])
    other = api.get(path, Range="bytes=1000-", If_Range='"another"')
    assert (other.status_code, other.content) == (200, OUTPUT)


def test_a_download_of_what_goes_meanwhile_breaks_off(api: Api, core: Api, waiting: str) -> None:
    """Deleted or kept for long enough: the client sees that bytes are missing, and never takes a part for the whole."""
    large = zip_of({"random.bin": random.Random(2).randbytes(64 * CHUNK_BYTES)})
    uid = api.post(waiting, INPUT)
    assert core.call("POST", f"/api/tasks/outputs/{uid}", zip=large).status_code == 200
    with api.session.get(f"{api.url}/api/tasks/{uid}", stream=True, timeout=60) as answer:
        assert answer.headers["Content-Length"] == str(len(large))
        pieces = answer.iter_content(CHUNK_BYTES)
        next(pieces)
        assert api.delete(uid).status_code == 200
        with pytest.raises(requests.RequestException):
            list(pieces)
    assert api.get(f"/api/tasks/{uid}").status_code == 554
