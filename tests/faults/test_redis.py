"""Redis that is away, stands still, or comes later than core."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import requests
from redis import Redis

from core.store import keys
from demo.ports import Ports
from demo.stack import REPOSITORY, Stack
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT
from tests.faults.kills import frozen
from tests.waiting import eventually
from tests.zips import zip_of

UNKNOWN = "A" * 43
PROMPT_SECONDS = 2.0
CALLS = 20
MiB = 2**20

Fault = Callable[[Stack, str], AbstractContextManager[None]]


@contextmanager
def stopped(stack: Stack, name: str) -> Iterator[None]:
    """Connections are refused."""
    stack.stop(name)
    try:
        yield
    finally:
        stack.start(name)


@pytest.fixture(autouse=True)
def ready_after(leaks: object, api: Api) -> Iterator[None]:
    """Before the tasks of a test are counted."""
    yield
    eventually(lambda: api.get("/readyz").status_code == 200)


@pytest.mark.parametrize("away", [stopped, frozen])
def test_without_redis_nothing_hangs(api: Api, core: Api, stack: Stack, waiting: str, away: Fault) -> None:
    """Posts and polls are told within two seconds to come back, from the first moment on; then they work again."""
    uid = api.post(waiting, INPUT)
    slowest = 0.0

    def answered(answer: Callable[[], requests.Response]) -> requests.Response:
        nonlocal slowest
        started = time.monotonic()
        response = answer()
        slowest = max(slowest, time.monotonic() - started)
        return response

    def posted() -> requests.Response:
        return api.call("POST", "/api/tasks/", params={"model_human_readable_id": waiting}, zip=INPUT)

    with away(stack, "redis"):
        for _ in range(CALLS):
            for call in (posted, lambda: api.get(f"/api/tasks/{uid}")):
                answer = answered(call)
                assert answer.status_code == 503, answer.text
                assert int(answer.headers["Retry-After"]) > 0
        assert slowest < PROMPT_SECONDS
        for server in (api, core):
            readiness = answered(lambda server=server: server.get("/readyz"))  # type: ignore[misc]
            assert (readiness.status_code, readiness.json().keys()) == (503, {"ready", "missing"})
            assert readiness.json()["missing"].keys() == {"redis"}
            assert server.get("/healthz").status_code == 200
    print(f"{2 * CALLS} calls: the slowest took {slowest:.2f} s")
    eventually(lambda: api.get(f"/api/tasks/{uid}").status_code == 551)
    assert api.get("/readyz").json() == {"ready": True}


def test_an_upload_under_way_outlives_a_pause(api: Api, stack: Stack, waiting: str) -> None:
    """A server that stands still for a moment, as when it forks, costs new requests an answer, but no transfer."""
    zip = zip_of({"random.bin": os.urandom(8 * MiB)})
    middle = len(zip) // 2

    def pieces() -> Iterator[bytes]:
        yield zip[:middle]
        with Redis.from_url(stack.redis_url) as redis:
            eventually(lambda: redis.exists(keys.LOOSE))
        with frozen(stack, "redis"):
            yield zip[middle : middle + MiB]
            eventually(lambda: api.get("/readyz").status_code == 503)
        yield zip[middle + MiB :]

    headers = {"Content-Type": "application/zip"}
    other = Api.public(stack.gateway_url, stack.certificates.ca_cert)
    with other.session:
        params = {"model_human_readable_id": waiting}
        answer = other.call("POST", "/api/tasks/", params=params, headers=headers, data=pieces())
    assert answer.status_code == 200, answer.text


def test_without_core_the_gateway_says_so(api: Api, stack: Stack) -> None:
    """It lives, and isn't ready."""
    with stopped(stack, "core"):
        answer = api.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"ready": False, "missing": {"core": "does not answer"}})
        assert api.get("/healthz").status_code == 200


def test_core_waits_for_its_servers(tmp_path: Path) -> None:
    """Started first it lives, says what is missing, and is ready without a restart when they are there. Without
    RabbitMQ it still takes tasks, so that it stays in service, and says what is late.
    """
    servers = Stack(tmp_path / "servers", Ports.free(), only=("epmd", "redis", "rabbitmq"))
    port = Ports.free().core
    environment = {
        "PATH": os.environ["PATH"],
        "CORE_HOST": "127.0.0.1",
        "CORE_PORT": str(port),
        "CORE_TOKEN": "token",
        "REDIS_URL": servers.redis_url,
        "RABBITMQ_URL": servers.rabbitmq_url,
    }
    core = Api.private(f"http://127.0.0.1:{port}", "token")

    def answers() -> bool:
        try:
            return core.get("/healthz").ok
        except requests.ConnectionError:
            return False

    with (tmp_path / "core.log").open("wb") as log, core.session:
        process = subprocess.Popen(
            [sys.executable, "-m", "core"], env=environment, cwd=REPOSITORY, stdout=log, stderr=log
        )
        try:
            eventually(answers)
            answer = core.get("/readyz")
            assert (answer.status_code, answer.json()["ready"]) == (503, False)
            assert (answer.json()["missing"].keys(), answer.json()["degraded"].keys()) == ({"redis"}, {"rabbitmq"})
            assert core.get("/api/models/").status_code == 503
            servers.up()
            eventually(lambda: core.get("/readyz").json() == {"ready": True})
            model = {"human_readable_id": "copy", "container_tag": "copy"}
            assert core.call("POST", "/api/models/", params=model).status_code == 200
            servers.stop("rabbitmq")
            eventually(lambda: "degraded" in core.get("/readyz").json())
            assert core.get("/readyz").status_code == 200
            assert core.post("copy", INPUT)
        finally:
            process.terminate()
            process.wait(timeout=60)
            servers.down()
            servers.delete()
