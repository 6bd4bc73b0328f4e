"""A real image registry on loopback, for as long as a test needs it."""

import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from demo.ports import is_free
from tests.waiting import eventually

CONFIG = """\
version: 0.1
log: {{level: error}}
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: 127.0.0.1:{port}}}
"""
PORTS = range(18_000, 20_000)  # beside those of the stacks


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """`host:port`; the engine takes a registry on loopback without TLS."""
    port = next(filter(is_free, random.sample(PORTS, 50)))
    config = folder / "registry.yml"
    config.write_text(CONFIG.format(folder=folder / "registry", port=port))
    program = shutil.which("docker-registry")
    assert program is not None, "docker-registry is not installed: just test installs it"
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
    try:
        eventually(lambda: _answers(port))
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=10)


def _answers(port: int) -> bool:
    try:
        return requests.get(f"http://127.0.0.1:{port}/v2/", timeout=5).ok
    except requests.ConnectionError:
        return False
