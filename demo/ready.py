"""Whether a server answers as it does when it is ready: one short try each."""

import http.client
import socket
import ssl
from pathlib import Path

TRY_SECONDS = 2.0


def listens(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), TRY_SECONDS):
            return True
    except OSError:
        return False


def redis_answers(port: int) -> bool:
    """False while Redis still loads its data: it says -LOADING then."""
    return _answer(port, b"PING\r\n").startswith(b"+PONG")


def rabbitmq_answers(port: int) -> bool:
    """The broker's first frame is Connection.Start, a method on channel 0."""
    return _answer(port, b"AMQP\x00\x00\x09\x01").startswith(b"\x01\x00\x00")


def is_healthy(port: int, *, host: str = "localhost", ca_cert: Path | None = None) -> bool:
    """GET /healthz, over TLS that is verified when a CA is given."""
    connection: http.client.HTTPConnection
    if ca_cert is None:
        connection = http.client.HTTPConnection(host, port, timeout=TRY_SECONDS)
    else:
        context = ssl.create_default_context(cafile=ca_cert)
        connection = http.client.HTTPSConnection(host, port, timeout=TRY_SECONDS, context=context)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except ssl.SSLCertVerificationError:
        raise  # waiting doesn't cure it
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _answer(port: int, question: bytes) -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", port), TRY_SECONDS) as connection:
            connection.sendall(question)
            return connection.recv(64)
    except OSError:
        return b""
