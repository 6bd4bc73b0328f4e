"""One call on to core and its answer back, streamed both ways; nothing is held but a piece on its way."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

import aiohttp
import structlog

from core import tus
from core.calls import Call
from core.client import CoreClient, behalf, is_clients, unanswered
from core.contract.errors import KeyRefused, TooLarge, Unauthorized, Unavailable
from core.contract.http import CLIENT_AUTHORIZATION, TICKET_HEADER, Admission

log = structlog.get_logger()

SMALL_BYTES: Final = 2**20
"""A body up to this size is sent at once; for a larger one core is asked first."""

ANSWER_SECONDS: Final = 15.0
"""To a call without a body core begins to answer within this, or stands still."""

HELD_BYTES: Final = 2**16
"""Bodies up to this size are held, and passed on at once."""

PASSED_ON: Final = (
    "content-type",
    "range",
    "if-range",
    "if-none-match",
    "accept",
    "idempotency-key",
    "webhook-secret",
    *(name.lower() for name in tus.ASKED),
    "last-event-id",
)
PASSED_BACK: Final = frozenset(
    {
        "accept-ranges",
        "cache-control",
        "content-disposition",
        "content-range",
        "content-type",
        "etag",
        "location",
        "retry-after",
        "www-authenticate",
        *(name.lower() for name in tus.ANSWERED),
    }
)


async def relay(
    call: Call,
    core: CoreClient,
    method: str,
    path: str,
    *,
    params: Sequence[tuple[str, str]] = (),
    admission: Admission | None = None,
    key: str = "",
    until: asyncio.Event | None = None,
) -> None:
    """The call as `method path` of core. The admission bounds a body whose length isn't known. With a `key` it is that
    which opens core, and not the gateway's token. An answer without an end ends at the event.
    """
    headers = {name: call.header(name) for name in PASSED_ON if name in call} | behalf()
    if key:
        del headers[CLIENT_AUTHORIZATION]
        headers["authorization"] = f"Bearer {key}"
    body: AsyncIterator[bytes] | bytes | None = None
    if call.has_body:
        size = call.content_length
        body = call.pieces() if admission is None else _bounded(call.pieces(), admission.max_bytes)
        if admission is not None:
            headers[TICKET_HEADER] = admission.ticket
        if size is not None and size <= HELD_BYTES:
            body = b"".join([piece async for piece in body])
        elif size is not None:
            headers["content-length"] = str(size)
    try:
        async with asyncio.timeout(ANSWER_SECONDS if body is None else None):
            answer = await core.session.request(
                method, path, params=params, headers=headers, data=body, allow_redirects=False
            )
        try:
            await _pass_back(call, answer, until)
        finally:
            answer.release()  # to the pool; closed, unless all of it was read
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise unanswered(error) from error


async def relay_upload(
    call: Call,
    core: CoreClient,
    path: str,
    params: Sequence[tuple[str, str]],
    *,
    model: str | None = None,
    key: str = "",
) -> None:
    """A small body goes at once; before a large one core is asked, and also for the model that a task is for."""
    size = call.content_length
    if size is not None and size <= SMALL_BYTES:
        return await relay(call, core, call.method, path, params=params, key=key)
    with own_token():
        admission = await core.admit(model=model, size=size)
    await relay(call, core, call.method, path, params=params, admission=admission, key=key)


@contextmanager
def own_token() -> Iterator[None]:
    """Core refuses the gateway's token: that is the operator's to mend, and nothing that a client can do."""
    try:
        yield
    except KeyRefused:
        raise
    except Unauthorized:
        log.error("core.token_refused")
        raise Unavailable from None


async def _pass_back(call: Call, answer: aiohttp.ClientResponse, until: asyncio.Event | None) -> None:
    with own_token():
        if answer.status == HTTPStatus.UNAUTHORIZED and not is_clients(answer):
            raise Unauthorized
    headers = [(name, value) for name, value in answer.headers.items() if name.lower() in PASSED_BACK]
    size = answer.content_length
    if size is not None and size <= HELD_BYTES and call.method != "HEAD":
        await call.answer(answer.status, await answer.read(), headers)
    else:
        length = [("Content-Length", str(size))] if size is not None else []
        pieces = answer.content.iter_any()
        await call.stream(answer.status, [*headers, *length], _ended(pieces, until) if until else pieces)


async def _ended(pieces: AsyncIterator[bytes], until: asyncio.Event) -> AsyncIterator[bytes]:
    """As long as the event hasn't come."""
    ending = asyncio.ensure_future(until.wait())
    reading: asyncio.Future[bytes] | None = None
    try:
        while True:
            reading = asyncio.ensure_future(anext(pieces, b""))
            await asyncio.wait({ending, reading}, return_when=asyncio.FIRST_COMPLETED)
            if not reading.done() or not (piece := reading.result()):
                return
            yield piece
    finally:
        for waiting in (ending, reading):
            if waiting:
                waiting.cancel()


async def _bounded(body: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[bytes]:
    left = max_bytes
    async for piece in body:
        left -= len(piece)
        if left < 0:
            raise TooLarge.over(max_bytes)
        yield piece
