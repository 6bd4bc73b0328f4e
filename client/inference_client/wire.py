"""The one importer of httpx: requests out, answers in, blocking or not, and its exceptions as ours."""

import asyncio
import re
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Final, ParamSpec, Protocol, TypeVar

import httpx

from inference_client.errors import InferenceError, NotConfigured, Unreachable, Untrusted

CONNECT_SECONDS: Final = 10.0
SILENT_SECONDS: Final = 75.0
"""A server that has said nothing for so long has gone: a call that waits is answered after 60 seconds at the latest."""

IDLE_SECONDS: Final = 3.0
"""How long an idle connection is kept; the server keeps its end for longer, so that none closes as it is used."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Body:
    """A zip, read as it is sent, each time that it is. `on_sent` hears how many of its bytes were.

    The first piece is read before the request begins: to go on in the middle of large files may take longer than the
    server waits for bytes.
    """

    read: Callable[[], Iterator[bytes]]
    size: int
    on_sent: Callable[[int], None]


@dataclass(frozen=True)
class Call:
    method: str
    path: str
    params: Sequence[tuple[str, str]] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    silent_seconds: float = SILENT_SECONDS


@dataclass(frozen=True)
class Answer:
    """Whatever its status. The body comes in pieces, once."""

    status: int
    headers: Mapping[str, str]
    pieces: AsyncGenerator[bytes, None]


class Wire(Protocol):
    """Where operations meet the world. Over the blocking one nothing that they await has to be waited for."""

    def exchange(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        """Raises Unreachable when there is no answer, or the end of one before its time."""

    async def pause(self, seconds: float) -> None: ...

    async def beside(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Work of the disk's, where it holds up nobody."""

    async def close(self) -> None: ...


class BlockingWire:
    def __init__(self, url: str, trust: ssl.SSLContext, key: str | None) -> None:
        self._url = url
        self._client = httpx.Client(base_url=url, verify=trust, headers=_headers(key), limits=_LIMITS)

    @asynccontextmanager
    async def exchange(self, call: Call) -> AsyncIterator[Answer]:
        with _translated(self._url):
            content = None
            if call.body:
                pieces = call.body.read()
                content = _sent(call.body, next(pieces, b""), pieces)
            request = _request(self._client, call, content)
            response = self._client.send(request, stream=True)
            try:
                yield Answer(response.status_code, response.headers, _pieces(response))
            finally:
                response.close()

    async def pause(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - there is no loop

    async def beside(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return work(*args, **kwargs)

    async def close(self) -> None:
        self._client.close()


class AsyncWire:
    """On asyncio's loop; files are read and written in threads."""

    def __init__(self, url: str, trust: ssl.SSLContext, key: str | None) -> None:
        self._url = url
        self._client = httpx.AsyncClient(base_url=url, verify=trust, headers=_headers(key), limits=_LIMITS)

    @asynccontextmanager
    async def exchange(self, call: Call) -> AsyncIterator[Answer]:
        with _translated(self._url):
            content = None
            if call.body:
                pieces = call.body.read()
                content = _sent_on_a_loop(call.body, await asyncio.to_thread(next, pieces, b""), pieces)
            request = _request(self._client, call, content)
            response = await self._client.send(request, stream=True)
            try:
                yield Answer(response.status_code, response.headers, _pieces_on_a_loop(response))
            finally:
                await response.aclose()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def beside(self, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(work, *args, **kwargs)

    async def close(self) -> None:
        await self._client.aclose()


_LIMITS: Final = httpx.Limits(max_connections=100, max_keepalive_connections=10, keepalive_expiry=IDLE_SECONDS)


def _headers(key: str | None) -> dict[str, str]:
    key = (key or "").strip()
    if not re.fullmatch(r"[\x21-\x7e]*", key):
        raise NotConfigured("The key has characters that no key has")
    headers = {"User-Agent": "inference-client", "Accept-Encoding": "identity"}
    return headers | ({"Authorization": f"Bearer {key}"} if key else {})


def trust(ca: str | PathLike[str] | None, cert: str | PathLike[str] | None) -> ssl.SSLContext:
    """Whom to trust, and what to show to a server that asks. Raises InferenceError."""
    context = _trusting(ca)
    if cert:
        try:
            context.load_cert_chain(cert)
        except OSError as error:
            raise InferenceError(f"{cert} can't be read as a certificate with its key (PEM): {error}") from error
    return context


def _trusting(ca: str | PathLike[str] | None) -> ssl.SSLContext:
    if not ca:
        context = httpx.create_ssl_context()  # whom browsers trust
        context.load_default_certs()  # and whom this machine's administrator trusts
        return context
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise InferenceError(f"{ca} can't be read as the CA's certificate (PEM): {error}") from error


def _request(client: httpx.Client | httpx.AsyncClient, call: Call, content: Any) -> httpx.Request:
    headers = dict(call.headers) | ({"Content-Length": str(call.body.size)} if call.body else {})
    timeout = httpx.Timeout(call.silent_seconds, connect=CONNECT_SECONDS)
    return client.build_request(
        call.method, call.path, params=list(call.params), headers=headers, content=content, timeout=timeout
    )


@contextmanager
def _translated(url: str) -> Iterator[None]:
    try:
        yield
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise InferenceError(f"{url!r} isn't the address of a server (https://HOST:PORT): {error}") from error
    except httpx.TransportError as error:
        if fault := _certificate_fault(error):
            raise Untrusted(
                f"The certificate of {url} isn't trusted: {fault}. If you know the server, name the file of the CA "
                "that signed it: --ca FILE, or INFER_CA"
            ) from error
        raise Unreachable(f"{url} doesn't answer: {str(error) or type(error).__name__}") from error


def _certificate_fault(error: BaseException | None) -> str | None:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return None


async def _pieces(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    for piece in response.iter_raw():
        yield piece


async def _pieces_on_a_loop(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    async for piece in response.aiter_raw():
        yield piece


def _sent(body: Body, first: bytes, pieces: Iterator[bytes]) -> Iterator[bytes]:
    sent, piece = 0, first
    while piece:
        body.on_sent(sent)
        yield piece
        sent += len(piece)
        piece = next(pieces, b"")
    body.on_sent(sent)


async def _sent_on_a_loop(body: Body, first: bytes, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    sent, piece = 0, first
    while piece:
        body.on_sent(sent)
        yield piece
        sent += len(piece)
        piece = await asyncio.to_thread(next, pieces, b"")
    body.on_sent(sent)
