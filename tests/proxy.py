"""TCP proxies that can be cut, refuse, freeze, slow down and hold a transfer up, in a thread of their own."""

import asyncio
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self, TypeVar

PIECE_BYTES = 64 * 1024
CALL_SECONDS = 10
HOLDING_SECONDS = 30
RESET = struct.pack("ii", 1, 0)
"""SO_LINGER for a close that sends RST."""

Address = tuple[str, int]
Value = TypeVar("Value")


class Proxies:
    """The thread. `proxy` opens one; when the context ends, so do all connections."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies")
        self._proxies: list[Proxy] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for proxy in self._proxies:
            self._now(proxy.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def to(self, *targets: Address) -> "Proxy":
        """A proxy in front of these, on a port of its own."""
        proxy = Proxy(self._loop, targets)
        self._now(proxy.listen())
        self._proxies.append(proxy)
        return proxy

    def _now(self, call: Coroutine[object, object, Value]) -> Value:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(CALL_SECONDS)


@contextmanager
def holding(port: int, *, up_after: int | None = None, down_after: int | None = None) -> Iterator["Proxy"]:
    """In front of a port of this machine: of what passes it in one direction of one connection, the first to be longer
    than the bound, in bytes, stands still in its middle. Everything else goes on.
    """
    with Proxies() as proxies:
        proxy = proxies.to(("127.0.0.1", port))
        proxy.bounds = (up_after, down_after)
        yield proxy


class Proxy:
    """Each connection goes to the next target in turn that doesn't refuse it. Call from any thread but the loop's."""

    def __init__(self, loop: asyncio.AbstractEventLoop, targets: Sequence[Address]) -> None:
        self.port = 0
        self.passed_bytes = 0
        self._loop = loop
        self._turns = itertools.cycle(targets)
        self._tries = len(targets)
        self._relays: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._is_refusing = False
        self._delay: Callable[[int], float] | None = None
        self.bounds: tuple[int | None, int | None] = (None, None)
        self._holds = threading.Event()
        self._released = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        self._flowing.set()
        self._released.set()
        self._reset_all()
        await asyncio.gather(*self._relays)

    def cut(self) -> None:
        """Resets every connection."""
        self._loop.call_soon_threadsafe(self._reset_all)

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Resets every connection, and each new one at once."""
        self._is_refusing = True
        self.cut()
        try:
            yield
        finally:
            self._is_refusing = False

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Connections stay open, new ones too, and nothing passes: a black hole. What was sent arrives after."""
        self._loop.call_soon_threadsafe(self._flowing.clear)
        try:
            yield
        finally:
            self._loop.call_soon_threadsafe(self._flowing.set)

    @contextmanager
    def slow(self, *, latency_seconds: float, bytes_per_second: float) -> Iterator[None]:
        """Each piece of up to 64 KiB takes its time, in each direction of each connection."""
        self._delay = lambda size: latency_seconds + size / bytes_per_second
        try:
            yield
        finally:
            self._delay = None

    def wait_until_it_holds(self) -> None:
        assert self._holds.wait(HOLDING_SECONDS), "nothing went through that was as large"

    def release(self) -> None:
        self._loop.call_soon_threadsafe(self._released.set)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relay: asyncio.Task[Any] | None = asyncio.current_task()
        assert relay
        self._relays.add(relay)
        self._writers.add(writer)
        try:
            await self._relay(reader, writer)
        except OSError:
            _reset(writer)
        finally:
            writer.close()
            self._writers.discard(writer)
            self._relays.discard(relay)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until both sides have ended well. Raises OSError, with the target's side reset, when one hasn't."""
        if self._is_refusing:
            raise ConnectionRefusedError
        target_reader, target_writer = await self._reach()
        self._writers.add(target_writer)
        up_after, down_after = self.bounds
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, target_writer, up_after))
                group.create_task(self._pass(target_reader, writer, down_after))
        except* OSError:
            _reset(target_writer)
            raise ConnectionResetError from None
        finally:
            target_writer.close()
            self._writers.discard(target_writer)

    async def _reach(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for host, port in itertools.islice(self._turns, self._tries):
            with suppress(ConnectionRefusedError):
                return await asyncio.open_connection(host, port)
        raise ConnectionRefusedError

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bound: int | None) -> None:
        passed = 0
        while piece := await reader.read(PIECE_BYTES):
            if self._delay:
                await asyncio.sleep(self._delay(len(piece)))
            await self._flowing.wait()
            writer.write(piece)
            await writer.drain()
            self.passed_bytes += len(piece)
            passed += len(piece)
            if bound is not None and passed > bound and not self._holds.is_set():
                self._holds.set()
                await self._released.wait()
        await self._flowing.wait()
        writer.write_eof()

    def _reset_all(self) -> None:
        for writer in self._writers:
            _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with suppress(OSError):  # closed already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
