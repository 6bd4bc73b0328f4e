"""What a request costs that does nothing: a hello-world of Quart on Hypercorn over TLS, by Hypercorn's own command."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from quart import Quart, request

from demo import ready
from demo.ports import free_ports
from demo.stack import ALLOCATOR, REPOSITORY, Stack
from tests.bench.processes import Processes
from tests.waiting import eventually

CONFIG = 'worker_class = "uvloop"\nkeep_alive_timeout = 20\nkeep_alive_max_requests = 1000000\nloglevel = "WARNING"\n'

app = Quart(__name__)


@app.get("/")
async def hello() -> str:
    return "Hello world"


@app.post("/")
async def take() -> str:
    return str(len(await request.get_data()))


@app.get("/wait")
async def wait() -> str:
    await asyncio.sleep(float(request.args["seconds"]))
    return "Hello world"


@dataclass(frozen=True)
class Hello:
    """Running, with the gateway's certificate and as many workers."""

    port: int
    processes: Processes

    @classmethod
    @contextmanager
    def up(cls, stack: Stack, folder: Path, *, workers: int) -> Iterator["Hello"]:
        [port] = free_ports(1)
        config = folder / "hello.toml"
        config.write_text(CONFIG)
        certificates = stack.certificates
        command = [sys.executable, "-m", "hypercorn", "--config", str(config), "--bind", f"127.0.0.1:{port}"]
        command += ["--certfile", str(certificates.cert), "--keyfile", str(certificates.key)]
        command += ["--workers", str(workers), f"{__name__}:app"]
        server = subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, **ALLOCATOR}, start_new_session=True)
        try:
            eventually(partial(ready.listens, port))
            yield cls(port, Processes({"hello": server.pid}))
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # it would wait for its idle connections
            server.wait()
