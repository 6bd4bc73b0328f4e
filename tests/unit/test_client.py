"""What keeps an answer of core's from coming is Unavailable, whatever it was."""

import asyncio
from contextlib import nullcontext

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import SecretStr

from core.client import CoreAccess, CoreClient
from core.contract.errors import InvalidRequest, Unavailable
from core.contract.http import Noted
from core.contract.task import Failure, Reason

KNOWN = {Reason.EXIT_NONZERO}


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 20",
        b"HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\n\r\n12345",
        b"HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
    ],
)
async def test_an_answer_that_breaks_off(answer: bytes) -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(break_off, "127.0.0.1") as server:
        port = server.sockets[0].getsockname()[1]
        access = CoreAccess(core_url=f"http://127.0.0.1:{port}", core_token=SecretStr("token"))
        async with CoreClient.open(access) as core:
            with pytest.raises(Unavailable):
                await core.input_range("x" * 43, 0, 10)


@pytest.mark.parametrize(
    ("reason", "told"),
    [(Reason.DISK_LIMIT, [Reason.DISK_LIMIT, Reason.EXIT_NONZERO]), (Reason.DISK_FULL, [Reason.DISK_FULL])],
)
async def test_an_older_core_hears_of_a_fault_that_it_does_not_know(reason: Reason, told: list[Reason]) -> None:
    """As one that it knows, if it is the model's; what is the host's is none of the model's."""
    heard: list[Failure] = []

    async def refuse(request: web.Request) -> web.Response:
        heard.append(Failure.model_validate_json(await request.read()))
        return web.Response(status=204 if heard[-1].reason in KNOWN else 400)

    app = web.Application()
    app.router.add_post("/{path:.*}", refuse)
    async with TestServer(app) as server:
        access = CoreAccess(core_url=str(server.make_url("")), core_token=SecretStr("token"))
        async with CoreClient.open(access) as core:
            with nullcontext() if told[-1] in KNOWN else pytest.raises(InvalidRequest):
                await core.fail("x" * 43, 1, Failure(reason=reason, message="words", exit_code=153), Noted())
    assert heard == [Failure(reason=each, message="words", exit_code=153) for each in told]
