"""`?wait=`: an answer that comes when the task has ended."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.api import NOT_YET, Api
from tests.e2e.conftest import INPUT

LONG = {"wait": "60"}
MOST_SECONDS = 20
"""Far less than the wait, and more than a slow machine takes."""


def test_the_output_comes_when_it_is_there(api: Api, core: Api, copying: str) -> None:
    """From the gateway, by parameter or by preference, and from core."""
    uid = api.post(copying, INPUT)
    answers = [
        api.call("GET", f"/api/tasks/{uid}", params=LONG),
        api.call("GET", f"/api/tasks/{uid}", headers={"Prefer": "wait=60"}),
        core.call("GET", f"/api/tasks/outputs/{uid}", params=LONG),
    ]
    assert [answer.status_code for answer in answers] == [200] * 3
    assert len({answer.content for answer in answers}) == 1


@pytest.mark.parametrize("end", ["cancelled", "deleted"])
def test_any_end_is_told_at_once(api: Api, core: Api, waiting: str, end: str) -> None:
    uid = api.post(waiting, INPUT)
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(client.call, "GET", path, params=LONG) for client, path in _both(api, core, uid)]
        time.sleep(0.5)  # they wait by then, or else they hear it all the sooner
        assert not any(answer.done() for answer in asked)
        (core.call("POST", f"/api/tasks/{uid}/cancel") if end == "cancelled" else core.delete(uid)).raise_for_status()
        assert [answer.result().status_code for answer in asked] == [552 if end == "cancelled" else 554] * 2
    assert time.monotonic() - began < MOST_SECONDS


def test_who_waits_in_vain_hears_what_others_hear(api: Api, core: Api, waiting: str) -> None:
    uid = api.post(waiting, INPUT)
    for client, path in _both(api, core, uid):
        began = time.monotonic()
        assert client.call("GET", path, params={"wait": "0.3"}).status_code == NOT_YET
        assert 0.3 <= time.monotonic() - began < MOST_SECONDS


def test_a_wait_that_is_no_time_is_refused(api: Api, waiting: str) -> None:
    answer = api.call("GET", f"/api/tasks/{api.post(waiting, INPUT)}", params={"wait": "soon"})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == ["query", "wait"]


def _both(api: Api, core: Api, uid: str) -> list[tuple[Api, str]]:
    return [(api, f"/api/tasks/{uid}"), (core, f"/api/tasks/outputs/{uid}")]
