"""`python -m tests.bench.slow_clients`: clients that mean no good and send, or take, a little now and then.

The order comes as JSON on standard input, a line. Of three clients one never ends its headers, one never ends its
body, and one never takes all of its answer. They come one after the other. When all have begun it says so; who is hung
up on begins anew at once, so that there are as many all the while.
"""

import asyncio
import json
import random
import socket
import ssl
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import cycle, islice

from tests.bench.ordered import Ordered

CONNECTING_AT_ONCE = 20
PAUSE_SECONDS = 5.0
BODY_BYTES = 500_000
TAKEN_BYTES = 1024


@dataclass(frozen=True)
class Order:
    port: int
    ca_cert: str
    clients: int
    model: str
    """For the zips that never end."""
    finished: str
    """Uid of a task with an output that is larger than what a connection holds."""
    seconds: float
    """In which they come. Those that come together are hung up on together, and come again together."""

    @property
    def begun(self) -> tuple[bytes, ...]:
        head = b"%b HTTP/1.1\r\nHost: localhost\r\n"
        post = f"POST /api/tasks/?model_human_readable_id={self.model}".encode()
        return (
            head % b"GET /",
            head % post + b"Content-Type: application/zip\r\nContent-Length: %d\r\n\r\nPK" % BODY_BYTES,
            head % f"GET /api/tasks/{self.finished}".encode() + b"\r\n",
        )


class SlowClients(Ordered):
    """All of them have begun when this is made."""

    def __init__(self, order: Order) -> None:
        super().__init__("tests.bench.slow_clients", asdict(order), ready="begun")


async def main(order: Order) -> None:
    tls = ssl.create_default_context(cafile=order.ca_cert)
    connecting = asyncio.Semaphore(CONNECTING_AT_ONCE)
    begun = asyncio.Queue[None]()
    async with asyncio.TaskGroup() as group:
        for sent in islice(cycle(order.begun), order.clients):
            group.create_task(_client(order, tls, connecting, begun, sent))
        for _ in range(order.clients):
            await begun.get()
        print("begun", flush=True)


async def _client(
    order: Order, tls: ssl.SSLContext, connecting: asyncio.Semaphore, begun: "asyncio.Queue[None]", sent: bytes
) -> None:
    await asyncio.sleep(random.uniform(0, order.seconds))
    while True:
        with suppress(OSError):
            async with connecting:
                reader, writer = await _connected(order.port, tls)
                writer.write(sent)
                await writer.drain()
                begun.put_nowait(None)
            await (_take(reader) if sent.endswith(b"\r\n\r\n") else _trickle(reader, writer))
            writer.transport.abort()


async def _connected(port: int, tls: ssl.SSLContext) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """With little room for what comes."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, TAKEN_BYTES)
    connection.setblocking(False)
    await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
    return await asyncio.open_connection(sock=connection, ssl=tls, server_hostname="localhost", limit=TAKEN_BYTES)


async def _take(reader: asyncio.StreamReader) -> None:
    while await reader.read(TAKEN_BYTES):
        await asyncio.sleep(PAUSE_SECONDS)


async def _trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while not reader.at_eof():
        writer.write(b"x")
        await writer.drain()
        with suppress(TimeoutError):
            await asyncio.wait_for(reader.read(TAKEN_BYTES), PAUSE_SECONDS)


if __name__ == "__main__":
    asyncio.run(main(Order(**json.loads(sys.stdin.readline()))))
