"""The certificates are what strict clients accept, and nothing of the operator's is overwritten."""

import os
import ssl
import stat
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from tls.certs import (
    CertificatesInTheWayError,
    DomainError,
    NoAuthorityError,
    ensure,
    issue_client,
    issue_inner,
    make,
)


def handshake(*, folder: Path, ca_cert: Path, hostname: str) -> None:
    """A TLS handshake in memory that ends as the client's verification does."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(folder / "server.crt", folder / "server.key")
    client_context = ssl.create_default_context(cafile=ca_cert)
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(to_client, to_server, server_hostname=hostname)
    server = server_context.wrap_bio(to_server, to_client, server_side=True)
    done = False
    while not done:
        done = True
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                done = False


@pytest.mark.parametrize("hostname", ["models.example.org", "localhost", "127.0.0.1", "::1"])
def test_strict_client_accepts_every_name(tmp_path: Path, hostname: str) -> None:
    files = make(tmp_path, "models.example.org")
    handshake(folder=tmp_path, ca_cert=files.ca_cert, hostname=hostname)


def test_client_refuses_another_name(tmp_path: Path) -> None:
    files = make(tmp_path, "models.example.org")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(folder=tmp_path, ca_cert=files.ca_cert, hostname="other.example.org")


@pytest.mark.parametrize(
    ("domain", "hostname"), [("192.0.2.7", "192.0.2.7"), ("bücher.example", "xn--bcher-kva.example")]
)
def test_addresses_and_international_names(tmp_path: Path, domain: str, hostname: str) -> None:
    files = make(tmp_path, domain)
    handshake(folder=tmp_path, ca_cert=files.ca_cert, hostname=hostname)


def test_keys_are_private_and_nothing_else_is_left(tmp_path: Path) -> None:
    make(tmp_path, "localhost")
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "server.crt": 0o644, "server.key": 0o640}


@pytest.mark.parametrize("domain", ["", "a..b", "https://models.example.org:443", "[2001:db8::1]", "a b", "a" * 64])
def test_no_domain_makes_nothing(tmp_path: Path, domain: str) -> None:
    with pytest.raises(DomainError, match="neither a host's name nor an IP address"):
        make(tmp_path / "certs", domain)
    assert not (tmp_path / "certs").exists()


def test_a_key_is_for_its_folders_group(tmp_path: Path) -> None:
    """Whoever makes it: an operator, or root in the operator's place."""
    groups = {os.getgid(), *os.getgroups(), *([4242] if os.getuid() == 0 else [])}
    os.chown(tmp_path, -1, max(groups))
    assert make(tmp_path, "localhost").key.stat().st_gid == max(groups)


def test_another_domain_is_issued_under_the_same_authority(tmp_path: Path) -> None:
    trusted = tmp_path / "trusted-by-a-client.crt"
    trusted.write_bytes(make(tmp_path / "certs", "old.example.org").ca_cert.read_bytes())
    make(tmp_path / "certs", "new.example.org")
    handshake(folder=tmp_path / "certs", ca_cert=trusted, hostname="new.example.org")


def test_operators_own_certificate_stays_unless_forced(tmp_path: Path) -> None:
    foreign = make(tmp_path / "elsewhere", "models.example.org")
    ours = make(tmp_path / "certs", "localhost")
    for theirs, place in ((foreign.cert, ours.cert), (foreign.key, ours.key)):
        place.write_bytes(theirs.read_bytes())
    with pytest.raises(CertificatesInTheWayError):
        make(ours.folder, "localhost")
    assert ours.cert.read_bytes() == foreign.cert.read_bytes()
    assert ensure(ours.folder, "localhost").cert.read_bytes() == foreign.cert.read_bytes()
    make(ours.folder, "localhost", force=True)
    handshake(folder=ours.folder, ca_cert=ours.ca_cert, hostname="localhost")


def test_authority_without_its_key_is_not_replaced(tmp_path: Path) -> None:
    files = make(tmp_path, "localhost")
    files.ca_key.unlink()
    with pytest.raises(CertificatesInTheWayError):
        make(tmp_path, "localhost")


def test_ensure_keeps_what_is_good(tmp_path: Path) -> None:
    before = ensure(tmp_path, "localhost").cert.read_bytes()
    assert ensure(tmp_path, "localhost").cert.read_bytes() == before


@pytest.mark.parametrize("hostname", ["core", "redis", "rabbitmq", "localhost"])
def test_one_for_servers_inside(tmp_path: Path, hostname: str) -> None:
    """Of the same authority, for as long as that lasts."""
    files = make(tmp_path / "certs", "models.example.org")
    inner = tmp_path / "inner"
    inner.mkdir()
    issue_inner(files, inner / "server.crt", inner / "server.key", mode=0o644)
    handshake(folder=inner, ca_cert=files.ca_cert, hostname=hostname)
    authority, cert = (
        x509.load_pem_x509_certificate(path.read_bytes()) for path in (files.ca_cert, inner / "server.crt")
    )
    assert cert.not_valid_after_utc - authority.not_valid_after_utc < timedelta(minutes=5)


def test_one_for_a_client(tmp_path: Path) -> None:
    """In one file, which is its own; none can be had for a server with it."""
    files = make(tmp_path, "localhost")
    own = issue_client(files, "dicom-node-1")
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    (tmp_path / "server.crt").write_bytes(own.read_bytes())
    (tmp_path / "server.key").write_bytes(own.read_bytes())
    with pytest.raises(ssl.SSLCertVerificationError, match="purpose"):
        handshake(folder=tmp_path, ca_cert=files.ca_cert, hostname="dicom-node-1")


@pytest.mark.parametrize("name", ["", "../evil", "a/b", ".hidden", "a" * 65])
def test_no_clients_name_is_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(DomainError, match="no name for a client"):
        issue_client(make(tmp_path, "localhost"), name)


def test_nobody_issues_without_an_authority(tmp_path: Path) -> None:
    """As where the operator's own certificate is."""
    files = make(tmp_path, "localhost")
    files.ca_key.unlink()
    with pytest.raises(NoAuthorityError):
        issue_client(files, "dicom-node-1")
    with pytest.raises(NoAuthorityError):
        issue_inner(files, tmp_path / "inner.crt", tmp_path / "inner.key")
    assert not (tmp_path / "inner.key").exists()
