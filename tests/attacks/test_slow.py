"""Clients that take their time: they hold little, not for ever, and nobody else waits for them."""

import socket
import ssl
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from core.tus import BYTES_TYPE
from demo.ports import free_ports
from demo.stack import Stack
from gateway.__main__ import KEEP_ALIVE_SECONDS
from tests.attacks.frames import PREFACE, fields, headers
from tests.attacks.wire import Door, Wire, request
from tests.bench.slow_clients import Order, SlowClients
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT, ModelMaker
from tests.e2e.gateways import gateway
from tests.waiting import eventually

CUT_SECONDS = KEEP_ALIVE_SECONDS + 10
MOST_OF_ONE = 10
SLOW = 300
MiB = 2**20

UNBEGUN = {
    "nothing": ("http/1.1", b""),
    "half a line": ("http/1.1", b"GET /"),
    "half a head": ("http/1.1", b"GET / HTTP/1.1\r\nHost: localhost\r\n"),
    "a head without end": ("http/1.1", b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X-Any: a\r\n" * 1000),
    "no preface": ("h2", b""),
    "half a preface": ("h2", PREFACE[:10]),
    "only a preface": ("h2", PREFACE),
    "half a frame": ("h2", PREFACE + headers(fields())[:-1]),
    "headers without end": ("h2", PREFACE + headers(fields(), is_whole=False)),
    "a second one": ("http/1.1", request("HEAD", "/") + b"GET / HTTP/1.1\r\nHost:"),
}


@pytest.mark.timeout(2 * CUT_SECONDS, func_only=True)
def test_who_does_not_ask_is_hung_up_on(stack: Stack, door: Door) -> None:
    """A request's head has its time, on whichever connection; so has a handshake."""
    with ExitStack() as opened, ThreadPoolExecutor(len(UNBEGUN) + 1) as pool:
        mute = opened.enter_context(socket.create_connection(("localhost", stack.ports.gateway), CUT_SECONDS))
        wires = [opened.enter_context(door.opened(protocol)) for protocol, _ in UNBEGUN.values()]
        for wire, (_, sent) in zip(wires, UNBEGUN.values(), strict=True):
            wire.connection.settimeout(CUT_SECONDS)
            wire.send(sent)
        ends = [pool.submit(wire.rest) for wire in wires]
        assert mute.recv(1) == b""
        for name, end in zip(UNBEGUN, ends, strict=True):
            assert end.result() is not None, name


@pytest.mark.timeout(120, func_only=True)
def test_three_hundred_slow_clients(stack: Stack, api: Api, model: ModelMaker) -> None:
    """Of each kind a hundred, all the while: others post, run and fetch, and no memory grows by more than that of a few
    megabytes for each. `just bench slow` measures it with a thousand.
    """
    output = model("dd if=/dev/urandom of=/output/large bs=1M count=8")
    uid = api.post(output, INPUT)
    assert api.wait_for_end(uid, within_seconds=30) == 200
    before = _resident_mib(stack)
    with SlowClients(Order(stack.ports.gateway, str(stack.certificates.ca_cert), SLOW, output, uid, seconds=0)):
        assert api.wait_for_end(api.post(output, INPUT), within_seconds=30) == 200
        assert (_resident_mib(stack) - before) / SLOW < 3


@pytest.fixture
def slow(door: Door, copying: str) -> Iterator[list[Wire]]:
    """Thirty that have begun to send a zip, or to fetch something large, and do nothing more."""
    begun = [
        request("POST", f"/api/tasks/?model_human_readable_id={copying}", b"Content-Length: 3000", body=b"PK"),
        request("POST", f"/api/tasks/?model_human_readable_id={copying}", b"Content-Length: 3000000", body=b"PK"),
        request(
            "POST", f"/api/tasks/?model_human_readable_id={copying}", b"Transfer-Encoding: chunked", body=b"5\r\nPK"
        ),
        request("POST", "/api/models/?container_tag=x&human_readable_id=x&model_available=1", b"Content-Length: 3000"),
        request("GET", "/docs/swagger-ui-bundle.js") * 10,
    ]
    with ExitStack() as opened:
        wires = [opened.enter_context(door.opened()) for _ in range(6) for _ in begun]
        for number, wire in enumerate(wires):
            wire.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            wire.send(begun[number % len(begun)])
        yield wires


def test_a_body_that_stands_still_holds_nobody_up(slow: list[Wire], api: Api, copying: str) -> None:
    """Tasks of others are taken, run and answered meanwhile."""
    assert len(slow) == 30
    uid = api.post(copying, INPUT)
    assert api.wait_for_end(uid, within_seconds=8) == 200


def test_who_leaves_in_the_middle_is_forgotten(door: Door, api: Api, copying: str) -> None:
    """By a reset, a hundred times, in the middle of a body that nobody has asked for."""
    for _ in range(100):
        with door.opened() as wire:
            wire.send(request("POST", "/nothing", b"Content-Length: 100000", body=bytes(50_000)))
            wire.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    assert api.call("HEAD", f"/api/tasks/{'A' * 43}").status_code == 554


def test_what_nobody_takes_is_not_fetched(door: Door, api: Api, stack: Stack) -> None:
    """A client that asks a hundred times on one connection and reads nothing gets no more than fits into it."""
    before = _resident_mib(stack)
    with door.opened() as wire:
        wire.connection.settimeout(2)
        with pytest.raises(TimeoutError):
            wire.connection.sendall(request("GET", "/docs/swagger-ui-bundle.js") * 300_000)
        assert _resident_mib(stack) - before < 50


def _resident_mib(stack: Stack) -> float:
    lines = Path(f"/proc/{stack.pid('gateway')}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


@pytest.mark.timeout(60, func_only=True)
def test_one_address_has_so_many_connections(stack: Stack, tmp_path: Path) -> None:
    """More are hung up on, and counted; those that it has go on, and when it gives some back it gets others. The port
    that leads to https is no other.
    """
    [plain_port] = free_ports(1)
    another = gateway(
        stack,
        tmp_path,
        MAX_CONNECTIONS_PER_ADDRESS=str(MOST_OF_ONE),
        HTTP_REDIRECT_PORT=str(plain_port),
        GATEWAY_WORKERS="1",
    )
    with another as bounded, ExitStack() as opened:
        door = Door("localhost", int(bounded.url.rpartition(":")[2]), bounded.ca_cert)

        def serves() -> bool:
            with door.opened() as wire:
                return wire.send(request("GET", "/healthz")) and not wire.ends()

        def redirects() -> bool:
            with socket.create_connection(("127.0.0.1", plain_port), 10) as plain, suppress(ConnectionError):
                plain.sendall(request("GET", "/"))
                return plain.recv(2**16).startswith(b"HTTP/1.1 308 ")
            return False

        eventually(serves)
        assert redirects()
        wires = [opened.enter_context(door.opened()) for _ in range(MOST_OF_ONE)]
        for wire in wires:
            wire.send(request("GET", "/healthz"))
            assert wire.answer().status == 200
        assert not serves()
        assert not redirects()
        wires.pop().connection.close()
        eventually(serves)
        for wire in wires:
            wire.send(request("GET", "/healthz"))
            assert wire.answer().status == 200
    assert "connections.refused" in bounded.log.read_text()


@pytest.mark.timeout(60, func_only=True)
def test_five_hundred_handshakes_that_end_in_nothing(door: Door, api: Api) -> None:
    """Each costs us more than its client; none stays."""
    context = ssl.create_default_context(cafile=door.ca_cert)
    hello = ssl.MemoryBIO()
    handshake = context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname=door.host)
    with pytest.raises(ssl.SSLWantReadError):
        handshake.do_handshake()
    data = hello.read()
    for number in range(500):
        with socket.create_connection((door.host, door.port), 10) as plain:
            plain.sendall(data if number % 2 else data[:100])
    assert api.get("/healthz").status_code == 200


def test_uploads_that_are_opened_keep_nobody_out(api: Api, core: Api, copying: str) -> None:
    """However much they announce: their room isn't theirs for long, and what is small beside it is let in."""
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(3072 * MiB)}
    paths, statuses = [], set()
    for _ in range(100):
        answer = api.call("POST", "/api/uploads/", params={"model_human_readable_id": copying}, headers=headers)
        statuses.add(answer.status_code)
        paths += [answer.headers["Location"]] if answer.status_code == 201 else []
    assert statuses == {201, 507}
    assert api.wait_for_end(api.post(copying, INPUT), within_seconds=8) == 200
    rest = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", "Content-Type": BYTES_TYPE}
    assert api.call("PATCH", paths[0], headers=rest, data=b"PK").status_code == 204
    for path in paths:
        assert api.call("DELETE", path, headers=headers).status_code == 204
