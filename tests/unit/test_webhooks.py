"""Whom webhooks may be sent to, and how they are signed."""

import asyncio
import base64
import hashlib
import hmac
import socket
import subprocess
import sys
import threading
from typing import NoReturn

import pytest

from core.contract.errors import InvalidParameters
from core.contract.options import SECRET
from core.webhooks import LOOKUPS_AT_ONCE, Guard, Postman, signature
from tests.waiting import eventually_async

ALLOWED = Guard.of("10.1.0.0/16, hooks.example.org,127.0.0.1")
KEY = bytes(range(24))


@pytest.mark.parametrize(
    "url",
    [
        "https://example.org/hook",
        "https://example.org:8443/hook?task=1",
        "https://93.184.215.14/",
        "https://[2606:4700:4700::1111]/",
        "https://127.example.org/",
        "http://hooks.example.org/",
        "http://10.1.2.3:8080/",
    ],
)
def test_may_be_sent_to(url: str) -> None:
    ALLOWED.check(url)


@pytest.mark.parametrize(
    "url",
    [
        *("", "example.org", "ftp://example.org/", "https://", "https://user:password@example.org/", "https://[::1"),
        *("http://example.org/", "https://10.2.0.1/", "https://192.168.0.1/", "https://127.0.0.2/", "https://0.0.0.0/"),
        *("https://169.254.169.254/latest", "https://100.64.0.1/", "https://224.0.0.1/", "https://[::1]/"),
        *("https://[fe80::1]/", "https://[fd00::1]/", "https://[::ffff:192.168.0.1]/", "https://[64:ff9b::a00:1]/"),
        *(
            "https://[2002:a00:1::]/",
            "https://255.255.255.255/",
            "https://[64:ff9b:1::808:808]/",
            "https://[::808:808]/",
        ),
        *("https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0X7F.1/", "https://0177.0.0.1./"),
    ],
)
def test_may_not_be_sent_to(url: str) -> None:
    """Nor be posted: the client is told what would be right."""
    with pytest.raises(InvalidParameters):
        ALLOWED.check(url)


async def test_a_name_that_leads_inside_is_not_called() -> None:
    """Whatever it led to when the task was posted: the address that is connected to is the one that is checked."""
    outbox: object = None
    async with Postman.open(outbox, Guard()) as postman:  # type: ignore[arg-type]
        with pytest.raises(OSError, match="leads nowhere"):
            await postman.session.post("https://localhost:1/")


async def test_nobody_else_waits_for_a_nameserver_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop's own threads, which look up Redis too, stay free; and no more lookups than so many go on at once."""
    answers, asked = threading.Event(), []

    def never(host: str, *args: object, **kwargs: object) -> NoReturn:
        asked.append(host)
        answers.wait()
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", never)
    outbox: object = None
    try:
        async with Postman.open(outbox, Guard()) as postman, asyncio.timeout(10):  # type: ignore[arg-type]
            urls = [f"https://{number}.example.org/" for number in range(2 * LOOKUPS_AT_ONCE)]
            calls = [asyncio.create_task(postman.session.post(url)) for url in urls]
            await eventually_async(lambda: len(asked) >= LOOKUPS_AT_ONCE, within_seconds=5)
            await asyncio.to_thread(bool)
            assert len(asked) == LOOKUPS_AT_ONCE
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
    finally:
        answers.set()


def test_the_process_ends_without_its_lookups() -> None:
    """What can't be called off isn't waited for."""
    program = """
import asyncio, socket, time
from core.webhooks import Guard, Postman

async def main():
    async with Postman.open(None, Guard()) as postman:
        try:
            async with asyncio.timeout(0.1):
                await postman.session.post("https://example.org/")
        except TimeoutError:
            print("asked")

socket.getaddrinfo = lambda *args, **kwargs: time.sleep(60)
asyncio.run(main())
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert ended.stdout == "asked\n"


@pytest.mark.parametrize(("secret", "key"), [(f"whsec_{base64.b64encode(KEY).decode()}", KEY), ("s" * 24, b"s" * 24)])
def test_signatures_are_those_of_standard_webhooks(secret: str, key: bytes) -> None:
    """HMAC-SHA256 over id, time and body, with points between."""
    assert SECRET.fullmatch(secret)
    expected = base64.b64encode(hmac.digest(key, b"msg.1614265330.{}", hashlib.sha256)).decode()
    assert signature(secret, "msg", 1614265330, b"{}") == f"v1,{expected}"


@pytest.mark.parametrize("secret", ["", "short", "whsec_", "whsec_" + "?" * 32, "whsec_" + "A" * 33, "a b" * 10])
def test_what_is_no_secret(secret: str) -> None:
    assert not SECRET.fullmatch(secret)
