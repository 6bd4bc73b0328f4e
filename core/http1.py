"""Hypercorn's HTTP/1.1, with fewer writes and copies. What it answers and refuses stays h11's to say."""

from typing import Final

import h11
import hypercorn.asyncio.tcp_server
import hypercorn.protocol
from h11._readers import ContentLengthReader
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Body
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.typing import H11SendableEvent

RECEIVED_AT_ONCE_BYTES: Final = 2**18
"""Hypercorn reads 64 KiB; four times that takes a third off the cost of a byte."""

HEAD_BYTES: Final = 2**14
"""Of a request's head. h11 only bounds what it can't parse yet, and parses whatever comes at once."""

MOST_HEADERS: Final = 100
END: Final = b"\r\n\r\n"
VERSIONS: Final = (b"1.0", b"1.1")


class LeanProtocol(H11Protocol):
    """Measured in docs/performance.md."""

    _head = b""

    async def handle(self, event: Event) -> None:
        if isinstance(event, RawData) and self.stream and self._is_only_body(event.data):
            await self.stream.handle(Body(stream_id=STREAM_ID, data=event.data))
            return
        try:
            if isinstance(event, RawData):
                self._check_head(event.data)
            await super().handle(event)
        except h11.RemoteProtocolError as error:
            await self._send_error_response(error.error_status_hint)
            await self.send(Closed())

    def _check_head(self, data: bytes) -> None:
        if len(data) > HEAD_BYTES and self.connection.their_state is h11.IDLE and data.find(END, 0, HEAD_BYTES) < 0:
            raise h11.RemoteProtocolError("the head is too long", error_status_hint=431)

    async def _check_protocol(self, request: h11.Request) -> None:
        """Refuses what others on the way may read differently. Upgrades to HTTP/2 are ignored: over TLS there are none,
        and to Hypercorn their requests are valid unread.
        """
        names = [name for name, _ in request.headers]
        if request.http_version not in VERSIONS:
            raise h11.RemoteProtocolError("an unknown version", error_status_hint=505)
        if len(names) > MOST_HEADERS:
            raise h11.RemoteProtocolError("too many headers", error_status_hint=431)
        if b"transfer-encoding" in names and b"content-length" in names:
            raise h11.RemoteProtocolError("two lengths")

    def _is_only_body(self, data: bytes) -> bool:
        """Bytes in the middle of a body whose length is known hold nothing to parse: h11 would copy them three times.
        It gets the last ones, and so knows where the body ends.
        """
        connection = self.connection
        reader = getattr(connection, "_reader", None)
        if (
            not isinstance(reader, ContentLengthReader)
            or connection.their_state is not h11.SEND_BODY
            or connection.trailing_data[0]
            or not 0 < len(data) < reader._remaining
        ):
            return False
        reader._remaining -= len(data)
        return True

    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        """The head of an answer goes with its first piece: of a small call a write is what costs most."""
        try:
            data = self.connection.send(event)
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response):
            self._head = data
        elif whole := self._head + data:
            self._head = b""
            await self.send(RawData(data=whole))


def install() -> None:
    """For all servers of this process: Hypercorn has no setting for either."""
    hypercorn.protocol.H11Protocol = LeanProtocol  # type: ignore[attr-defined]
    hypercorn.asyncio.tcp_server.MAX_RECV = RECEIVED_AT_ONCE_BYTES
