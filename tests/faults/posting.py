"""A post that stands still in its middle."""

import http.client
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from demo.stack import Stack
from tests.e2e.api import CALL_SECONDS


@dataclass(frozen=True)
class HalfPost:
    """A raw body of which the first half is sent."""

    connection: http.client.HTTPSConnection
    rest: bytes

    def send_rest(self) -> None:
        self.connection.send(self.rest)

    def answer(self) -> tuple[int, bytes]:
        """Status and body. OSError or http.client.HTTPException when the connection breaks instead."""
        response = self.connection.getresponse()
        return response.status, response.read()


@contextmanager
def half_posted(stack: Stack, model: str, zip: bytes) -> Iterator[HalfPost]:
    context = ssl.create_default_context(cafile=str(stack.certificates.ca_cert))
    connection = http.client.HTTPSConnection("localhost", stack.ports.gateway, timeout=CALL_SECONDS, context=context)
    half = len(zip) // 2
    try:
        connection.putrequest("POST", f"/api/tasks/?model_human_readable_id={model}")
        connection.putheader("Content-Type", "application/zip")
        connection.putheader("Content-Length", str(len(zip)))
        connection.endheaders()
        connection.send(zip[:half])
        yield HalfPost(connection, zip[half:])
    finally:
        connection.close()
