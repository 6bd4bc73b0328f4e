"""Uploads in several requests, by tus 1.0, as its clients make them."""

import io
import secrets
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial

import pytest
from tusclient.client import TusClient

from core.store.blobs import CHUNK_BYTES
from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.tus import Tus, half_sent, uid_of
from tests.waiting import eventually
from tests.zips import files_of, zip_of

FILES = {"noise.bin": secrets.token_bytes(3 * CHUNK_BYTES), "hello.txt": b"Hello, model!\n"}
ZIP = zip_of(FILES)
SIZE = len(ZIP)


@pytest.fixture
def tus(api: Api) -> Tus:
    return Tus(api)


@pytest.mark.parametrize("piece", [2**63, 500_000], ids=["at once", "in pieces"])
def test_a_client_that_is_not_ours(
    piece: int, api: Api, stack: Stack, copying: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task has the upload's uid, and gives back what was sent."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(stack.certificates.ca_cert))
    client = TusClient(f"{stack.gateway_url}/api/uploads/?model_human_readable_id={copying}&label=study=7")
    uploader = client.uploader(file_stream=io.BytesIO(ZIP), chunk_size=piece, metadata={"filename": "scan.zip"})
    uploader.upload()
    uid = uid_of(str(uploader.url))
    assert files_of(api.wait(uid).content) == FILES
    assert api.get(f"/api/tasks/{uid}/status").json()["labels"] == {"study": "7"}


def test_what_came_before_a_cut_is_not_sent_again(api: Api, tus: Tus, stack: Stack, copying: str) -> None:
    """Over TLS and through the gateway, wherever the connection breaks. The end may be asked for and sent again."""
    for cut in (70_001, CHUNK_BYTES + 1, 2 * CHUNK_BYTES + 33_333):
        path = tus.opened(copying, SIZE)
        with half_sent(stack, path, 0, ZIP[:cut], of=SIZE):
            eventually(partial(tus.is_at, path, cut // CHUNK_BYTES * CHUNK_BYTES))
        tus.send_rest(path, ZIP)
        assert tus.offset(path) == SIZE
        assert tus.append(path, SIZE, b"").status_code == 204
        assert files_of(api.wait(uid_of(path)).content) == FILES


def test_a_request_that_hangs_keeps_nobody_out(api: Api, tus: Tus, stack: Stack, copying: str) -> None:
    """Its client lost the line and is back at once; what the old connection still holds changes nothing."""
    path = tus.opened(copying, SIZE)
    with half_sent(stack, path, 0, ZIP[: 2 * CHUNK_BYTES - 1], of=SIZE):
        eventually(partial(tus.is_at, path, CHUNK_BYTES))
        tus.send_rest(path, ZIP)
        assert files_of(api.wait(uid_of(path)).content) == FILES


def test_the_first_bytes_may_come_with_the_opening(api: Api, tus: Tus, copying: str) -> None:
    """Up to all of them."""
    some = tus.open(copying, SIZE, data=ZIP[:1000])
    assert (some.status_code, some.headers["Upload-Offset"]) == (201, "1000")
    assert tus.append(some.headers["Location"], 1000, ZIP[1000:]).status_code == 204
    everything = tus.open(copying, SIZE, data=ZIP)
    assert (everything.status_code, everything.headers["Upload-Offset"]) == (201, str(SIZE))
    for answer in (some, everything):
        assert files_of(api.wait(uid_of(answer.headers["Location"])).content) == FILES


def test_an_upload_says_how_it_stands(tus: Tus, copying: str) -> None:
    """What its client said, how far it is, until when it lives; and nothing is kept from a cache."""
    said = f"filename {b64encode(b'scan.zip').decode()}"
    path = tus.open(copying, SIZE, headers={"Upload-Metadata": said}).headers["Location"]
    tus.append(path, 0, ZIP[:1000])
    told = tus.ask(path).headers
    assert {name: told[name] for name in ("Upload-Offset", "Upload-Length", "Upload-Metadata", "Cache-Control")} == {
        "Upload-Offset": "1000",
        "Upload-Length": str(SIZE),
        "Upload-Metadata": said,
        "Cache-Control": "no-store",
    }
    assert parsedate_to_datetime(told["Upload-Expires"]) > datetime.now(UTC) + timedelta(hours=23)
    assert tus.give_up(path).status_code == 204
    assert tus.ask(path).status_code == 404


def test_the_model_may_stand_in_the_metadata(api: Api, tus: Tus, copying: str) -> None:
    """For clients that have one address to send to."""
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(SIZE)}
    headers["Upload-Metadata"] = f"model {b64encode(copying.encode()).decode()}"
    answer = api.call("POST", "/api/uploads/", headers=headers)
    assert answer.status_code == 201
    assert tus.give_up(answer.headers["Location"]).status_code == 204


def test_what_is_spoken_here(api: Api) -> None:
    """Anybody may ask, in any version."""
    answer = api.call("OPTIONS", "/api/uploads/")
    assert answer.status_code == 204
    assert answer.headers["Tus-Version"] == answer.headers["Tus-Resumable"] == "1.0.0"
    assert answer.headers["Tus-Extension"] == "creation,creation-with-upload,expiration,termination"
    assert answer.headers["Tus-Max-Size"] == str(3072 * 2**20)


@pytest.mark.parametrize("size", [1000, SIZE], ids=["small", "large"])
def test_what_an_append_must_say(tus: Tus, copying: str, size: int) -> None:
    """Its version, its type, the right offset, and no more than was announced; nothing of it is stored then."""
    path = tus.opened(copying, SIZE)
    content = ZIP[:size]
    assert tus.append(path, 0, content, headers={"Tus-Resumable": "0.2.2"}).status_code == 412
    assert tus.append(path, 0, content, headers={"Content-Type": "application/zip"}).status_code == 415
    assert tus.append(path, 5, content).status_code == 409
    assert tus.append(path, 0, content, headers={"Upload-Offset": "-1"}).status_code == 400
    assert tus.append(path, 0, ZIP + b"x").status_code == 413
    problem = tus.append(f"{path[:-1]}-", 0, content)
    assert (problem.status_code, problem.headers["Tus-Resumable"]) == (404, "1.0.0")
    assert problem.headers["Content-Type"] == "application/problem+json"
    assert tus.offset(path) == 0
    assert tus.give_up(path).status_code == 204


def test_what_is_refused_leaves_nothing(tus: Tus, copying: str) -> None:
    """Neither an opening nor a zip that is none."""
    assert tus.open("nobody's", SIZE).status_code == 404
    assert tus.open(copying, 2**62).status_code == 413
    assert tus.open(copying, 0).status_code == 400
    assert tus.open(copying, 5, data=b"hello").status_code == 400
    path = tus.opened(copying, 5)
    refusal = tus.append(path, 0, b"hello")
    assert refusal.status_code == 400
    assert "zip" in refusal.json()["detail"]
    assert tus.ask(path).status_code == 404
