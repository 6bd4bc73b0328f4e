"""kill -9 of the gateway under its clients."""

import http.client
import time

import pytest
import requests
from redis import Redis

from core.store.blobs import CUT_OFF_SECONDS
from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT
from tests.faults.kills import kill, wait_until_back
from tests.faults.posting import half_posted
from tests.faults.transfers import LARGE, MiB, let_time_pass, loose
from tests.waiting import eventually


def test_in_a_post(core: Api, stack: Stack, redis: Redis, copying: str) -> None:
    """The client's connection breaks; core notices, and what it has stored goes in seconds."""
    with half_posted(stack, copying, LARGE) as post:
        eventually(lambda: loose(redis))
        kill(stack, "gateway")
        with pytest.raises((OSError, http.client.HTTPException)):
            post.answer()
    eventually(lambda: all(due <= time.time() + CUT_OFF_SECONDS for due in loose(redis).values()))
    assert core.get("/api/tasks/").json() == []
    let_time_pass(redis)
    wait_until_back(stack, "gateway")


def test_in_a_download(api: Api, core: Api, stack: Stack, waiting: str) -> None:
    """The client goes on where its connection broke, and has the same bytes as if nothing had been."""
    uid = api.post(waiting, INPUT)
    assert core.call("POST", f"/api/tasks/outputs/{uid}", zip=LARGE).status_code == 200
    with api.session.get(f"{api.url}/api/tasks/{uid}", stream=True, timeout=60) as download:
        etag = download.headers["ETag"]
        received = download.raw.read(MiB)
        kill(stack, "gateway")
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            received += b"".join(download.iter_content(MiB))
    wait_until_back(stack, "gateway")
    assert MiB <= len(received) < len(LARGE)
    rest = api.get(f"/api/tasks/{uid}", Range=f"bytes={len(received)}-", If_Range=etag)
    assert rest.status_code == 206
    assert received + rest.content == LARGE
