"""The gateway's certificate, exchanged while it serves, and the certificates that it may ask clients for."""

import asyncio
import hashlib
import random
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from cryptography import x509
from inference_client import Client

from core.store.blobs import CHUNK_BYTES
from demo.stack import REPOSITORY, Stack
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT
from tests.e2e.gateways import Gateway, gateway
from tests.e2e.test_metrics import figures_of, of
from tests.waiting import eventually, eventually_async
from tests.zips import zip_of
from tls import certs

DOWNLOADS = 50
OUTPUT = zip_of({"random.bin": random.Random(3).randbytes(12 * CHUNK_BYTES)})
HELD_BYTES = 2**15
"""Of a download, by a client that doesn't read on: most of it is still the gateway's to send."""


@pytest.fixture(scope="module")
def files(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> certs.Certificates:
    """Of the stack's authority, for another gateway."""
    folder = tmp_path_factory.mktemp("certificates")
    shutil.copytree(stack.certificates.folder, folder, dirs_exist_ok=True)
    return certs.make(folder, "localhost")


@pytest.fixture(scope="module")
def another(stack: Stack, files: certs.Certificates, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Of two processes."""
    folder, cert, key = tmp_path_factory.mktemp("gateway"), str(files.cert), str(files.key)
    with gateway(stack, folder, GATEWAY_WORKERS="2", TLS_CERT_FILE=cert, TLS_KEY_FILE=key) as another:
        yield another


def serial(files: certs.Certificates) -> int:
    return x509.load_pem_x509_certificate(files.cert.read_bytes()).serial_number


def shown(port: int) -> int:
    """The serial number on a new connection."""
    pem = ssl.get_server_certificate(("127.0.0.1", port), timeout=10)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def is_shown_by_all(another: Gateway, number: int) -> bool:
    """The kernel chooses which process answers: of so many connections all to one is one chance in half a million."""
    return all(shown(another.port) == number for _ in range(20))


def is_resumed(another: Gateway) -> bool:
    """Whether a second connection may go on with the first one's session."""
    trust, session = another.trust, None
    for _ in range(2):
        plain = socket.create_connection(("127.0.0.1", another.port), 10)
        with trust.wrap_socket(plain, server_hostname="localhost", session=session) as connection:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert connection.recv(2**16).startswith(b"HTTP/1.1 200")
            session = connection.session
            was_resumed = connection.session_reused
    return bool(was_resumed)


class Download:
    """One that has begun, of a client that reads no further until it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def begin(cls, another: Gateway, path: str) -> "Download":
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, HELD_BYTES)
        plain.connect(("127.0.0.1", another.port))
        reader, writer = await asyncio.open_connection(
            sock=plain, ssl=another.trust, server_hostname="localhost", limit=HELD_BYTES
        )
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        return cls(reader, writer)

    async def digest(self) -> str:
        """Of the rest, which is the body."""
        found = hashlib.sha256()
        while piece := await self._reader.read(2**18):
            found.update(piece)
        self._writer.close()
        return found.hexdigest()


async def test_an_exchange_breaks_no_download(
    another: Gateway, files: certs.Certificates, api: Api, core: Api, waiting: str
) -> None:
    """All that were open arrive whole, and new connections get the new certificate, of both processes."""
    uid = api.post(waiting, INPUT)
    assert core.call("POST", f"/api/tasks/outputs/{uid}", zip=OUTPUT).status_code == 200
    former = serial(files)
    assert is_shown_by_all(another, former)

    downloads = await asyncio.gather(*(Download.begin(another, f"/api/tasks/{uid}") for _ in range(DOWNLOADS)))
    certs.make(files.folder, "localhost")
    assert serial(files) != former
    await eventually_async(lambda: is_shown_by_all(another, serial(files)))
    figures = figures_of(requests.get(another.metrics_url, timeout=10).text)
    assert of(figures, "http_requests_in_flight") == DOWNLOADS
    expires = x509.load_pem_x509_certificate(files.cert.read_bytes()).not_valid_after_utc
    assert of(figures, "certificate_expiry_timestamp_seconds") == expires.timestamp()

    digests = await asyncio.gather(*(download.digest() for download in downloads))
    assert set(digests) == {hashlib.sha256(OUTPUT).hexdigest()}


def test_a_half_pair_is_said_and_not_served(another: Gateway, files: certs.Certificates, core: Api) -> None:
    """In the log once a process, in figures, in /readyz, to core; it ends with a good pair."""
    former, good = serial(files), files.key.read_bytes()
    assert another.get("/readyz").json() == {"ready": True}
    files.key.write_bytes(certs.make(files.folder / "other", "localhost").key.read_bytes())
    degraded = eventually(lambda: another.get("/readyz").json().get("degraded"))
    assert degraded["gateway"].startswith("can't serve its new certificate; its former one expires on ")

    def refused() -> float:
        return of(figures_of(requests.get(another.metrics_url, timeout=10).text), "certificate_refused")

    def reported() -> str:
        [one] = [one for one in core.get("/api/gateways/").json() if one["name"] == "another"]
        return str(one["certificate_refused"])

    eventually(refused)
    assert "server.key isn't the certificate's" in eventually(reported)
    eventually(lambda: another.log.read_text().count('"certificate.refused"') == 2)
    assert is_shown_by_all(another, former)

    files.key.write_bytes(good)
    eventually(lambda: not refused())
    assert another.get("/readyz").json() == {"ready": True}


def test_clients_show_certificates_where_they_are_asked_to(stack: Stack, tmp_path: Path) -> None:
    """One of the authority's, made for a client. Who shows none, or another's, gets no answer, and the log no error.
    TLS 1.2, in which it would travel in the clear, is refused, and no session goes on without one.
    """
    own = stack.certificates
    allowed = certs.issue_client(own, "dicom-node-1")
    stranger = certs.issue_client(certs.make(tmp_path / "stranger", "localhost"), "stranger")
    server = tmp_path / "server.pem"
    server.write_bytes(own.cert.read_bytes() + own.key.read_bytes())
    with gateway(stack, tmp_path, client_cert=allowed, TLS_CLIENT_CA_FILE=str(own.ca_cert)) as asking:
        assert asking.get("/").ok
        with Client(asking.url, ca=asking.ca_cert, cert=allowed) as client:
            client.models()
        for refused in (None, stranger, server):
            cert = str(refused) if refused else None
            with pytest.raises(requests.ConnectionError):
                requests.get(asking.url, verify=str(asking.ca_cert), cert=cert, timeout=30)
        assert not is_resumed(asking)
        former = asking.trust
        former.maximum_version = ssl.TLSVersion.TLSv1_2
        with socket.create_connection(("127.0.0.1", asking.port), 10) as plain, pytest.raises(OSError):
            former.wrap_socket(plain, server_hostname="localhost")
        assert asking.get("/").ok
        probe = [sys.executable, "-I", str(REPOSITORY / "core" / "probe.py"), f"{asking.url}/healthz", "--handshake"]
        assert subprocess.run(probe, timeout=30).returncode == 0
    said = asking.log.read_text()
    assert "Traceback" not in said
    assert '"level": "error"' not in said
