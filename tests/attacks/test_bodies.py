"""Bodies that are none: forms, codings, and uploads in pieces. Of none anything stays."""

import gzip
import secrets
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.tus import BYTES_TYPE
from tests.attacks.wire import Door, request
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT
from tests.e2e.tus import Tus
from tests.zips import zip_of

BOUNDARY = b"boundary-of-the-form"
FORM = b"multipart/form-data; boundary=" + BOUNDARY
FILE = b'Content-Disposition: form-data; name="zip_file"; filename="x.zip"'
MiB = 2**20


def part(*headers: bytes, content: bytes = b"") -> bytes:
    return b"--" + BOUNDARY + b"\r\n" + b"\r\n".join([*headers, b"", content]) + b"\r\n"


LAST = b"--" + BOUNDARY + b"--\r\n"
NO_FILE = part(b'Content-Disposition: form-data; name="any"', content=b"x")
NESTED = part(
    b"Content-Type: multipart/mixed; boundary=inner", content=b"--inner\r\n" + FILE + b"\r\n\r\nPK\r\n--inner--"
)

FORMS: dict[str, tuple[bytes, bytes]] = {
    "20,000 parts": (FORM, NO_FILE * 20_000 + LAST),
    "parts without end": (FORM, NO_FILE * 1000),
    "a part's headers without end": (FORM, part(*[b"X-Any: a"] * 100_000)),
    "a header of 1 MB": (FORM, part(b"X-Any: " + b"a" * MiB) + LAST),
    "a name of 1 MB": (FORM, part(b"a" * MiB + b": any") + LAST),
    "no file": (FORM, NO_FILE + LAST),
    "a file in another's part": (FORM, NESTED + LAST),
    "a part that is no end": (FORM, part(FILE, content=INPUT) + b"--" + BOUNDARY + b"-\r\n"),
    "no boundary": (b"multipart/form-data", part(FILE, content=INPUT) + LAST),
    "an empty boundary": (b"multipart/form-data; boundary=", b"--\r\n" + FILE + b"\r\n\r\nPK\r\n----\r\n"),
    "a boundary of 8 KB": (b"multipart/form-data; boundary=" + b"b" * 8000, b"--" + b"b" * 8000 + b"\r\n"),
    "a boundary in another charset": (b"multipart/form-data; boundary*=utf-16''%FF%FE", part(FILE, content=b"PK")),
    "two boundaries": (FORM + b"; boundary=other", b"--other\r\n" + FILE + b"\r\n\r\nPK\r\n--other--\r\n"),
    "5,000 parameters": (b"multipart/form-data" + b"; a=b" * 2500, NO_FILE + LAST),
    "quotes without end": (b'multipart/form-data; boundary="' + b"\\" * 5000, b"x"),
    "other bytes": (FORM, secrets.token_bytes(100_000)),
    "nothing": (FORM, b""),
}


@pytest.mark.parametrize(("content_type", "body"), FORMS.values(), ids=FORMS)
def test_a_form_that_is_none(api: Api, copying: str, content_type: bytes, body: bytes) -> None:
    params = {"model_human_readable_id": copying}
    headers = {"Content-Type": content_type.decode("latin-1")}
    answer = api.call("POST", "/api/tasks/", params=params, headers=headers, data=body)
    assert answer.status_code in (400, 422), answer.text


FIRST_IS_TAKEN = part(FILE, content=INPUT) + part(FILE, content=b"no zip") + LAST
HIDDEN_NAME = part(
    b"Content-Disposition: form-data; name=zip_file; name=any; filename=../../../etc/cron.d/x", content=INPUT
)


@pytest.mark.parametrize("body", [FIRST_IS_TAKEN, HIDDEN_NAME + LAST], ids=["two files", "a path as its name"])
def test_a_form_is_read_in_one_way(api: Api, core: Api, copying: str, body: bytes) -> None:
    """What it names its file matters to nobody."""
    params = {"model_human_readable_id": copying}
    answer = api.call("POST", "/api/tasks/", params=params, headers={"Content-Type": FORM.decode()}, data=body)
    assert answer.status_code in (200, 400, 422)
    if answer.status_code == 200:
        assert core.get(f"/api/tasks/inputs/{answer.json()}").content in (INPUT, b'{"detail":"Task not found"}')


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, gzip, gzip"])
@pytest.mark.parametrize("size", [100_000, 40 * MiB], ids=["small", "bomb"])
def test_nothing_is_unpacked_on_the_way(api: Api, copying: str, coding: str, size: int) -> None:
    """A coded body is bytes that are no zip."""
    headers = {"Content-Type": "application/zip", "Content-Encoding": coding}
    body = gzip.compress(zip_of({"zeros": bytes(size)}))
    answer = api.call("POST", "/api/tasks/", params={"model_human_readable_id": copying}, headers=headers, data=body)
    assert answer.status_code == 400


def test_an_answer_is_not_packed_for_who_asks(api: Api) -> None:
    """Secrets beside what a stranger chose mustn't be guessed by lengths (CRIME, BREACH)."""
    answer = api.get("/api/models/", Accept_Encoding="gzip, br, zstd")
    assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize("announced", [10**19, 2**62, 2**63, 4 * 2**30])
def test_a_body_larger_than_all(door: Door, copying: str, announced: int) -> None:
    """It is refused unsent."""
    path = f"/api/tasks/?model_human_readable_id={copying}"
    answer = door.ask(request("POST", path, b"Content-Type: application/zip", b"Content-Length: %d" % announced))
    assert answer.status in (413, 422)


@pytest.fixture
def tus(api: Api) -> Tus:
    return Tus(api)


OPENINGS: dict[str, tuple[dict[str, str], int]] = {
    "a length of 5,000 digits": ({"Upload-Length": "9" * 5000}, 400),
    "a negative length": ({"Upload-Length": "-1"}, 400),
    "a length with a sign": ({"Upload-Length": "+100"}, 400),
    "a length that is none": ({"Upload-Length": "1e9"}, 400),
    "no length yet": ({"Upload-Length": "", "Upload-Defer-Length": "1"}, 400),
    "2^62": ({"Upload-Length": str(2**62)}, 413),
    "metadata of 9 KB": ({"Upload-Length": "100", "Upload-Metadata": "a " + "QUFB" * 2300}, 400),
    "metadata that is no Base64": ({"Upload-Length": "100", "Upload-Metadata": "filename !!!"}, 400),
    "metadata that is no UTF-8": ({"Upload-Length": "100", "Upload-Metadata": "a //79"}, 400),
    "another model": (
        {"Upload-Length": "100", "Upload-Metadata": f"model {b64encode(b'../outcomes').decode()}"},
        201,
    ),
    "another version": ({"Upload-Length": "100", "Tus-Resumable": "2.0.0"}, 412),
    "a concatenation": ({"Upload-Length": "", "Upload-Concat": "final;/api/uploads/a /api/uploads/b"}, 400),
}


@pytest.mark.parametrize(("headers", "status"), OPENINGS.values(), ids=OPENINGS)
def test_openings_of_uploads(tus: Tus, copying: str, headers: dict[str, str], status: int) -> None:
    answer = tus.open(copying, 100, headers=headers)
    assert answer.status_code == status, answer.text
    if status == 201:
        assert tus.give_up(answer.headers["Location"]).status_code == 204


OFFSETS = {
    "beyond": "101",
    "negative": "-1",
    "of 5,000 digits": "9" * 5000,
    "a range": "0-100",
    "none": "",
    "2^64": str(2**64),
}


@pytest.mark.parametrize("offset", OFFSETS.values(), ids=OFFSETS)
def test_offsets_that_are_none(tus: Tus, copying: str, offset: str) -> None:
    path = tus.opened(copying, 100)
    assert tus.append(path, 0, b"PK", headers={"Upload-Offset": offset}).status_code in (400, 409)
    assert tus.offset(path) == 0
    assert tus.give_up(path).status_code == 204


@pytest.mark.parametrize("uid", ["..%2ftasks%2foutcomes", "%2e%2e", "a" * 43, "{}", "*", "a" * 5000, "%00", ""])
def test_uploads_that_are_none(api: Api, uid: str) -> None:
    about = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": BYTES_TYPE}
    for method in ("HEAD", "PATCH", "DELETE"):
        assert api.call(method, f"/api/uploads/{uid}", headers=about, data=b"").status_code in (404, 405)


def test_a_hundred_writers_of_one_upload(tus: Tus, api: Api, copying: str) -> None:
    """At most one of those that came at once is taken; what comes of it is one zip, and one task."""
    path = tus.opened(copying, len(INPUT))

    def append(_: int) -> int:
        with Api.public(api.url, api.session.verify).session as session:  # type: ignore[arg-type]
            return Tus(Api(api.url, session)).append(path, 0, INPUT).status_code

    with ThreadPoolExecutor(10) as writers:
        statuses = list(writers.map(append, range(100)))
    assert statuses.count(204) == 1
    assert set(statuses) <= {204, 409}
    assert api.wait_for_end(path.rpartition("/")[2], within_seconds=8) == 200


def test_an_end_that_never_comes(tus: Tus, copying: str) -> None:
    """A byte more than was announced, with a length or without: the upload stays what it was."""
    path = tus.opened(copying, 10)
    assert tus.append(path, 0, b"x" * 11).status_code == 413
    assert tus.append(path, 0, (b"x" for _ in range(11))).status_code == 413  # type: ignore[arg-type]
    assert tus.offset(path) <= 10
    assert tus.give_up(path).status_code == 204
