"""One call on to core and its answer back, streamed both ways; nothing is held but a piece on its way."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Final

import aiohttp
import structlog
from multidict import CIMultiDict
from quart import Response, request

from core.client import CoreClient, unanswered
from core.contract.errors import TooLarge, Unavailable
from core.contract.http import TICKET_HEADER, Admission

log = structlog.get_logger()

SMALL_BYTES: Final = 2**20
"""A body up to this size is sent at once; for a larger one core is asked first."""

ANSWER_SECONDS: Final = 15.0
"""To a call without a body core begins to answer within this, or stands still."""

PASSED_ON: Final = ("Content-Type", "Range", "If-Range", "If-None-Match", "Accept")
PASSED_BACK: Final = frozenset(
    {
        "accept-ranges",
        "cache-control",
        "content-disposition",
        "content-length",
        "content-range",
        "content-type",
        "etag",
        "location",
        "retry-after",
    }
)


async def relay(
    core: CoreClient,
    method: str,
    path: str,
    *,
    params: Mapping[str, str] | None = None,
    admission: Admission | None = None,
) -> Response:
    """The present request as `method path` of core. The admission bounds a body whose length isn't known."""
    headers = CIMultiDict({name: request.headers[name] for name in PASSED_ON if name in request.headers})
    body: AsyncIterator[bytes] | None = (
        aiter(request.body) if method == "POST" and request.content_length != 0 else None
    )
    if body is not None and request.content_length is not None:
        headers["Content-Length"] = str(request.content_length)
    if body is not None and admission is not None:
        headers[TICKET_HEADER] = admission.ticket
        body = _bounded(body, admission.max_bytes)
    try:
        async with asyncio.timeout(ANSWER_SECONDS if body is None else None):
            answer = await core.session.request(
                method,
                path,
                params=params,
                headers=headers,
                data=body,
                allow_redirects=False,
            )
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise unanswered(error) from error
    if answer.status == HTTPStatus.UNAUTHORIZED:
        answer.close()
        log.error("core.token_refused")  # the operator's to mend, and nothing that a client can do
        raise Unavailable
    back = [(name, value) for name, value in answer.headers.items() if name.lower() in PASSED_BACK]
    response = Response(_pieces(answer), answer.status)
    response.headers.clear()
    response.headers.extend(back)
    return response


async def _bounded(body: AsyncIterator[bytes], max_bytes: int) -> AsyncIterator[bytes]:
    left = max_bytes
    async for piece in body:
        left -= len(piece)
        if left < 0:
            raise TooLarge.over(max_bytes)
        yield piece


async def _pieces(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Core's connection goes back to the pool, or is closed when the client went away in the middle."""
    try:
        async for piece in answer.content.iter_any():
            yield piece
    finally:
        answer.release()
