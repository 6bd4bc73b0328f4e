"""What any byte costs on its way from a client to Redis and back through two processes: the bare chain.

Client over TLS 1.3 → front → back → Redis, in chunks of the store's size, with blocking sockets and a thread for each
connection. No HTTP: a request is a line, `PUT name bytes` with the bytes after it, or `GET name first bytes`, the first
at the start of a chunk; an answer has a head that says how many bytes come.

`python -m tests.bench.controls.chain front|back ...` is one of the processes.
"""

import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from socketserver import BaseRequestHandler, ThreadingTCPServer

from core.store.blobs import CHUNK_BYTES
from demo.ports import free_ports
from demo.stack import ALLOCATOR, REPOSITORY, Stack
from tests.bench.processes import Processes
from tests.bench.transfer import Order

PIECE_BYTES = 2**18
SOCKET_BYTES = 2**20
END_OF_HEAD = b"\r\n\r\n"
PREFIX = "bench-chain"
SHORTEST_BYTES = 16  # the length of any chunk fits, and no chunk is shorter


@dataclass(frozen=True)
class Chain:
    """Running, in front of the stack's Redis and with its certificate."""

    stack: Stack
    port: int
    processes: Processes

    @classmethod
    @contextmanager
    def up(cls, stack: Stack) -> Iterator["Chain"]:
        front_port, back_port = free_ports(2)
        tls = [str(stack.certificates.cert), str(stack.certificates.key)]
        back = _process("back", str(back_port), str(stack.ports.redis))
        front = _process("front", str(front_port), str(back_port), *tls)
        try:
            for process in (back, front):
                assert process.stdout is not None
                process.stdout.readline()  # it listens
            yield cls(stack, front_port, Processes({"front": front.pid, "back": back.pid}))
        finally:
            for process in (front, back):
                process.kill()
                process.communicate()

    def put(self, name: str, file: str, size: int) -> Order:
        return Order(self.port, str(self.stack.certificates.ca_cert), f"PUT {name} {size}\r\n\r\n", file=file)

    def get(self, name: str, first: int, size: int) -> Order:
        return Order(self.port, str(self.stack.certificates.ca_cert), f"GET {name} {first} {size}\r\n\r\n")


def _process(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.bench.controls.chain", *arguments]
    return subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, **ALLOCATOR}, stdout=subprocess.PIPE)


class Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


def front(port: int, back_port: int, cert: str, key: str) -> Server:
    """Takes TLS off and puts it on."""
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    tls.load_cert_chain(cert, key)

    class Front(BaseRequestHandler):
        def handle(self) -> None:
            with tls.wrap_socket(_tuned(self.request), server_side=True) as client, _connected(back_port) as back:
                buffer = memoryview(bytearray(PIECE_BYTES))
                head, rest = _head(client)
                back.sendall(head + END_OF_HEAD + rest)
                if head.startswith(b"PUT"):
                    _pass_on(client, back, int(head.split()[2]) - len(rest), buffer)
                answer, rest = _head(back)
                client.sendall(answer + END_OF_HEAD + rest)
                _pass_on(back, client, _length(answer) - len(rest), buffer)

    return Server(("127.0.0.1", port), Front)


def back(port: int, redis_port: int) -> Server:
    """Chunks, one after the other, to Redis and from it."""

    class Back(BaseRequestHandler):
        def handle(self) -> None:
            client, chunk = _tuned(self.request), memoryview(bytearray(CHUNK_BYTES))
            with _connected(redis_port) as redis:
                head, rest = _head(client)
                verb, name, *numbers = head.decode().split()
                if verb == "PUT":
                    self._put(client, redis, name, int(numbers[0]), rest, chunk)
                    client.sendall(_answer(0))
                else:
                    first, size = map(int, numbers)
                    client.sendall(_answer(size))
                    self._get(client, redis, name, first, size, chunk)

        def _put(
            self, client: socket.socket, redis: socket.socket, name: str, size: int, start: bytes, chunk: memoryview
        ) -> None:
            held = len(start)
            chunk[:held] = start
            for number in range(-(-size // CHUNK_BYTES)):
                full = min(CHUNK_BYTES, size - number * CHUNK_BYTES)
                while held < full:
                    held += client.recv_into(chunk[held:full])
                key = _key(name, number)
                redis.sendall(b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n" % (len(key), key, full))
                redis.sendall(chunk[:full])
                redis.sendall(b"\r\n")
                assert redis.recv(PIECE_BYTES) == b"+OK\r\n"
                held = 0

        def _get(
            self, client: socket.socket, redis: socket.socket, name: str, first: int, size: int, chunk: memoryview
        ) -> None:
            assert first % CHUNK_BYTES == 0, "ranges begin with a chunk"
            number, left = first // CHUNK_BYTES, size
            while left:
                key = _key(name, number)
                redis.sendall(b"*2\r\n$3\r\nGET\r\n$%d\r\n%b\r\n" % (len(key), key))
                start = redis.recv(SHORTEST_BYTES)
                length, _, start = start.partition(b"\r\n")
                full, held = int(length[1:]), len(start)
                chunk[:held] = start
                while held < full:
                    held += redis.recv_into(chunk[held:full])
                assert redis.recv(2, socket.MSG_WAITALL) == b"\r\n"
                client.sendall(chunk[: min(full, left)])
                number, left = number + 1, left - min(full, left)

    return Server(("127.0.0.1", port), Back)


def _key(name: str, number: int) -> bytes:
    return f"{PREFIX}:{name}:{number}".encode()


def _answer(size: int) -> bytes:
    return f"OK\r\nContent-Length: {size}".encode() + END_OF_HEAD


def _length(head: bytes) -> int:
    return int(head.rpartition(b":")[2])


def _head(connection: socket.socket) -> tuple[bytes, bytes]:
    """The head of what comes, and what came with it."""
    start = b""
    while END_OF_HEAD not in start:
        piece = connection.recv(PIECE_BYTES)
        if not piece:
            raise ConnectionError
        start += piece
    head, _, rest = start.partition(END_OF_HEAD)
    return head, rest


def _pass_on(source: socket.socket, sink: socket.socket, count: int, buffer: memoryview) -> None:
    while count:
        got = source.recv_into(buffer)
        if not got:
            raise ConnectionError
        sink.sendall(buffer[:got])
        count -= got


def _connected(port: int) -> socket.socket:
    return _tuned(socket.create_connection(("127.0.0.1", port)))


def _tuned(connection: socket.socket) -> socket.socket:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        connection.setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)
    return connection


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    server = (
        front(int(arguments[0]), int(arguments[1]), *arguments[2:])
        if what == "front"
        else back(int(arguments[0]), int(arguments[1]))
    )
    print("listens", flush=True)
    server.serve_forever()
