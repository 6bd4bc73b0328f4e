"""`python -m tls.certs DOMAIN`: a local certificate authority and the gateway's server certificate; of the same
authority also certificates for what only our own services reach, and for clients.

Files, in one folder: ca.crt (what clients are told to trust), ca.key, server.crt, server.key. Run again, for
another domain or before the certificate expires, it issues under the same authority, so that clients go on unchanged.
The folder's group may read server.key, because a gateway in a container has that group and no more.
"""

import argparse
import contextlib
import ipaddress
import os
import re
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

FOLDER = Path(__file__).parent / "certs"

CA_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=397)  # the longest that browsers accept
INNER_NAMES = ("core", "redis", "rabbitmq", "localhost", "127.0.0.1", "::1")
RENEW_BEFORE = timedelta(days=30)
BACKDATED = timedelta(hours=1)  # a client's clock may be behind ours

_HOST_NAME = re.compile(r"(?!.{254})(\*\.)?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*", re.IGNORECASE)

_CLIENT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9@_.-]{0,63}")

_KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


class DomainError(ValueError):
    """Neither a host's name nor an IP address."""


class NoAuthorityError(Exception):
    """There is none of ours to issue a certificate."""


class CertificatesInTheWayError(Exception):
    """The folder holds files that we didn't make; they are the operator's to move."""


@dataclass(frozen=True)
class Certificates:
    """Where a folder keeps what."""

    folder: Path

    @property
    def ca_cert(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def ca_key(self) -> Path:
        return self.folder / "ca.key"

    @property
    def cert(self) -> Path:
        return self.folder / "server.crt"

    @property
    def key(self) -> Path:
        return self.folder / "server.key"


@dataclass(frozen=True)
class _Authority:
    cert: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make(folder: Path, domain: str, *, force: bool = False) -> Certificates:
    """Issue a server certificate for `domain`, localhost and the loopback addresses; make the authority when absent.

    Raises CertificatesInTheWayError, and changes nothing, when that would replace files that aren't this authority's;
    `force` replaces them. Raises DomainError when there can be no certificate for `domain`.
    """
    names = _alternative_names(domain, "localhost", "127.0.0.1", "::1")
    files = Certificates(folder)
    folder.mkdir(parents=True, exist_ok=True)
    authority = _load_authority(files)
    if not force:
        _refuse_foreign_files(files, authority)
    if authority is None:
        authority = _make_authority()
        _write(files.ca_key, _key_pem(authority.key), mode=0o600)
        _write(files.ca_cert, _cert_pem(authority.cert), mode=0o644)
    key = ec.generate_private_key(ec.SECP256R1())
    cert = _issue(authority, key, "InferenceServer", SERVER_LIFE, names)
    _write(files.key, _key_pem(key), mode=0o640)
    _write(files.cert, _cert_pem(cert), mode=0o644)
    return files


def issue_inner(files: Certificates, cert: Path, key: Path, *, mode: int = 0o640) -> None:
    """For INNER_NAMES, by the authority that is there; else NoAuthorityError. `mode` is the key's. It lasts as long as
    an authority: nobody would see it expire, and browsers, who want it short, have no say in it.
    """
    own = ec.generate_private_key(ec.SECP256R1())
    inner = _issue(_authority(files), own, "InferenceServer inside", CA_LIFE, _alternative_names(*INNER_NAMES))
    _write(key, _key_pem(own), mode=mode)
    _write(cert, _cert_pem(inner), mode=0o644)


def issue_client(files: Certificates, name: str) -> Path:
    """A certificate and its key, in one file, which only its owner may read: for a client of a gateway that wants one.
    Raises NoAuthorityError; DomainError when it can't be called so.
    """
    if not _CLIENT_NAME.fullmatch(name):
        raise DomainError(f"{name!r} is no name for a client: letters, digits, '@', '.', '_' and '-'")
    authority, key = _authority(files), ec.generate_private_key(ec.SECP256R1())
    path = files.folder / "clients" / f"{name}.pem"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    _write(path, _cert_pem(_issue(authority, key, name, SERVER_LIFE, None)) + _key_pem(key), mode=0o600)
    return path


def check(domain: str) -> None:
    """Raises DomainError unless there can be a certificate for it."""
    _general_name(domain)


def ensure(folder: Path, domain: str) -> Certificates:
    """What stands in `folder` if there is something; made when absent, made anew when ours is about to expire."""
    files = Certificates(folder)
    if not files.cert.exists():
        return make(folder, domain)
    cert = x509.load_pem_x509_certificate(files.cert.read_bytes())
    if cert.not_valid_after_utc - datetime.now(UTC) > RENEW_BEFORE:
        return files
    # An operator's own certificate is the operator's to renew.
    with contextlib.suppress(CertificatesInTheWayError):
        make(folder, domain)
    return files


def names(cert: Path, domain: str) -> bool:
    """Whether the certificate is for `domain`, as `make` writes it."""
    extensions = x509.load_pem_x509_certificate(cert.read_bytes()).extensions
    return _general_name(domain) in extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def _refuse_foreign_files(files: Certificates, authority: _Authority | None) -> None:
    if authority is None:
        for path in (files.ca_cert, files.ca_key, files.cert, files.key):
            if path.exists():
                raise CertificatesInTheWayError(
                    f"{path} exists, but no authority of ours (ca.crt with its ca.key) beside it"
                )
    elif files.cert.exists() and not _issued_by(authority, files.cert):
        raise CertificatesInTheWayError(f"{files.cert} was not issued by {files.ca_cert}")


def _issued_by(authority: _Authority, path: Path) -> bool:
    try:
        x509.load_pem_x509_certificate(path.read_bytes()).verify_directly_issued_by(authority.cert)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _load_authority(files: Certificates) -> _Authority | None:
    """None unless certificate and key are both there and belong together."""
    if not (files.ca_cert.exists() and files.ca_key.exists()):
        return None
    try:
        cert = x509.load_pem_x509_certificate(files.ca_cert.read_bytes())
        key = serialization.load_pem_private_key(files.ca_key.read_bytes(), password=None)
    except (ValueError, TypeError):
        return None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or cert.public_key() != key.public_key():
        return None
    return _Authority(cert, key)


def _authority(files: Certificates) -> _Authority:
    if authority := _load_authority(files):
        return authority
    raise NoAuthorityError(f"{files.folder} holds no authority of ours (ca.crt with its ca.key)")


def _make_authority() -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    # The suffix tells the authorities of two servers apart in one trust store.
    name = _name(f"InferenceServer local CA {secrets.token_hex(3)}")
    cert = (
        _builder(name, name, key.public_key(), CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
        .sign(key, hashes.SHA256())
    )
    return _Authority(cert, key)


def _issue(
    authority: _Authority,
    key: ec.EllipticCurvePrivateKey,
    subject: str,
    life: timedelta,
    names: x509.SubjectAlternativeName | None,
) -> x509.Certificate:
    """For a server of these names; None: for a client."""
    # Authority key identifier, key usage and critical basic constraints: VERIFY_X509_STRICT, the default of
    # Python 3.13's clients, refuses a certificate without them.
    issuer_key_id = authority.cert.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    usage = ExtendedKeyUsageOID.SERVER_AUTH if names else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _builder(_name(subject), authority.cert.subject, key.public_key(), life)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key_id), critical=False)
    )
    if names:
        builder = builder.add_extension(names, critical=False)
    return builder.sign(authority.key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, life: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now - BACKDATED + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _key_usage(*used: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in used for usage in _KEY_USAGES})


def _alternative_names(*names: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(list(dict.fromkeys(_general_name(name) for name in names)))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        with contextlib.suppress(UnicodeError):
            encoded = name.encode("idna").decode()
            if _HOST_NAME.fullmatch(encoded):
                return x509.DNSName(encoded)
    raise DomainError(f"{name!r} is neither a host's name nor an IP address; scheme, port and path aren't part of it")


def _cert_pem(cert: x509.Certificate) -> bytes:
    return cert.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, *, mode: int) -> None:
    with _replacing(path, mode) as descriptor:
        os.write(descriptor, content)


@contextlib.contextmanager
def _replacing(path: Path, mode: int) -> Iterator[int]:
    """A new file that takes the old one's place when it is complete; never readable by more than `mode` says."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with contextlib.suppress(PermissionError):  # another's folder: who writes there isn't of its group
            os.fchown(descriptor, -1, path.parent.stat().st_gid)  # with sudo, too, the gateway's group reads the key
        os.fchmod(descriptor, mode)  # whatever the umask
        yield descriptor
        new.replace(path)
    finally:
        os.close(descriptor)
        new.unlink(missing_ok=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tls.certs", description="Make a local CA and a server certificate, or others of that CA."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("domain", nargs="?", help="the name or the IP address that clients will use")
    what.add_argument("--client", metavar="NAME", help="one for a client, of a gateway that asks for it")
    what.add_argument("--inner", type=Path, metavar="FOLDER", help=f"one for {', '.join(INNER_NAMES)}, put there")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the CA and the gateway's are")
    parser.add_argument("--force", action="store_true", help="replace certificates that this tool didn't make")
    arguments = parser.parse_args()
    try:
        made = _made(arguments)
    except CertificatesInTheWayError as problem:
        sys.stderr.write(f"{problem}.\nMove your own files away, or replace them with --force.\n")
        return 1
    except (DomainError, NoAuthorityError) as problem:
        sys.stderr.write(f"{problem}.\n")
        return 1
    for path, what_for in made:
        sys.stdout.write(f"{path}  {what_for}\n")
    return 0


def _made(arguments: argparse.Namespace) -> list[tuple[Path, str]]:
    files = Certificates(arguments.folder)
    if arguments.client:
        return [(issue_client(files, arguments.client), "the client's certificate with its key: theirs, and secret")]
    if arguments.inner:
        cert, key = arguments.inner / "inner.crt", arguments.inner / "inner.key"
        issue_inner(files, cert, key)
        return [(cert, "servers behind the gateway show it"), (key, "its key")]
    make(files.folder, arguments.domain, force=arguments.force)
    return [
        (files.cert, "the gateway serves it"),
        (files.key, "its key"),
        (files.ca_cert, "clients trust it"),
    ]


if __name__ == "__main__":
    sys.exit(main())
