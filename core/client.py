"""The HTTP client of core's private API, for gateway and agents."""

import asyncio
import functools
import random
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, ParamSpec, Self, TypeVar, cast

import aiohttp
import structlog
from pydantic import TypeAdapter, ValidationError

from core.contract.agent import AgentReport, Wanted
from core.contract.errors import (
    ContractError,
    InvalidParameters,
    InvalidRequest,
    KeyRefused,
    StoreFull,
    TooManyRequests,
    TransitionRefused,
    Unauthorized,
    Unavailable,
)
from core.contract.gateway import GatewayReport
from core.contract.http import (
    CLIENT_ADDRESS,
    CLIENT_AUTHORIZATION,
    REQUEST_HEADER,
    STATUS,
    Admission,
    Asked,
    Claim,
    ClaimRequest,
    ErrorBody,
    Noted,
    Outcome,
    Readiness,
    Staged,
)
from core.contract.live import Said
from core.contract.model import Model
from core.contract.task import Failure, Reason
from core.observe import REQUEST
from core.token import CoreToken, Tokens

log = structlog.get_logger()

CONNECT_SECONDS: Final = 2.0
CALL_SECONDS: Final = 15.0
TELL_SECONDS: Final = 5.0
STALL_SECONDS: Final = 60.0
"""A transfer may take as long as it takes, but not stand still for longer than this."""

IDLE_SECONDS: Final = 30.0
"""How long an idle connection is kept; core keeps its end for longer, so that none closes as it is used."""

SILENT_SECONDS: Final = 10
"""A core that acknowledges nothing for so long, because its host was cut off, is given up: no FIN will ever come. Its
window mustn't stay closed for longer either, and doesn't: by then it has given up on Redis.
"""

PROBE_SECONDS: Final = 3
"""How often an idle connection is tried."""

BUFFER_BYTES: Final = 2**18

_CLIENT: Final = ContextVar[tuple[tuple[str, str], ...]]("client", default=())
"""Headers that say for whom a gateway calls; none where a service speaks for itself."""

_OUTCOMES: Final = TypeAdapter(list[Outcome])
_MODELS: Final = TypeAdapter(list[Model])

P = ParamSpec("P")
T = TypeVar("T")


def speak_for(authorization: str, address: str) -> None:
    """From here on this task calls core on behalf of that client of a gateway, as does what it begins."""
    _CLIENT.set(((CLIENT_AUTHORIZATION, authorization), (CLIENT_ADDRESS, address)))


@contextmanager
def on_own_behalf() -> Iterator[None]:
    token = _CLIENT.set(())
    try:
        yield
    finally:
        _CLIENT.reset(token)


def behalf() -> dict[str, str]:
    """Headers of a call to core: for which request, and for which client."""
    request = REQUEST.get()
    return dict(_CLIENT.get()) | ({REQUEST_HEADER: request} if request else {})


class CoreAccess(CoreToken):
    """Where core is, the token, and who has signed core's certificate where the URL is https."""

    core_url: str = "http://core:7000"
    core_ca_file: Path | None = None
    """None: whom this machine trusts."""


class CoreClient:
    """Open with `async with CoreClient.open(access)`. Core's refusals come as its own errors; anything else that
    keeps an answer from coming is Unavailable.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session

    @classmethod
    @asynccontextmanager
    async def open(cls, access: CoreAccess) -> AsyncIterator[Self]:
        """One pool of connections, kept alive for less long than core keeps them."""
        session = aiohttp.ClientSession(
            access.core_url,
            connector=aiohttp.TCPConnector(
                limit=0,
                keepalive_timeout=IDLE_SECONDS,
                use_dns_cache=False,  # where cores are replaced, a name leads elsewhere a moment later
                socket_factory=_socket,
                ssl=_trust(access),
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS),
            middlewares=(_opening(access.tokens),),
            auto_decompress=False,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            read_bufsize=BUFFER_BYTES,
        )
        async with session:
            yield cls(session)

    async def admit(self, *, model: str | None, size: int | None) -> Admission:
        """Room for a body of this many bytes, for a model if it is a task's; None: not known."""
        params = ({"model": model} if model is not None else {}) | ({"size": str(size)} if size is not None else {})
        return Admission.model_validate_json(await self._call("GET", "/api/admission", params=params))

    async def admit_more(self, uid: str, *, offset: int, size: int | None) -> None:
        """Raises why that many bytes, or however many, wouldn't be taken for an upload from that offset on."""
        params = {"offset": str(offset)} | ({"size": str(size)} if size is not None else {})
        await self._call("GET", f"/api/uploads/{uid}/admission", params=params)

    async def ready(self) -> None:
        """Raises Unavailable, with what core lacks, when it can't take tasks."""
        await self._call("GET", "/readyz")

    async def readiness(self) -> Readiness:
        """What core says of it, ready or not."""
        try:
            async with self.session.get("/readyz") as response:
                return Readiness.model_validate_json(await response.read())
        except (aiohttp.ClientError, TimeoutError, OSError, ValidationError) as error:
            raise unanswered(error) from error

    async def models(self) -> list[Model]:
        """All that are registered."""
        return _MODELS.validate_json(await self._call("GET", "/api/models/"))

    async def model(self, uid: str) -> Model:
        return Model.model_validate_json(await self._call("GET", f"/api/models/{uid}"))

    async def knows(self, key: str) -> bool:
        """Whether an API key opens anything: it doesn't where none is required."""
        try:
            with on_own_behalf():
                await self._call("GET", "/api/models/", headers={"Authorization": f"Bearer {key}"})
        except Unauthorized:
            return False
        return True

    async def outcomes(self, asked: Asked) -> list[Outcome]:
        """What whoever asks for each of these tasks is to be told."""
        body = asked.model_dump_json(exclude_defaults=True).encode()
        return _OUTCOMES.validate_json(await self._call("POST", "/api/tasks/outcomes", body))

    async def ended(self) -> AsyncIterator[str]:
        """The uid of each task that ends, from now on; "" at first, and while there is none. Raises Unavailable."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=CALL_SECONDS)
        try:
            async with self.session.get("/api/tasks/ended", timeout=timeout) as response:
                if response.status >= 400:
                    raise _refusal(response, await response.read())
                async for line in response.content:
                    yield line.decode().strip()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise unanswered(error) from error

    async def report(self, report: AgentReport) -> Wanted:
        """Who an agent is, and for what it may listen."""
        return Wanted.model_validate_json(await self._call("POST", "/api/agents/", report.model_dump_json().encode()))

    async def report_gateway(self, report: GatewayReport) -> None:
        """Who a gateway is."""
        await self._call("POST", "/api/gateways/", report.model_dump_json().encode())

    async def claim(self, uid: str, request: ClaimRequest) -> Claim:
        body = request.model_dump_json().encode()
        return Claim.model_validate_json(await self._call("POST", f"/api/tasks/{uid}/claim", body))

    async def stage(self, uid: str) -> Staged:
        """A task that may be claimed in a moment. TransitionRefused: it isn't pending."""
        return Staged.model_validate_json(await self._call("POST", f"/api/tasks/{uid}/stage"))

    async def renew(self, uid: str, attempt: int, noted: Noted, *, seconds: float) -> None:
        """Raises Unavailable after so long: a lease doesn't wait for a core that has vanished."""
        path = f"/api/tasks/{uid}/attempts/{attempt}/renew"
        await self._call("POST", path, params=noted.query, seconds=seconds)

    async def tell(self, uid: str, attempt: int, said: Said) -> None:
        """What the attempt's container has printed. TransitionRefused: nobody wants to hear more of it."""
        path = f"/api/tasks/{uid}/attempts/{attempt}/events"
        await self._call("POST", path, said.model_dump_json().encode(), seconds=TELL_SECONDS)

    async def finish(self, uid: str, attempt: int, zip: AsyncIterable[bytes], noted: Noted) -> None:
        """Streams the output zip. TransitionRefused: the attempt has lost the task."""
        path = f"/api/tasks/{uid}/attempts/{attempt}/output"
        await self._call("POST", path, zip, params=noted.query, seconds=None)

    async def fail(self, uid: str, attempt: int, failure: Failure, noted: Noted) -> None:
        """To a core of an older version, which doesn't know what else may be a model's fault, it is `exit_nonzero`."""
        path = f"/api/tasks/{uid}/attempts/{attempt}/failure"
        try:
            await self._call("POST", path, failure.model_dump_json().encode(), params=noted.query)
        except (InvalidRequest, InvalidParameters):
            known = failure.model_copy(update={"reason": Reason.EXIT_NONZERO})
            if failure.reason.retries or failure == known:
                raise
            await self._call("POST", path, known.model_dump_json().encode(), params=noted.query)

    async def release(self, uid: str, attempt: int) -> None:
        await self._call("POST", f"/api/tasks/{uid}/attempts/{attempt}/release")

    async def input_range(self, uid: str, offset: int, length: int) -> bytes:
        return await self._range(f"/api/tasks/inputs/{uid}", offset, length)

    async def model_zip_range(self, uid: str, zip_id: str, offset: int, length: int) -> bytes:
        """Of a zip that the model has, or had a moment ago."""
        return await self._range(f"/api/models/zips/{uid}", offset, length, params={"zip": zip_id})

    async def _range(self, path: str, offset: int, length: int, *, params: Mapping[str, str] | None = None) -> bytes:
        return await self._call(
            "GET", path, params=params, headers={"Range": f"bytes={offset}-{offset + length - 1}"}, seconds=None
        )

    async def _call(
        self,
        method: str,
        path: str,
        data: bytes | AsyncIterable[bytes] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float | None = CALL_SECONDS,
    ) -> bytes:
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS)
        headers = {**(headers or {}), **behalf()}
        try:
            async with self.session.request(
                method, path, data=data, params=params, headers=headers, timeout=timeout
            ) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise unanswered(error) from error
        if response.status >= 400:
            raise _refusal(response, body)
        return body


def _trust(access: CoreAccess) -> ssl.SSLContext | bool:
    if access.core_ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=access.core_ca_file)
    except OSError as error:
        raise SystemExit(f"CORE_CA_FILE must be a CA's certificate in PEM, {access.core_ca_file}: {error}") from error


def _opening(tokens: Tokens) -> aiohttp.ClientMiddlewareType:
    """Each request has the token that is to be sent by then, unless it has its own."""

    async def opening(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        request.headers.setdefault("Authorization", f"Bearer {tokens.sent}")
        return await handler(request)

    return opening


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    connection = socket.socket(family, kind, protocol)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, SILENT_SECONDS * 1000)
    return connection


def unanswered(error: Exception) -> Exception:
    """What to raise when no answer came: Unavailable, or what the body's own source raised, which aiohttp wraps."""
    source = error.__cause__
    # An answer that ends too early is a ClientPayloadError, and its cause a word of aiohttp's parser.
    if (
        isinstance(error, aiohttp.ClientConnectionError)
        and source
        and not isinstance(source, aiohttp.ClientError | OSError)
    ):
        return cast(Exception, source)
    log.warning("core.unanswered", error=repr(error))
    return Unavailable()


class Unoffered(Unavailable):
    """Core is of a version that doesn't have this call yet: others are replaced before it in an update."""


_REFUSALS: Final = {status: kind for kind, status in STATUS.items()} | {
    400: InvalidRequest,
    401: Unauthorized,
    409: TransitionRefused,
}


def is_clients(answer: aiohttp.ClientResponse) -> bool:
    """Core has refused what the gateway's client offers, and not the gateway's token."""
    return CLIENT_AUTHORIZATION in answer.headers


def _refusal(answer: aiohttp.ClientResponse, body: bytes) -> ContractError:
    """Core's answer as the error that it was there; a status that isn't core's own is a part that is away."""
    try:
        detail = ErrorBody.model_validate_json(body).detail
    except ValidationError:
        detail = body.decode(errors="replace")[:500]
    if is_clients(answer):
        return KeyRefused(detail)
    if answer.status == HTTPStatus.TOO_MANY_REQUESTS:
        return TooManyRequests(detail, retry_seconds=int(answer.headers.get("Retry-After", 0)))
    missing = Unoffered if answer.status == HTTPStatus.METHOD_NOT_ALLOWED else Unavailable
    return _REFUSALS.get(answer.status, missing)(detail)


def patiently(
    call: Callable[P, Coroutine[Any, Any, T]], *, first_seconds: float = 0.2, last_seconds: float = 5.0
) -> Callable[P, Coroutine[Any, Any, T]]:
    """The call, made again while core is away or has no room. Whoever can't wait for ever cancels it."""

    @functools.wraps(call)
    async def again(*args: P.args, **kwargs: P.kwargs) -> T:
        seconds = first_seconds
        while True:
            try:
                return await call(*args, **kwargs)
            except (Unavailable, StoreFull) as error:
                log.warning("core.unavailable", call=call.__name__, error=str(error), retry_seconds=seconds)
                await asyncio.sleep(seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
                seconds = min(2 * seconds, last_seconds)

    return again
