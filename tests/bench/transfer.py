"""One transfer by a client of its own: a process with a blocking socket and TLS 1.3, the same for ours and the control.

`python -m tests.bench.transfer` is that process. It connects, says so, waits for a line, sends a head, a file and a
tail, counts the bytes of the answer, and says how long that took.
"""

import json
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from demo.stack import ALLOCATOR, REPOSITORY

PIECE_BYTES = 2**18
SHOWN_BYTES = 200
END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True)
class Order:
    port: int
    ca_cert: str
    head: str
    file: str | None = None
    tail: str = ""


@dataclass(frozen=True)
class Receipt:
    seconds: float
    status: str
    body: str
    """How it begins."""
    received: int


def transfer(orders: Sequence[Order]) -> tuple[float, list[Receipt]]:
    """All at once, each in a process of its own: the seconds until the last is done, and what each saw."""
    with Clients(orders) as clients:
        return clients.go()


class Clients:
    """Connected, but quiet until `go`."""

    def __init__(self, orders: Sequence[Order]) -> None:
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.bench.transfer", json.dumps(asdict(order))],
                cwd=REPOSITORY,
                env=ALLOCATOR,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for order in orders
        ]
        for process in self._processes:
            assert process.stdout is not None
            assert process.stdout.readline(), "a client could not connect"

    def go(self) -> tuple[float, list[Receipt]]:
        before = time.perf_counter()
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        receipts = []
        for process in self._processes:
            assert process.stdout is not None
            receipts.append(Receipt(**json.loads(process.stdout.readline())))
        return time.perf_counter() - before, receipts

    def __enter__(self) -> "Clients":
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.communicate()


def main(order: Order) -> None:
    tls = ssl.create_default_context(cafile=order.ca_cert)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    with socket.create_connection(("localhost", order.port)) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with tls.wrap_socket(plain, server_hostname="localhost") as connection:
            print("connected", flush=True)
            sys.stdin.readline()
            before = time.perf_counter()
            connection.sendall(order.head.encode())
            if order.file:
                _send_file(connection, Path(order.file))
            if order.tail:
                connection.sendall(order.tail.encode())
            status, body, received = _receive(connection)
            receipt = Receipt(time.perf_counter() - before, status, body, received)
    print(json.dumps(asdict(receipt)), flush=True)


def _send_file(connection: ssl.SSLSocket, path: Path) -> None:
    buffer = memoryview(bytearray(PIECE_BYTES))
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            connection.sendall(buffer[:count])


def _receive(connection: ssl.SSLSocket) -> tuple[str, str, int]:
    """The first line of the answer, how its body begins, and how many bytes that has."""
    start = b""
    while END_OF_HEAD not in start:
        piece = connection.recv(PIECE_BYTES)
        assert piece, f"the answer ended after {start!r}"
        start += piece
    head, _, body = start.partition(END_OF_HEAD)
    status, *lines = head.decode().split("\r\n")
    [length] = [int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:")]
    received, shown = len(body), body[:SHOWN_BYTES]
    buffer = bytearray(PIECE_BYTES)
    while received < length:
        count = connection.recv_into(buffer)
        assert count, f"the answer ended after {received} of {length} bytes"
        shown = shown or bytes(buffer[: min(count, SHOWN_BYTES)])
        received += count
    return status, shown.decode(errors="replace"), received


def order_of(text: str) -> Order:
    fields: dict[str, Any] = json.loads(text)
    return Order(**fields)


if __name__ == "__main__":
    main(order_of(sys.argv[1]))
