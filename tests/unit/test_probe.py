"""The health check of core's and gateway's containers."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from core import probe


class _Service(BaseHTTPRequestHandler):
    """Answers /200 with 200 and /503 with 503."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.strip("/")))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Service) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


def _asked(url: str) -> int:
    """As the image asks, without the repository on the path."""
    return subprocess.run([sys.executable, "-I", probe.__file__, url], timeout=30).returncode


@pytest.mark.parametrize(("path", "code"), [("/200", 0), ("/503", 1)])
def test_only_200_is_healthy(service: str, path: str, code: int) -> None:
    assert _asked(service + path) == code


def test_nobody_there_is_not_healthy() -> None:
    assert _asked("http://127.0.0.1:9/healthz") == 1
