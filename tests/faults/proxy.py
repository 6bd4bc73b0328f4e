"""A TCP proxy that lets a transfer begin and holds it up in its middle."""

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

PIECE_BYTES = 65536
HOLDING_SECONDS = 30


class Proxy:
    """In front of a port of this machine. The first connection past a bound, in bytes, stands still; others go on."""

    def __init__(self, port: int, *, hold_up_after: int | None = None, hold_down_after: int | None = None) -> None:
        self._port = port
        self._up_bytes = hold_up_after
        self._down_bytes = hold_down_after
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._holds = threading.Event()
        self._released = threading.Event()
        self._threads = [threading.Thread(target=self._accept, name="proxy")]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def wait_until_it_holds(self) -> None:
        assert self._holds.wait(HOLDING_SECONDS), "nothing went through that was as large"

    def release(self) -> None:
        self._released.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Whoever is connected must be gone."""
        self.release()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # shut down
                return
            self._threads.append(threading.Thread(target=self._relay, args=(client,), name="proxied"))
            self._threads[-1].start()

    def _relay(self, client: socket.socket) -> None:
        with client, suppress(OSError), socket.create_connection(("127.0.0.1", self._port)) as server:
            up = threading.Thread(target=self._pass, args=(client, server, self._up_bytes), name="proxied up")
            up.start()
            self._pass(server, client, self._down_bytes)
            up.join()

    def _pass(self, source: socket.socket, sink: socket.socket, bound: int | None) -> None:
        passed = 0
        with suppress(OSError):
            while piece := source.recv(PIECE_BYTES):
                sink.sendall(piece)
                passed += len(piece)
                if bound is not None and passed > bound and not self._holds.is_set():
                    self._holds.set()
                    self._released.wait()
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
