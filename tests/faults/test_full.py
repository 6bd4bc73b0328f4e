"""A Redis with little memory left."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from redis import Redis

from core.store import keys
from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.test_bad_input import connection_to
from tests.waiting import eventually
from tests.zips import zip_of

MiB = 2**20
FREE_BYTES = 96 * MiB
ZIP = zip_of({"random.bin": os.urandom(6 * MiB)})
CLIENTS = 12
ROUNDS = 2


@pytest.fixture
def little_memory(stack: Stack) -> Iterator[None]:
    """All but a tenth of it may be used by uploads."""
    with Redis.from_url(stack.redis_url, decode_responses=True) as redis:
        info = redis.info("memory")
        redis.config_set("maxmemory", info["used_memory"] + FREE_BYTES)
        yield
        redis.config_set("maxmemory", info["maxmemory"])


def test_a_full_store_refuses_and_ends_what_it_took(
    api: Api, core: Api, stack: Stack, copying: str, little_memory: None
) -> None:
    """Every post is taken or told to come back, whether its length is known or not, and every task taken finishes."""

    def post(number: int) -> tuple[requests.Response, ...]:
        own = Api.public(stack.gateway_url, stack.certificates.ca_cert)
        with own.session:
            return tuple(_post(own, copying, is_known=number % 4 != 0) for _ in range(ROUNDS))

    with ThreadPoolExecutor(CLIENTS) as clients:
        answers = [answer for answers in clients.map(post, range(CLIENTS)) for answer in answers]
    statuses = [answer.status_code for answer in answers]
    print({status: statuses.count(status) for status in sorted(set(statuses))})
    assert set(statuses) == {200, 507}
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers if answer.status_code == 507)
    uids = [answer.json() for answer in answers if answer.status_code == 200]
    assert {api.wait_for_end(uid) for uid in uids} == {200}
    refused = f"inference_server_uploads_refused_total {float(statuses.count(507))}"
    assert refused in core.get("/metrics").text


def _post(api: Api, model: str, *, is_known: bool) -> requests.Response:
    params = {"model_human_readable_id": model}
    if is_known:
        return api.call("POST", "/api/tasks/", params=params, zip=ZIP)
    pieces = (ZIP[start : start + MiB] for start in range(0, len(ZIP), MiB))
    return api.call("POST", "/api/tasks/", params=params, headers={"Content-Type": "application/zip"}, data=pieces)


def test_what_does_not_fit_now_is_refused_unread(stack: Stack, redis: Redis, copying: str, little_memory: None) -> None:
    """Another upload has the room. The client hears so after its headers: not a byte of the body was sent."""
    with connection_to(stack.gateway_url, stack) as first, connection_to(stack.gateway_url, stack) as second:
        first.sendall(_head(copying, 60 * MiB))
        eventually(lambda: redis.hlen(keys.INCOMING))
        second.sendall(_head(copying, 60 * MiB))
        answer = second.recv(4096).decode().lower()
    assert answer.startswith("http/1.1 507")
    assert "retry-after: " in answer


def test_what_never_fits_is_too_large(stack: Stack, copying: str, little_memory: None) -> None:
    """To come back later wouldn't help."""
    with connection_to(stack.gateway_url, stack) as connection:
        connection.sendall(_head(copying, 2**30))
        answer = connection.recv(4096).decode().lower()
    assert answer.startswith("http/1.1 413")
    assert "retry-after: " not in answer


def _head(model: str, size: int) -> bytes:
    """Of a post whose body is that long."""
    target = f"/api/tasks/?model_human_readable_id={model}"
    return (
        f"POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/zip\r\nContent-Length: {size}\r\n\r\n".encode()
    )
