"""Hypercorn's HTTP/2, for clients that mean no good: what it leaves to the application, and where it would break."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import h2.events
import hypercorn.protocol
from h2.errors import ErrorCodes
from h2.events import DataReceived, PriorityUpdated, RequestReceived, StreamEnded, StreamReset
from h2.exceptions import DenialOfServiceError, ProtocolError
from hypercorn.events import Event, RawData
from hypercorn.protocol.h2 import H2Protocol
from hyperframe.frame import Frame

from core.connections import HungUp

READ_AT_ONCE_BYTES: Final = 2**14
"""Between these other connections have their turn: 256 KiB may be twenty thousand frames."""

LONGEST_FRAME_BYTES: Final = READ_AT_ONCE_BYTES + 9
"""With its header; h2 looks at the length when it has all of the frame, which may be 16 MiB."""

PATIENCE: Final = 1000.0
"""Frames that carry nothing, at once."""

PATIENCE_PER_SECOND: Final = 100.0
PATIENCE_PER_BYTE: Final = 1 / 1024
"""A download earns more than its window updates cost."""

COST_OF_RESET: Final = 10.0
"""A request that is given up was begun (CVE-2023-44487)."""


class Patience:
    """With frames that carry nothing. It grows with the time and with what is carried."""

    def __init__(self) -> None:
        self._left = PATIENCE
        self._at = time.monotonic()

    def earn(self, size: int) -> None:
        self._left = min(PATIENCE, self._left + size * PATIENCE_PER_BYTE)

    def lasts(self, cost: float) -> bool:
        """Whether it does after this."""
        now = time.monotonic()
        self._left = min(PATIENCE, self._left + (now - self._at) * PATIENCE_PER_SECOND) - cost
        self._at = now
        return self._left >= 0


class Ended:
    """Takes what still comes for a stream that was answered before all of its body was there."""

    idle = True

    async def handle(self, event: Any) -> None:
        pass


class Streams(dict[int, Any]):
    def __missing__(self, stream_id: int) -> Ended:
        return Ended()


class GuardedProtocol(H2Protocol):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.streams = Streams()
        self._patience = Patience()
        self._is_over = False
        self._receive_frame = self.connection._receive_frame
        self.connection._receive_frame = self._received  # type: ignore[method-assign]

    def _received(self, frame: Frame) -> list[h2.events.Event]:
        """Of frames for a stream that has ended h2 tells nobody."""
        events = self._receive_frame(frame)
        if not events and not self._patience.lasts(1):
            raise DenialOfServiceError("too many frames for what is over")
        return events

    async def handle(self, event: Event) -> None:
        if not isinstance(event, RawData):
            return await super().handle(event)
        for start in range(0, len(event.data), READ_AT_ONCE_BYTES):
            if start:
                await asyncio.sleep(0)
            if not self._is_over:
                await self._read(event.data[start : start + READ_AT_ONCE_BYTES])
        return None

    async def _read(self, data: bytes) -> None:
        try:
            events = self.connection.receive_data(data)
        except ProtocolError:  # h2 has said why
            return await self._hang_up()
        await self._handle_events(events)
        if len(self.connection.incoming_buffer._data) > LONGEST_FRAME_BYTES:
            await self._end(ErrorCodes.FRAME_SIZE_ERROR)
        return None

    async def _handle_events(self, events: Sequence[h2.events.Event]) -> None:
        """Priorities are ignored, as RFC 9113 has them: a tree of them is the client's to grow."""
        for event in events:
            if not self._patience.lasts(self._cost(event)):
                return await self._end(ErrorCodes.ENHANCE_YOUR_CALM)
            if isinstance(event, DataReceived):
                self._patience.earn(len(event.data))
            if isinstance(event, RequestReceived) and not _is_served(event):
                with suppress(ProtocolError):  # the client has ended the connection, in what came with it
                    self.connection.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
            elif not isinstance(event, PriorityUpdated):
                await super()._handle_events([event])
        return await self._flush()

    def _cost(self, event: h2.events.Event) -> float:
        if isinstance(event, StreamReset):
            return COST_OF_RESET
        if isinstance(event, DataReceived):
            return 0 if event.data and event.stream_id in self.streams else 1
        return 0 if isinstance(event, RequestReceived | StreamEnded) else 1

    async def _end(self, why: ErrorCodes) -> None:
        self.connection.close_connection(why)
        await self._hang_up()

    async def _hang_up(self) -> None:
        self._is_over = True
        await self._flush()
        await self.send(HungUp())

    async def _flush(self) -> None:
        if data := self.connection.data_to_send():
            self._patience.earn(len(data))
            await self.send(RawData(data))


def _is_served(request: RequestReceived) -> bool:
    """h2 lets any bytes be a path, and CONNECT has none: Hypercorn would break on either."""
    fields = dict(request.headers)
    return fields[b":method"].isascii() and fields[b":method"] != b"CONNECT" and fields[b":path"].isascii()


def install() -> None:
    """For all servers of this process."""
    hypercorn.protocol.H2Protocol = GuardedProtocol  # type: ignore[attr-defined, assignment]
