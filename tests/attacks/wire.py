"""Bytes on a connection, as no client library would send them."""

import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

CONNECT_SECONDS = 10
RECEIVED_AT_ONCE_BYTES = 2**16
LOST = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_refusal(self) -> bool:
        """By the client's fault, in version 1's words or in those of all."""
        return 400 <= self.status < 500 or self.status >= 550


@dataclass
class Wire:
    """One connection over TLS."""

    connection: ssl.SSLSocket
    _received: bytes = field(default=b"", repr=False)

    def send(self, data: bytes) -> bool:
        """False: the server hung up before it had all of it."""
        try:
            self.connection.sendall(data)
        except LOST:
            return False
        return True

    def answer(self, *, to_head: bool = False) -> Answer:
        """The next one; informational ones are left out."""
        head = self._until(b"\r\n\r\n").decode("latin-1")
        first, *lines = head.rstrip().split("\r\n")
        status = int(first.split()[1])
        if status < 200:
            return self.answer(to_head=to_head)
        headers = dict(line.lower().split(": ", 1) for line in lines)
        size = 0 if to_head else int(headers.get("content-length", "0"))
        body = self.exactly(size)
        assert len(body) == size, "the server hung up in the middle of an answer"
        return Answer(status, headers, body)

    def exactly(self, size: int) -> bytes:
        """So many bytes; empty when the server hangs up before."""
        while len(self._received) < size:
            if not self._more():
                return b""
        received, self._received = self._received[:size], self._received[size:]
        return received

    def ends(self) -> bool:
        """The server hangs up, and says nothing more before it."""
        return not (self._received or self._more())

    def rest(self) -> bytes:
        """All until the server hangs up."""
        while self._more():
            pass
        received, self._received = self._received, b""
        return received

    def _until(self, end: bytes) -> bytes:
        while end not in self._received:
            assert self._more(), f"the server hung up after {self._received!r}"
        head, _, self._received = self._received.partition(end)
        return head + end

    def _more(self) -> bool:
        with suppress(*LOST):
            data = self.connection.recv(RECEIVED_AT_ONCE_BYTES)
            self._received += data
            return bool(data)
        return False


@dataclass(frozen=True)
class Door:
    """The gateway's, for strangers."""

    host: str
    port: int
    ca_cert: Path

    @contextmanager
    def opened(self, protocol: str = "http/1.1") -> Iterator[Wire]:
        context = ssl.create_default_context(cafile=self.ca_cert)
        context.set_alpn_protocols([protocol])
        with (
            socket.create_connection((self.host, self.port), CONNECT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=self.host) as connection,
        ):
            yield Wire(connection)

    def ask(self, request: bytes) -> Answer:
        """On a connection of its own."""
        with self.opened() as wire:
            wire.send(request)
            return wire.answer()


def request(method: str, path: str, *lines: bytes, body: bytes = b"") -> bytes:
    """Its headers after Host are the lines, as they stand."""
    head = [f"{method} {path} HTTP/1.1".encode(), b"Host: localhost", *lines]
    return b"\r\n".join([*head, b"", body])
