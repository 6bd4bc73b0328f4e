"""What comes before a request: who stalls TLS, offers what is weak, or speaks plain HTTP."""

import http.client
import selectors
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
import requests

from core.serving import HANDSHAKE_SECONDS
from demo.ports import free_ports
from demo.stack import Stack
from gateway.redirect import HEAD_BYTES, HEAD_SECONDS
from tests.e2e.api import Api
from tests.e2e.gateways import gateway

STALLING = 30
MARGIN_SECONDS = 5
DRIBBLE_SECONDS = 0.5
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100)
"""The beginning of one."""


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10)


def seconds_until_closed(stalling: list[socket.socket], *, dribble: bytes = b"") -> float:
    """All of them by the other side; those that dribble send a byte at a time until then."""
    began = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for connection in stalling:
            connection.setblocking(False)
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map():
            assert time.monotonic() - began < HANDSHAKE_SECONDS + MARGIN_SECONDS
            for key, _ in selector.select(DRIBBLE_SECONDS):
                selector.unregister(key.fileobj)
            for key in list(selector.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                with suppress(ConnectionError):  # closed since
                    key.fileobj.send(dribble[:1])
            dribble = dribble[1:]
    return time.monotonic() - began


def test_who_stalls_the_handshake_is_cut(stack: Stack, api: Api) -> None:
    """Half say nothing, half dribble a hello. Others are answered meanwhile, and the log has no error."""
    log = stack.log("gateway")
    said = log.stat().st_size
    silent = [connect(stack.ports.gateway) for _ in range(STALLING)]
    dribbling = [connect(stack.ports.gateway) for _ in range(STALLING)]
    try:
        assert api.get("/healthz").ok
        assert requests.get(f"{stack.gateway_url}/healthz", verify=str(stack.certificates.ca_cert), timeout=5).ok
        assert seconds_until_closed(dribbling, dribble=HELLO) < HANDSHAKE_SECONDS + MARGIN_SECONDS
        assert seconds_until_closed(silent) < MARGIN_SECONDS
    finally:
        for connection in (*silent, *dribbling):
            connection.close()
    told = log.read_text()[said:]
    assert "Traceback" not in told
    assert '"level": "error"' not in told


@pytest.mark.parametrize(
    ("suite", "is_taken"),
    [
        ("ECDHE-ECDSA-AES128-GCM-SHA256", True),
        ("ECDHE-ECDSA-AES256-GCM-SHA384", True),
        ("ECDHE-ECDSA-CHACHA20-POLY1305", True),
        ("ECDHE-ECDSA-AES128-SHA256", False),
        ("ECDHE-ECDSA-AES256-SHA", False),
        ("ECDHE-ECDSA-AES128-CCM", False),
        ("DHE-RSA-AES128-GCM-SHA256", False),
        ("AES128-GCM-SHA256", False),
    ],
)
def test_suites_of_tls_1_2(stack: Stack, suite: str, is_taken: bool) -> None:
    """Forward secrecy and authenticated encryption, or no connection."""
    trust = ssl.create_default_context(cafile=stack.certificates.ca_cert)
    trust.maximum_version = ssl.TLSVersion.TLSv1_2
    trust.set_ciphers(f"{suite}:@SECLEVEL=0")
    with connect(stack.ports.gateway) as plain:
        if is_taken:
            with trust.wrap_socket(plain, server_hostname="localhost") as connection:
                assert connection.cipher() == (suite, "TLSv1.2", connection.cipher()[2])  # type: ignore[index]
        else:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                trust.wrap_socket(plain, server_hostname="localhost")


def test_browsers_stay_with_https(api: Api) -> None:
    """Told with every answer, but not of localhost, where a developer has other things."""
    for path in ("/", "/healthz", "/nothing", f"/api/tasks/{'A' * 43}"):
        answer = api.get(path, Host="models.example.org")
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
    for local in ("localhost", "localhost:8443", "dev.localhost:8443"):
        assert "Strict-Transport-Security" not in api.get("/", Host=local).headers


@pytest.fixture(scope="module")
def plain_port(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a gateway that clients reach at 8443."""
    [port] = free_ports(1)
    folder = tmp_path_factory.mktemp("redirecting")
    with gateway(stack, folder, GATEWAY_WORKERS="2", HTTP_REDIRECT_PORT=str(port), HTTPS_PORT="8443"):
        yield port


def asked(port: int, method: str, path: str, body: bytes | None = None, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, body=body, headers={"Host": "models.example.org", **headers})
    return connection.getresponse()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("host", ["models.example.org", "models.example.org:80", "192.0.2.7", "[2001:db8::1]:80"])
def test_plain_http_is_told_to_come_by_https(plain_port: int, method: str, host: str) -> None:
    """To the same path at the same host."""
    answer = asked(plain_port, method, "/docs?a=b%20c", Host=host)
    name = host.removesuffix(":80")
    assert (answer.status, answer.headers["Location"]) == (308, f"https://{name}:8443/docs?a=b%20c")
    assert answer.headers["Connection"] == "close"


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", {}),
        ("POST", {"Content-Length": "1000000000000"}),
        ("PUT", {"Transfer-Encoding": "chunked"}),
        ("DELETE", {}),
        ("GET", {"Content-Length": "5"}),
    ],
)
def test_plain_http_gets_no_body_through(plain_port: int, method: str, headers: dict[str, str]) -> None:
    """Refused by its head: whoever sent it in the clear hears of it at once."""
    connection = http.client.HTTPConnection("127.0.0.1", plain_port, timeout=10)
    connection.putrequest(method, "/api/tasks/")
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (403, b'{"detail":"Come by https"}')


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: models.example.org/evil\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a@evil.example\r\n\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: models.example.org\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: models.example.org\r\nX: " + b"x" * HEAD_BYTES,
    ],
)
def test_plain_http_that_is_none(plain_port: int, head: bytes) -> None:
    """No host, no path of ours, no HTTP, or too much of it."""
    with connect(plain_port) as connection:
        connection.sendall(head)
        assert connection.recv(2**16).startswith(b"HTTP/1.1 400 ")


def test_plain_http_that_dribbles_is_cut(plain_port: int) -> None:
    connections = [connect(plain_port) for _ in range(STALLING)]
    try:
        head = b"GET / HTTP/1.1\r\nHost: models.example.org\r\nX: " + b"x" * 100
        assert seconds_until_closed(connections, dribble=head) < HEAD_SECONDS + MARGIN_SECONDS
    finally:
        for connection in connections:
            connection.close()
