"""What a server shows when its certificate's files change under it."""

import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from structlog.testing import capture_logs

from core.certificate import Certificate, CertificateRefused
from tls import certs


def shown(certificate: Certificate, files: certs.Certificates) -> int:
    """The serial number that a client sees."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    trust = ssl.create_default_context(cafile=files.ca_cert)
    client = trust.wrap_bio(to_client, to_server, server_hostname="localhost")
    server = certificate.context.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    while waiting:
        for side in list(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    return x509.load_der_x509_certificate(client.getpeercert(binary_form=True) or b"").serial_number


def serial(files: certs.Certificates) -> int:
    return x509.load_pem_x509_certificate(files.cert.read_bytes()).serial_number


def look_twice(certificate: Certificate) -> None:
    certificate.look()
    certificate.look()


@pytest.fixture
def files(tmp_path: Path) -> certs.Certificates:
    return certs.make(tmp_path / "certs", "localhost")


@pytest.fixture
def certificate(files: certs.Certificates) -> Certificate:
    return Certificate(files.cert, files.key)


def test_a_new_pair_is_shown(certificate: Certificate, files: certs.Certificates) -> None:
    """From the second look on that sees it: at the first it may be half written."""
    former = serial(files)
    certs.make(files.folder, "localhost")
    certificate.look()
    assert shown(certificate, files) == former
    certificate.look()
    assert shown(certificate, files) == serial(files) != former
    assert certificate.trouble == ""


def _of_another(files: certs.Certificates) -> None:
    other = certs.make(files.folder / "other", "localhost")
    files.key.write_bytes(other.key.read_bytes())


def _lock(files: certs.Certificates) -> None:
    key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    encrypted = serialization.BestAvailableEncryption(b"secret")
    pem = serialization.PrivateFormat.PKCS8
    files.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, pem, encrypted))


def _expired(files: certs.Certificates) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certs, "SERVER_LIFE", certs.BACKDATED / 2)
        certs.make(files.folder, "localhost")


BAD: dict[str, Callable[[certs.Certificates], object]] = {
    "isn't the certificate's": _of_another,
    "is no certificate in PEM": lambda files: files.cert.write_text("-----BEGIN CERTIFICATE-----\n"),
    "server.crt: No such file": lambda files: files.cert.unlink(),
    "server.key: No such file": lambda files: files.key.unlink(),
    "is no key in PEM": lambda files: files.key.write_text(""),
    "needs a password": _lock,
    "expired on": _expired,
}


@pytest.mark.parametrize("why", BAD)
def test_what_cant_be_served_is_said_once(certificate: Certificate, files: certs.Certificates, why: str) -> None:
    """The former one is shown, until there is a good one again."""
    former = serial(files)
    BAD[why](files)
    with capture_logs() as logs:
        for _ in range(3):
            look_twice(certificate)
    [refused] = logs
    assert (refused["event"], refused["log_level"]) == ("certificate.refused", "error")
    assert why in refused["why"]
    assert why in certificate.refused
    assert certificate.trouble.startswith("can't serve its new certificate; its former one expires on ")
    assert shown(certificate, files) == former

    certs.make(files.folder, "localhost", force=True)
    look_twice(certificate)
    assert (certificate.refused, certificate.trouble) == ("", "")
    assert shown(certificate, files) == serial(files) != former


@pytest.mark.parametrize("why", [why for why in BAD if why != "expired on"])
def test_a_server_does_not_start_without_one(files: certs.Certificates, why: str) -> None:
    BAD[why](files)
    with pytest.raises(CertificateRefused, match=why):
        Certificate(files.cert, files.key)


def test_an_expired_one_is_served_rather_than_none(files: certs.Certificates) -> None:
    """It is a trouble that /readyz tells."""
    _expired(files)
    assert Certificate(files.cert, files.key).trouble.startswith("has a certificate that expired on ")


def test_who_may_show_one_changes_as_well(files: certs.Certificates, tmp_path: Path) -> None:
    """The file of the clients' authority is looked at as the others are."""
    authority = tmp_path / "clients.crt"
    authority.write_bytes(files.ca_cert.read_bytes())
    certificate = Certificate(files.cert, files.key, client_ca=authority)
    authority.write_text("nobody")
    look_twice(certificate)
    assert "clients.crt holds no certificate" in certificate.refused
