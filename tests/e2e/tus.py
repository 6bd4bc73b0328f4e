"""The calls of tus 1.0, one by one."""

import http.client
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import requests

from core.tus import BYTES_TYPE
from demo.stack import Stack
from tests.e2e.api import CALL_SECONDS, Api

VERSION = {"Tus-Resumable": "1.0.0"}


@dataclass(frozen=True)
class Tus:
    api: Api

    def open(
        self, model: str, length: int, *, data: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
        about = {**VERSION, "Upload-Length": str(length)} | ({} if data is None else {"Content-Type": BYTES_TYPE})
        params = {"model_human_readable_id": model}
        return self.api.call("POST", "/api/uploads/", params=params, headers={**about, **(headers or {})}, data=data)

    def opened(self, model: str, length: int) -> str:
        """The path of the upload."""
        answer = self.open(model, length)
        assert answer.status_code == 201, answer.text
        return answer.headers["Location"]

    def ask(self, path: str) -> requests.Response:
        return self.api.call("HEAD", path, headers=VERSION)

    def offset(self, path: str) -> int:
        answer = self.ask(path)
        assert answer.status_code == 200
        return int(answer.headers["Upload-Offset"])

    def is_at(self, path: str, offset: int) -> bool:
        """Or further."""
        return self.offset(path) >= offset

    def send_rest(self, path: str, content: bytes) -> None:
        """From where the upload is. What a request stored that was cut off just now may be known a moment later."""
        while (answer := self.append(path, offset := self.offset(path), content[offset:])).status_code == 409:
            pass
        assert answer.status_code == 204, answer.text

    def append(
        self, path: str, offset: int, data: bytes, *, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
        about = {**VERSION, "Upload-Offset": str(offset), "Content-Type": BYTES_TYPE}
        return self.api.call("PATCH", path, headers={**about, **(headers or {})}, data=data)

    def give_up(self, path: str) -> requests.Response:
        return self.api.call("DELETE", path, headers=VERSION)


def uid_of(path: str) -> str:
    return path.rpartition("/")[2]


@contextmanager
def half_sent(stack: Stack, path: str, offset: int, content: bytes, *, of: int) -> Iterator[None]:
    """A PATCH of `of` bytes from the offset on that stands still after `content`. Its client goes away at the end."""
    context = ssl.create_default_context(cafile=str(stack.certificates.ca_cert))
    connection = http.client.HTTPSConnection("localhost", stack.ports.gateway, timeout=CALL_SECONDS, context=context)
    headers = {**VERSION, "Upload-Offset": str(offset), "Content-Type": BYTES_TYPE, "Content-Length": str(of)}
    try:
        connection.putrequest("PATCH", path)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        connection.send(content)
        yield
    finally:
        connection.close()
