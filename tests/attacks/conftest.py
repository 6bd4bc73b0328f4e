"""Attacks on the stack that the session's tests share: refused without an error, a wait, a trace or a victim."""

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from demo.stack import Stack
from tests.attacks.wire import Door
from tests.e2e.api import NOT_YET, Api
from tests.e2e.conftest import INPUT, all_leaks, api, copying, core, eventually_settled, images, model, waiting
from tests.leaks import Leaks

__all__ = ["all_leaks", "api", "copying", "core", "images", "model", "waiting"]

HANG_SECONDS = 10
SLOWEST_ANSWER_SECONDS = 5
POLL_SECONDS = 0.1
PROCESSES = ("gateway", "core", "agent-1", "agent-2")
BROKEN = re.compile(r'^inference_server_http_request_duration_seconds_count{.*status="500".*} (\S+)$', re.MULTILINE)
UNFORESEEN = ("Traceback", "request.failed", "loop.failed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What hangs for longer has succeeded as an attack."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(HANG_SECONDS, func_only=True))


@pytest.fixture(scope="session")
def door(stack: Stack) -> Door:
    return Door("localhost", stack.ports.gateway, stack.certificates.ca_cert)


class Other:
    """A client that asks for its task all the while."""

    def __init__(self, api: Api, uid: str) -> None:
        self.seconds: list[float] = []
        self.statuses: set[int] = set()
        self._api = api
        self._uid = uid
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="other client")
        self._thread.start()

    def _ask(self) -> None:
        while not self._is_over.is_set():
            asked = time.monotonic()
            self.statuses.add(self._api.get(f"/api/tasks/{self._uid}").status_code)
            self.seconds.append(time.monotonic() - asked)
            self._is_over.wait(POLL_SECONDS)

    def end(self) -> None:
        self._is_over.set()
        self._thread.join()


@pytest.fixture(scope="module", autouse=True)
def unharmed(stack: Stack, core: Api, all_leaks: Leaks) -> Iterator[None]:
    """No process is another one, nothing was answered with 500 or logged that nobody had foreseen, nothing is left."""
    pids, broken = _pids(stack), _broken(stack, core)
    ends = {name: stack.log(name).stat().st_size for name in PROCESSES}
    yield
    for task in core.get("/api/tasks/").json():
        core.delete(task["uid"])
    eventually_settled(all_leaks)
    assert (_pids(stack), _broken(stack, core)) == (pids, broken)
    for name, end in ends.items():
        with stack.log(name).open() as log:
            log.seek(end)
            assert [line for line in log if any(word in line for word in UNFORESEEN)] == []


@pytest.fixture(scope="module", autouse=True)
def others(stack: Stack, waiting: str, unharmed: None) -> Iterator[None]:
    """They are answered in time, whatever happens meanwhile."""
    with Api.public(stack.gateway_url, stack.certificates.ca_cert).session as session:
        api = Api(stack.gateway_url, session)
        other = Other(api, api.post(waiting, INPUT))
        yield
        other.end()
    assert other.statuses == {NOT_YET}
    assert max(other.seconds) < SLOWEST_ANSWER_SECONDS


def _pids(stack: Stack) -> list[int]:
    return [stack.pid(name) for name in PROCESSES]


def _broken(stack: Stack, core: Api) -> float:
    """How often gateway and core have answered with 500."""
    figures = core.get("/metrics").text + requests.get(stack.metrics_url("gateway"), timeout=10).text
    return sum(map(float, BROKEN.findall(figures)))
