"""Hypercorn's HTTP/1.1, with fewer writes and copies. What it answers and refuses stays h11's to say."""

from typing import Final

import h11
import hypercorn.asyncio.tcp_server
import hypercorn.protocol
from h11._readers import ContentLengthReader
from hypercorn.events import Event, RawData
from hypercorn.protocol.events import Body
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.typing import H11SendableEvent

RECEIVED_AT_ONCE_BYTES: Final = 2**18
"""Hypercorn reads 64 KiB; four times that takes a third off the cost of a byte."""


class LeanProtocol(H11Protocol):
    """Measured in docs/performance.md."""

    _head = b""

    async def handle(self, event: Event) -> None:
        if isinstance(event, RawData) and self.stream and self._is_only_body(event.data):
            await self.stream.handle(Body(stream_id=STREAM_ID, data=event.data))
        else:
            await super().handle(event)

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
