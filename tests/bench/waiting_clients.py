"""`python -m tests.bench.waiting_clients`: many clients that wait for their answers by long polls, in one process.

The order comes as JSON on standard input, a line. When all wait it says so; each end it tells with a line. A server
that answers "not yet" at once is asked again after five seconds, as a patient client of version 1 does.
"""

import asyncio
import json
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.bench.ordered import Ordered

OK = 200
NOT_YET = 551
TOO_BUSY = 503
CONNECTING_AT_ONCE = 20
POLL_SECONDS = 5.0
END_OF_HEAD = b"\r\n\r\n"
END_OF_CHUNKS = b"\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Order:
    port: int
    ca_cert: str
    paths: Sequence[str]
    """One for each client."""
    are_endless: bool = False
    """The answers begin at once, and end with the task."""


@dataclass(frozen=True)
class End:
    path: str
    status: int
    at: float
    """By the machine's monotonic clock."""


class WaitingClients(Ordered):
    """All of them wait when this is made."""

    def __init__(self, order: Order) -> None:
        super().__init__("tests.bench.waiting_clients", asdict(order), ready="waiting")

    def next_end(self) -> End:
        fields: dict[str, Any] = json.loads(self._line())
        return End(**fields)


async def main(order: Order) -> None:
    tls = ssl.create_default_context(cafile=order.ca_cert)
    connecting = asyncio.Semaphore(CONNECTING_AT_ONCE)
    waiting = asyncio.Queue[str]()
    async with asyncio.TaskGroup() as group:
        for path in order.paths:
            group.create_task(_client(order, tls, connecting, waiting, path))
        for _ in order.paths:
            await waiting.get()
        print("waiting", flush=True)


async def _client(
    order: Order, tls: ssl.SSLContext, connecting: asyncio.Semaphore, waiting: "asyncio.Queue[str]", path: str
) -> None:
    async with connecting:
        reader, writer = await asyncio.open_connection("localhost", order.port, ssl=tls)
        await _ask(writer, path)
        while order.are_endless and await _begun(reader) == TOO_BUSY:
            await _ask(writer, path)
        waiting.put_nowait(path)
    if order.are_endless:
        await reader.readuntil(END_OF_CHUNKS)
        status = OK
    else:
        status = await _end(reader, writer, path)
    print(json.dumps(asdict(End(path, status, time.monotonic()))), flush=True)
    writer.close()


async def _end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> int:
    """The first status that isn't "not yet"."""
    while True:
        asked = time.monotonic()
        if (status := await _begun(reader)) not in (NOT_YET, TOO_BUSY):
            return status
        if time.monotonic() - asked < POLL_SECONDS:
            await asyncio.sleep(POLL_SECONDS)
        await _ask(writer, path)


async def _ask(writer: asyncio.StreamWriter, path: str) -> None:
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    await writer.drain()


async def _begun(reader: asyncio.StreamReader) -> int:
    """The status; a body whose length is known has been read."""
    head = (await reader.readuntil(END_OF_HEAD)).decode()
    for line in head.split("\r\n"):
        if line.lower().startswith("content-length:"):
            await reader.readexactly(int(line.split(":")[1]))
    return int(head.split()[1])


if __name__ == "__main__":
    asyncio.run(main(Order(**json.loads(sys.stdin.readline()))))
