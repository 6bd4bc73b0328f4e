"""What keeps an answer of core's from coming is Unavailable, whatever it was."""

import asyncio

import pytest
from pydantic import SecretStr

from core.client import CoreAccess, CoreClient
from core.contract.errors import Unavailable


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
