"""The certificate that a server shows. Its files may be exchanged while it serves: connections that are open go on as
they are, new ones get the new one. Why a callback, and no reload in place: docs/decisions/0027.
"""

import _ssl
import asyncio
import ssl
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Gauge

log = structlog.get_logger()

LOOK_SECONDS: Final = 1.0
DUE: Final = timedelta(days=14)
"""Who has not renewed a certificate so long before its end has forgotten it."""

SUITES: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: forward secrecy and authenticated encryption. TLS 1.3 has no others."""

PROTOCOLS: Final = ("http/1.1", "h2")
"""Uploads over HTTP/2 cost several times as much: clients that offer both get 1.1."""

_State = tuple[tuple[int, int] | None, ...]


class CertificateRefused(Exception):
    """Nothing that can be served; the message says why."""


class Certificate:
    """Of a server. Raises CertificateRefused when it can't be served in the first place.

    `client_ca`: who has signed the certificates that clients must show; None: they need none.
    """

    def __init__(self, cert: Path, key: Path, *, client_ca: Path | None = None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._judged = self._seen = self._state()
        self.refused = ""
        """Why the files' present content isn't served, but what they held before."""
        self.expires = self._expiry()
        self.context = self._current = self._load()
        """For the server: of each handshake it lets the latest one take its place."""
        self.context.sni_callback = self._take_place

    @property
    def trouble(self) -> str:
        """What the operator has to do something about, in words that go on from the name of who serves it, and name no
        places: /readyz is for anybody.
        """
        if self.refused:
            return f"can't serve its new certificate; its former one expires on {self.expires:%Y-%m-%d}"
        left = self.expires - datetime.now(UTC)
        if left < DUE:
            return f"has a certificate that {'expires' if left > timedelta() else 'expired'} on {self.expires:%Y-%m-%d}"
        return ""

    async def watch(self, figures: CollectorRegistry) -> None:
        """For ever."""
        expiry = Gauge(
            "inference_server_certificate_expiry_timestamp_seconds",
            "When the certificate expires that is served",
            registry=figures,
            multiprocess_mode="mostrecent",
        )
        refused = Gauge(
            "inference_server_certificate_refused",
            "1 while the certificate's files hold what can't be served; the former one is",
            registry=figures,
            multiprocess_mode="livemax",
        )
        while True:
            expiry.set(self.expires.timestamp())
            refused.set(bool(self.refused))
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Takes up what has changed since, and not since the look before: a pair that is being written is half new."""
        seen, self._seen = self._seen, self._state()
        if self._seen != seen or self._seen == self._judged:
            return
        self._judged = self._seen
        try:
            expires, context = self._unexpired(), self._load()
        except CertificateRefused as error:
            self.refused = str(error)
            log.error("certificate.refused", why=self.refused, served_until=self.expires.isoformat())
        else:
            self.refused, self.expires, self._current = "", expires, context
            log.info("certificate.exchanged", expires=expires.isoformat())

    def _take_place(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._current

    def _state(self) -> _State:
        """Another one after each change, also of who may read them."""
        return tuple(_state(path) for path in self._files)

    @property
    def _files(self) -> Sequence[Path]:
        return [self._cert, self._key, *([self._client_ca] if self._client_ca else [])]

    def _expiry(self) -> datetime:
        """Of the file's first certificate, which is the server's own. Python has no other way that needs no library."""
        for path in self._files:
            _check_readable(path)
        try:
            fields = _ssl._test_decode_cert(self._cert)  # type: ignore[attr-defined]
        except OSError as error:
            raise CertificateRefused(f"{self._cert} is no certificate in PEM") from error
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(fields["notAfter"])), UTC)

    def _unexpired(self) -> datetime:
        """Raises CertificateRefused, too: an expired one is better than none, and worse than the former."""
        expires = self._expiry()
        if expires < datetime.now(UTC):
            raise CertificateRefused(f"{self._cert} expired on {expires:%Y-%m-%d}")
        return expires

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers(SUITES)
        context.set_alpn_protocols(PROTOCOLS)
        # All suites are good: the client knows which one its hardware does fast.
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            context.load_cert_chain(self._cert, self._key, password=_refuse_password)
        except OSError as error:
            is_anothers = getattr(error, "reason", "") == "KEY_VALUES_MISMATCH"
            fault = "isn't the certificate's" if is_anothers else "is no key in PEM"
            raise CertificateRefused(f"{self._key} {fault}") from error
        if self._client_ca:
            context.verify_mode = ssl.CERT_REQUIRED
            # In a session that is resumed nobody shows one: it would outlast an exchange. Before 1.3 there is no way to
            # have none, and a client's certificate travels in the clear.
            context.num_tickets = 0
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            try:
                context.load_verify_locations(self._client_ca)
            except OSError as error:
                raise CertificateRefused(f"{self._client_ca} holds no certificate in PEM") from error
        return context


def _state(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_ctime_ns


def _check_readable(path: Path) -> None:
    """OpenSSL doesn't say why it isn't."""
    try:
        path.open("rb").close()
    except OSError as error:
        raise CertificateRefused(f"{path}: {error.strerror}") from error


def _refuse_password() -> str:
    """Else OpenSSL would ask a terminal for it, and wait."""
    raise CertificateRefused("the key needs a password, which a server hasn't: put it there without one")
