"""A real image registry on loopback, for as long as a test needs it."""

import random
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests

from demo.ports import is_free
from tests.waiting import eventually

CONFIG = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: {address}:{port}}}
"""
PORTS = range(18_000, 20_000)  # beside those of the stacks


@contextmanager
def running(folder: Path, address: str = "127.0.0.1") -> Iterator[str]:
    """`host:port`; the engine takes a registry on loopback without TLS."""
    port = next(filter(is_free, random.sample(PORTS, 50)))
    config = folder / "registry.yml"
    config.write_text(CONFIG.format(folder=folder / "registry", address=address, port=port))
    program = shutil.which("docker-registry")
    assert program is not None, "docker-registry is not installed: just test installs it"
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
    try:
        eventually(lambda: _answers(f"{address}:{port}"))
        yield f"{address}:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)


@contextmanager
def slow(host: str, piece_bytes: int, pause: Callable[[], None]) -> Iterator[str]:
    """Another registry's content, with a pause before each piece of a layer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            accepted = {"Accept": self.headers["Accept"]} if self.headers["Accept"] else {}
            answer = requests.get(f"http://{host}{self.path}", headers=accepted, timeout=10)
            self.send_response(answer.status_code)
            for name in ("Content-Type", "Content-Length", "Docker-Content-Digest", "Docker-Distribution-Api-Version"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            is_layer = len(answer.content) > piece_bytes
            with suppress(ConnectionError):  # the engine gave up
                for start in range(0, len(answer.content), piece_bytes):
                    if is_layer:
                        pause()
                    self.wfile.write(answer.content[start : start + piece_bytes])

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            serving.join()


def _answers(host: str) -> bool:
    try:
        return requests.get(f"http://{host}/v2/", timeout=5).ok
    except requests.ConnectionError:
        return False
