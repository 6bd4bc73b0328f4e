"""Uploads in several requests, by tus 1.0, as its clients make them."""

import io
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import requests
from tusclient.client import TusClient

from core.store.blobs import CHUNK_BYTES
from demo.stack import Stack
from tests.e2e.api import Api
from tests.zips import files_of, zip_of

TUS = {"Tus-Resumable": "1.0.0"}
FILES = {"noise.bin": secrets.token_bytes(3 * CHUNK_BYTES), "hello.txt": b"Hello, model!\n"}
ZIP = zip_of(FILES)


@dataclass(frozen=True)
class Tus:
    """The protocol's calls, one by one."""

    api: Api

    def open(self, model: str, zip: bytes = ZIP, *, data: bytes | None = None, **headers: str) -> requests.Response:
        about = {**TUS, "Upload-Length": str(len(zip)), **_spelled(headers)}
        if data is not None:
            about["Content-Type"] = "application/offset+octet-stream"
        return self.api.call(
            "POST", "/api/uploads/", params={"model_human_readable_id": model}, headers=about, data=data
        )

    def opened(self, model: str, zip: bytes = ZIP) -> str:
        """Its path."""
        answer = self.open(model, zip)
        assert answer.status_code == 201, answer.text
        return answer.headers["Location"]

    def offset(self, path: str) -> int:
        answer = self.api.call("HEAD", path, headers=TUS)
        assert answer.status_code == 200
        assert answer.headers["Cache-Control"] == "no-store"
        return int(answer.headers["Upload-Offset"])

    def append(self, path: str, offset: int, data: object, **headers: str) -> requests.Response:
        about = {**TUS, "Upload-Offset": str(offset), "Content-Type": "application/offset+octet-stream"}
        return self.api.call("PATCH", path, headers={**about, **_spelled(headers)}, data=data)


def _spelled(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


@pytest.fixture
def tus(api: Api) -> Tus:
    return Tus(api)


@pytest.mark.parametrize("piece", [2**63, 500_000], ids=["at once", "in pieces"])
def test_a_client_that_is_not_ours(
    piece: int, api: Api, stack: Stack, copying: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task has the upload's uid, and gives back what was sent."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(stack.certificates.ca_cert))
    client = TusClient(f"{stack.gateway_url}/api/uploads/?model_human_readable_id={copying}")
    uploader = client.uploader(file_stream=io.BytesIO(ZIP), chunk_size=piece, metadata={"filename": "scan.zip"})
    uploader.upload()
    uid = str(uploader.url).rpartition("/")[2]
    assert files_of(api.wait(uid).content) == FILES
