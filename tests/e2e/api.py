"""The API as a client calls it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

NOT_YET = 551
CALL_SECONDS = 120
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Api:
    """`public` is the gateway, over HTTPS; `private` is core, with its token."""

    url: str
    session: requests.Session = field(repr=False)

    @classmethod
    def public(cls, url: str, ca_cert: Path) -> "Api":
        session = _session()
        session.verify = str(ca_cert)
        return cls(url, session)

    @classmethod
    def private(cls, url: str, token: str) -> "Api":
        session = _session()
        session.headers["Authorization"] = f"Bearer {token}"
        return cls(url, session)

    def call(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        zip: bytes | None = None,
        data: Any = None,
    ) -> requests.Response:
        """`zip` goes as the form's file. Redirects aren't followed."""
        return self.session.request(
            method,
            self.url + path,
            params=params,
            headers=headers,
            files=None if zip is None else {"zip_file": ("input.zip", zip)},
            data=data,
            allow_redirects=False,
            timeout=CALL_SECONDS,
        )

    def get(self, path: str, **headers: str) -> requests.Response:
        return self.call("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})

    def post(self, model: str, zip: bytes) -> str:
        """The uid of a new task."""
        answer = self.call("POST", "/api/tasks/", params={"model_human_readable_id": model}, zip=zip)
        assert answer.status_code == 200, answer.text
        return str(answer.json())

    def wait(self, uid: str) -> requests.Response:
        """The first answer that isn't 551."""
        self.wait_for_end(uid)
        return self.get(f"/api/tasks/{uid}")

    def wait_for_end(self, uid: str, *, within_seconds: float = 60.0) -> int:
        """The first status that isn't 551; nothing is fetched."""
        deadline = time.monotonic() + within_seconds
        while (status := self.call("HEAD", f"/api/tasks/{uid}").status_code) == NOT_YET:
            assert time.monotonic() < deadline, f"task {uid} isn't done after {within_seconds} s"
            time.sleep(POLL_SECONDS)
        return status

    def output(self, model: str, zip: bytes) -> bytes:
        """The output zip of a task that succeeds."""
        answer = self.wait(self.post(model, zip))
        assert answer.status_code == 200, answer.text
        return answer.content

    def failure(self, model: str, zip: bytes) -> dict[str, Any]:
        """The inner detail of a task that fails."""
        answer = self.wait(self.post(model, zip))
        assert answer.status_code == 552, answer.text
        detail: dict[str, Any] = answer.json()["detail"]
        assert detail["detail"] == "Job status is 'failed'"
        return detail

    def delete(self, uid: str) -> requests.Response:
        return self.call("DELETE", f"/api/tasks/{uid}")


def _session() -> requests.Session:
    session = requests.Session()
    session.trust_env = False  # else a proxy or a CA bundle named in the environment wins
    return session
