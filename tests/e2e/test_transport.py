"""How the gateway is reached: TLS 1.2 and 1.3, HTTP/1.1 and HTTP/2."""

import http.client
import random
import socket
import ssl
import struct

import pytest
import requests

from demo.stack import Stack
from tests.e2e import http2
from tests.e2e.api import Api
from tests.zips import files_of, zip_of

ALERT, HANDSHAKE = 0x15, 0x16
TLS_1_0, TLS_1_1, TLS_1_2 = 0x0301, 0x0302, 0x0303
LARGE = zip_of({"random.bin": random.Random(2).randbytes(3 * 2**20)})


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_tls_is_verified(stack: Stack, version: ssl.TLSVersion, host: str) -> None:
    """By name and by address, with either version."""
    context = ssl.create_default_context(cafile=stack.certificates.ca_cert)
    context.minimum_version = context.maximum_version = version
    connection = http.client.HTTPSConnection(host, stack.ports.gateway, context=context, timeout=30)
    connection.request("GET", "/")
    answer = connection.getresponse()
    assert (answer.status, answer.version) == (200, 11)
    connection.close()


def hello(version: int) -> bytes:
    """A ClientHello whose only version is this one, with suites and signatures that any of them could use."""
    suites = struct.pack(">8H", 0xC02B, 0xC02F, 0xC02C, 0xC030, 0xC009, 0xC013, 0xC00A, 0xC014)
    signatures = struct.pack(">6H", 0x000D, 8, 6, 0x0403, 0x0804, 0x0401)
    curves = struct.pack(">5H", 0x000A, 6, 4, 0x001D, 0x0017)
    body = struct.pack(">H32sBH", version, bytes(32), 0, len(suites)) + suites + b"\x01\x00"
    body += struct.pack(">H", len(signatures + curves)) + signatures + curves
    return b"\x01" + len(body).to_bytes(3, "big") + body


@pytest.mark.parametrize(("version", "is_accepted"), [(TLS_1_0, False), (TLS_1_1, False), (TLS_1_2, True)])
def test_older_tls_is_refused(stack: Stack, version: int, is_accepted: bool) -> None:
    """A hello of TLS 1.1 or older gets an alert or nothing; the same hello of TLS 1.2 gets the server's."""
    message = hello(version)
    with socket.create_connection(("127.0.0.1", stack.ports.gateway), 30) as connection:
        connection.sendall(struct.pack(">BHH", HANDSHAKE, TLS_1_0, len(message)) + message)
        answer = connection.recv(1)
    assert answer == HANDSHAKE.to_bytes() if is_accepted else answer in (b"", ALERT.to_bytes())


def test_another_ca_is_not_believed(stack: Stack) -> None:
    """The certificate is the local CA's, and only who has that believes it."""
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(stack.gateway_url, timeout=30, verify=True)


def test_plain_http_is_not_served(stack: Stack) -> None:
    """Nobody's zip travels in the clear because of a missing letter."""
    with pytest.raises(requests.exceptions.ConnectionError):
        requests.get(stack.gateway_url.replace("https", "http"), timeout=30)


def test_a_task_over_http2(stack: Stack, api: Api, copying: str) -> None:
    """Posted and fetched in streams larger than any window."""
    ca_cert = stack.certificates.ca_cert
    headers = {"content-type": "application/zip", "content-length": str(len(LARGE))}
    url = f"{stack.gateway_url}/api/tasks/?model_human_readable_id={copying}"
    posted = http2.request("POST", url, ca_cert=ca_cert, headers=headers, body=LARGE)
    assert posted.status_code == 200, posted.content
    uid = posted.content.decode().strip('"')
    assert api.wait(uid).status_code == 200

    fetched = http2.request("GET", f"{stack.gateway_url}/api/tasks/{uid}", ca_cert=ca_cert)
    assert fetched.status_code == 200
    assert files_of(fetched.content) == files_of(LARGE)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 200),
        ("GET", "/api/models/", 200),
        ("GET", "/api/models", 307),
        ("PUT", "/api/models/", 405),
        ("GET", "/nothing", 404),
        ("GET", f"/api/tasks/{'A' * 43}", 554),
        ("POST", "/api/tasks/?model_human_readable_id=nobody's", 550),
    ],
)
def test_answers_are_the_same_over_http2(stack: Stack, api: Api, method: str, path: str, status: int) -> None:
    """Version 1's own status codes included."""
    body = LARGE if method == "POST" else b""
    over_2 = http2.request(method, stack.gateway_url + path, ca_cert=stack.certificates.ca_cert, body=body)
    over_1 = api.call(method, path, data=body)
    assert (over_2.status_code, over_2.content) == (status, over_1.content)


def test_who_offers_both_gets_http_1_1(stack: Stack) -> None:
    """Uploads over HTTP/2 cost several times as much."""
    context = ssl.create_default_context(cafile=stack.certificates.ca_cert)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection(("127.0.0.1", stack.ports.gateway), 30) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        assert connection.selected_alpn_protocol() == "http/1.1"
