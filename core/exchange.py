"""A request and its answer on their way through a server: its id, and what is counted and logged of it."""

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope

from core.contract.http import REQUEST_HEADER
from core.observe import request_id
from core.traffic import Traffic

Headers = Sequence[tuple[bytes, bytes]]

_HEADER: Final = REQUEST_HEADER.encode()
_BODY_HEADERS: Final = (b"content-length", b"transfer-encoding")

UNMATCHED: Final = "unmatched"
"""The route of what never got to one: labels mustn't be the client's to choose."""

GONE: Final = 499
"""The status of what was never answered, because its client had gone."""


class Exchange:
    """`receive` and `send` take the place of the server's. The answer carries the id and the standing headers, whoever
    makes it.
    """

    __slots__ = (
        "_is_heard",
        "_is_whole",
        "_may_send",
        "_receive",
        "_scope",
        "_send",
        "_sink",
        "_standing",
        "_started",
        "_traffic",
        "_waits",
        "answering",
        "id",
        "received",
        "route",
        "seconds",
        "status",
    )

    def __init__(
        self,
        scope: HTTPScope,
        receive: ASGIReceiveCallable,
        send: ASGISendCallable,
        traffic: Traffic,
        standing: Callable[[HTTPScope], Headers],
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._traffic = traffic
        self._standing = standing
        self._started = time.perf_counter()
        self._waits = b"wait=" in scope["query_string"]
        self._may_send = scope["http_version"] == "2"
        self._is_heard = self._is_whole = False
        self._sink: asyncio.Task[None] | None = None
        self.id = ""
        for name, value in scope["headers"]:
            if name == _HEADER:
                self.id = request_id(value.decode("latin-1"))
            elif name == b"prefer" and b"wait" in value:
                self._waits = True
            elif name in _BODY_HEADERS:
                self._may_send = True
        self.id = self.id or secrets.token_hex(8)
        self.answering: Callable[[int], None] | None = None
        """Told of the status when the answer begins, or of GONE when there never was one."""
        self.route = UNMATCHED
        """The rule that its path matches."""
        self.status = GONE
        self.seconds = 0.0
        """Until the answer began."""
        self.received = 0
        """Bytes of the body."""

    async def receive(self) -> Any:
        message = await self._receive()
        if message["type"] != "http.request":
            self._is_heard = True
            return message
        self._is_whole = not message.get("more_body")
        if size := len(message.get("body", b"")):
            self.received += size
            self._traffic.received.inc(size)
        return message

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.seconds = time.perf_counter() - self._started
            self.status = message["status"]
            if self.answering:
                self.answering(self.status)
            message["headers"] = [*message["headers"], *self._standing(self._scope), (_HEADER, self.id.encode())]
        else:
            if size := len(message.get("body", b"")):
                self._traffic.sent.inc(size)
            if self._may_send and not (self._is_whole or self._is_heard or message.get("more_body")):
                self._sink = asyncio.create_task(self._read_on(), name="sink")
        await self._send(message)

    async def _read_on(self) -> None:
        """What comes after the answer. Hypercorn has a queue for it, and as long as that is full it sees neither that
        the client has gone nor that the answer has ended.
        """
        while not self._is_heard:
            await self.receive()

    def end(self) -> None:
        """All of it has been sent, or the client has gone."""
        if self._sink and self._is_heard:
            self._sink.cancel()
        if self.status == GONE:
            self.seconds = time.perf_counter() - self._started
            if self.answering:
                self.answering(GONE)
        method = self._scope["method"] if self.route is not UNMATCHED else "any"
        route = f"{self.route}?wait" if self._waits and self.route is not UNMATCHED else self.route
        self._traffic.note(method, route, self.status, self.seconds, is_patient=self._waits, received=self.received)
