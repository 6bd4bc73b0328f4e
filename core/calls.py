"""A request and its answer without Quart's objects: for what comes by the thousand, and for what carries zips.

Quart doubles the cost of a small call, and holds bodies without a bound. Here a body is taken from the socket only as
fast as the handler takes it from the call.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import structlog
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, HTTPScope
from werkzeug.datastructures import Authorization

from core.contract.audit import Action
from core.contract.errors import (
    ContractError,
    InvalidParameters,
    InvalidRequest,
    TooManyRequests,
    Unauthorized,
)
from core.contract.http import RETRY_AFTER_SECONDS, STATUS, ErrorBody, Problem
from core.contract.key import ANYBODY, Caller
from core.deadline import Deadline

log = structlog.get_logger()

Headers = Iterable[tuple[str, str]]

JSON: Final = (("Content-Type", "application/json"),)
PROBLEM: Final = (("Content-Type", "application/problem+json"),)

CHALLENGE: Final = 'Basic realm="InferenceServer", Bearer realm="InferenceServer"'
"""Basic first, with a parameter behind Bearer: Chromium reads a single challenge, and this whole as one."""

WITHOUT_BODY: Final = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)

LONGEST_WAIT_SECONDS: Final = 60.0
"""Proxies give up on what is silent for longer."""

_WAIT: Final = re.compile(r"\bwait=\"?(\d+)")

STALL_SECONDS: Final = 60.0
"""A client that sends nothing for so long in the middle of a body is cut off."""

SLOWEST_BYTES_PER_SECOND: Final = 1024
"""So is one that core or gateway waited for so long, all in all, and that sent less than this meanwhile."""

TAKEN_SECONDS: Final = 300.0
"""A client that doesn't take a piece of up to a megabyte in this time is cut off: under 4 KB/s it isn't reading."""

LINGER_BYTES: Final = 64 * 2**20
LINGER_SECONDS: Final = 10.0
"""How much of a refused body is read to its end, because many clients read no answer before they have sent all."""


class Gone(Exception):
    """The client went away: nobody reads an answer."""


@dataclass(frozen=True)
class Refusal:
    """One of many on whose behalf a call asks."""

    caller: Caller
    address: str
    about: str
    """The task that it asks for."""
    status: int


class Call:
    """One HTTP request. Its handler answers once, by `answer` or `stream`, or raises a ContractError before it."""

    def __init__(self, scope: HTTPScope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.rule = ""
        """The route's, whose parts are in angle brackets. Empty: there is no such route."""
        self.parts: Mapping[str, Any] = {}
        """What stands in the path for them."""
        self.about = ""
        """For the audit log: the uid of what it has made."""
        self.did: Action | None = None
        """For the audit log: what its route alone doesn't say."""
        self.refusals: Sequence[Refusal] = ()
        """For the audit log: those that it answers with a refusal, though it isn't refused itself."""
        self.caller: Caller = ANYBODY
        """Whoever guards the app says who it is."""
        client = scope.get("client")
        self.client_address: str = client[0] if client else ""
        """At core, that of the gateway's client where it is one's call."""
        self.is_answered = False
        """Begun, at least."""
        self.tells_problems = False
        """It is refused in problem details, and not as version 1 did."""
        self.headers: list[tuple[str, str]] = []
        """Of every answer to it, beside those that the answer brings."""
        self._scope = scope
        self._headers: dict[bytes, bytes] = dict(scope["headers"])
        self._receive = receive
        self._send = send
        self._is_whole = False

    @property
    def query_string(self) -> str:
        """As it came."""
        return self._scope["query_string"].decode("latin-1")

    @cached_property
    def parameters(self) -> Sequence[tuple[str, str]]:
        """The query's, each as often as it stands there."""
        return parse_qsl(self.query_string, keep_blank_values=True)

    @cached_property
    def args(self) -> Mapping[str, str]:
        """The query's parameters; of one that is repeated the first."""
        return dict(reversed(self.parameters))

    def header(self, name: str, default: str = "") -> str:
        """`name` in lower case."""
        found = self._headers.get(name.encode())
        return default if found is None else found.decode("latin-1")

    @property
    def content_length(self) -> int | None:
        """None: not known before the end. Of a chunked body it says nothing, whatever is announced beside."""
        length = self.header("content-length")
        return int(length) if length.isdecimal() and "transfer-encoding" not in self else None

    @property
    def has_body(self) -> bool:
        """It may have one: HTTP/2 needn't announce its length."""
        return self.method in ("POST", "PUT", "PATCH") and self.content_length != 0

    def __contains__(self, header: str) -> bool:
        return header.encode() in self._headers

    @property
    def wait_seconds(self) -> float:
        """How long the answer may wait for what the client wants to hear: `?wait=`, or Prefer (RFC 7240, 4.3)."""
        asked = self.args.get("wait")
        if asked is None:
            preferred = _WAIT.search(self.header("prefer"))
            asked = preferred[1] if preferred else "0"
        try:
            seconds = float(asked)
        except ValueError:
            seconds = -1
        if not seconds >= 0:
            raise InvalidParameters.wrong("query", "wait", "a number of seconds, 0 or more")
        return min(seconds, LONGEST_WAIT_SECONDS)

    @property
    def is_from_elsewhere(self) -> bool:
        """A browser that was told a token or a key once sends it along with other sites' forms, too, and says so; an
        older one only names their origin with all that may change something. Other clients name none.
        """
        site = self.header("sec-fetch-site")
        if site in ("same-origin", "none"):  # it knows; Host may be another one behind somebody's proxy
            return False
        if self.path.startswith("/api/") and site == "cross-site":
            return True
        origin = self.header("origin")
        return bool(origin) and urlsplit(origin).netloc != self.header("host")

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body, once. Raises InvalidRequest when the client stalls or is too slow, Gone when it goes away."""
        waited, received = 0.0, 0
        while not self._is_whole:
            began = time.monotonic()
            try:
                async with asyncio.timeout(STALL_SECONDS):
                    message = await self._receive()
            except TimeoutError:
                raise InvalidRequest(f"The body stalled for {STALL_SECONDS:.0f} seconds") from None
            if message["type"] != "http.request":
                raise Gone
            self._is_whole = not message.get("more_body", False)
            piece = message.get("body", b"")
            waited += time.monotonic() - began
            received += len(piece)
            if waited > STALL_SECONDS:
                if received < waited * SLOWEST_BYTES_PER_SECOND and not self._is_whole:
                    raise InvalidRequest(f"The body came with less than {SLOWEST_BYTES_PER_SECOND} bytes a second")
                waited, received = 0.0, 0
            if piece:
                yield piece

    async def answer(self, status: int, body: bytes = b"", headers: Headers = JSON) -> None:
        """All of it at once. To a HEAD request the body isn't sent; its length stands in the headers."""
        length = () if status in WITHOUT_BODY else (("Content-Length", str(len(body))),)
        async with _taken():
            await self._begin(status, [*headers, *length])
            await self._end(body)

    async def refuse(self, error: ContractError) -> None:
        headers = headers_of(error).items()
        if self.tells_problems:
            problem = Problem.of(error)
            body = problem.model_dump_json(exclude_none=True).encode()
            return await self.answer(problem.status, body, [*PROBLEM, *headers])
        body = ErrorBody(detail=error.detail).model_dump_json().encode()
        await self.answer(STATUS[type(error)], body, [*JSON, *headers])

    async def stream(self, status: int, headers: Headers, pieces: AsyncIterator[bytes]) -> None:
        """Piece by piece, as fast as the client takes them. Raises Gone when it goes away."""
        async with self.attended():
            await self._begin(status, headers)
            async for piece in pieces:
                async with _taken():
                    await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            async with _taken():
                await self._end(b"")

    @asynccontextmanager
    async def attended(self) -> AsyncIterator[None]:
        """Ends what is in it when the client goes away, and raises Gone. The body must have been read."""
        try:
            async with asyncio.timeout(None) as presence:
                leaving = asyncio.create_task(self._leave(presence), name="client leaves")
                try:
                    yield
                finally:
                    leaving.cancel()
        except TimeoutError:
            if presence.expired():
                raise Gone from None
            raise

    async def _leave(self, presence: asyncio.Timeout) -> None:
        while (await self._receive())["type"] == "http.request":
            pass
        presence.reschedule(asyncio.get_running_loop().time())

    async def _begin(self, status: int, headers: Headers) -> None:
        self.is_answered = True
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (*headers, *self.headers)]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})

    async def _end(self, body: bytes) -> None:
        """The client has all of the answer by the time its last, empty piece is held back."""
        if not self._is_whole and self.has_body:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
            await self._linger()
            body = b""
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _linger(self) -> None:
        """Reads what a refused request still sends, within bounds, so that its client gets to read the answer."""
        left = LINGER_BYTES
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                async for piece in self.pieces():
                    left -= len(piece)
                    if left < 0:
                        return
        except (TimeoutError, InvalidRequest, Gone):
            return


def _taken() -> Deadline:
    return Deadline(TAKEN_SECONDS, Gone)


def offered_in(authorization: str) -> str:
    """A token or a key: all that stands behind Bearer, or the password of Basic, whatever the user. Empty: none."""
    scheme, _, credentials = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    found = Authorization.from_header(authorization)
    return (found.password or "") if found else ""


def headers_of(error: ContractError) -> Mapping[str, str]:
    """What its answer has beside the body."""
    headers = {"WWW-Authenticate": CHALLENGE} if isinstance(error, Unauthorized) else {}
    known = error.retry_seconds if isinstance(error, TooManyRequests) else None
    if seconds := known or RETRY_AFTER_SECONDS.get(type(error)):
        headers["Retry-After"] = str(seconds)
    return headers
