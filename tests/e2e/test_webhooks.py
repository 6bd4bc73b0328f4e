"""A client's server is told that its task has ended, signed; and is told again until it takes it."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.e2e.api import Api
from tests.e2e.conftest import INPUT, ModelMaker
from tests.waiting import eventually

KEY = b"k" * 24
SECRET = f"whsec_{base64.b64encode(KEY).decode()}"


@dataclass
class Receiver:
    """Answers with these statuses, then with 204."""

    statuses: list[int] = field(default_factory=list)
    told: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    url: str = ""

    @contextmanager
    def listening(self) -> Iterator["Receiver"]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + body
                expected = base64.b64encode(hmac.digest(KEY, signed, hashlib.sha256)).decode()
                if self.headers["webhook-signature"] == f"v1,{expected}":
                    receiver.told.append(json.loads(body))
                    receiver.ids.append(self.headers["webhook-id"])
                self.send_response(receiver.statuses.pop(0) if receiver.statuses else 204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            self.url = f"http://127.0.0.1:{server.server_port}/hook"
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()


def _post(api: Api, model: str, url: str, secret: str = SECRET) -> Any:
    params = {"model_human_readable_id": model, "webhook": url}
    return api.call("POST", "/api/tasks/", params=params, zip=INPUT, headers={"Webhook-Secret": secret})


def test_ends_are_told(api: Api, copying: str, waiting: str) -> None:
    """With the task's status, once each."""
    with Receiver().listening() as receiver:
        finished, cancelled = (_post(api, model, receiver.url).json() for model in (copying, waiting))
        api.call("POST", f"/api/tasks/{cancelled}/cancel").raise_for_status()
        eventually(lambda: len(receiver.told) == 2)
        told = {event["data"]["uid"]: event for event in receiver.told}
        assert told[finished]["type"] == "task.finished"
        assert (told[cancelled]["type"], told[cancelled]["data"]["reason"]) == ("task.failed", "cancelled")
        assert len(set(receiver.ids)) == 2
    assert SECRET not in json.dumps(receiver.told)


def test_who_does_not_take_it_is_told_again(api: Api, copying: str) -> None:
    """The same, under the same id; and no task waits for that."""
    with Receiver([500]).listening() as receiver:
        uid = _post(api, copying, receiver.url).json()
        assert api.wait(uid).status_code == 200
        eventually(lambda: len(receiver.told) == 2)
        assert receiver.told[0] == receiver.told[1]
        assert len(set(receiver.ids)) == 1


def test_a_task_that_fails_twice_is_told_twice(api: Api, model: ModelMaker) -> None:
    """Each under an id of its own."""
    failing = model("exit 3")
    with Receiver().listening() as receiver:
        uid = _post(api, failing, receiver.url).json()
        eventually(lambda: len(receiver.told) == 1)
        api.call("POST", f"/api/tasks/{uid}/retry").raise_for_status()
        eventually(lambda: len(receiver.told) == 2)
        assert len(set(receiver.ids)) == 2


@pytest.mark.parametrize("url", ["https://169.254.169.254/latest", "http://example.org/", "https://10.0.0.1/", "hook"])
def test_core_calls_nobody_for_strangers(api: Api, copying: str, url: str) -> None:
    answer = _post(api, copying, url)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "webhook"])


@pytest.mark.parametrize("secret", ["", "short"])
def test_a_webhook_needs_a_secret(api: Api, copying: str, secret: str) -> None:
    answer = _post(api, copying, "https://example.org/", secret)
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["header", "webhook-secret"])


def test_secrets_are_not_shown(api: Api, core: Api, waiting: str) -> None:
    uid = _post(api, waiting, "https://example.org/").json()
    for client, path in ((core, f"/api/tasks/{uid}"), (api, f"/api/tasks/{uid}/status"), (core, "/api/tasks/")):
        answer = client.get(path)
        assert "https://example.org/" in answer.text
        assert SECRET not in answer.text
