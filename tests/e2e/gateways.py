"""Another gateway or core beside the stack's, with settings of its own."""

import os
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from demo.ports import free_ports
from demo.ready import is_healthy
from demo.stack import REPOSITORY, Stack
from tests.waiting import eventually


@dataclass(frozen=True)
class Gateway:
    url: str
    metrics_url: str
    ca_cert: Path
    log: Path
    pid: int
    """Of several processes the parent's."""
    client_cert: Path | None
    """What it is shown, with its key."""

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    @property
    def trust(self) -> ssl.SSLContext:
        """A client's."""
        context = ssl.create_default_context(cafile=self.ca_cert)
        if self.client_cert:
            context.load_cert_chain(self.client_cert)
        return context

    def get(self, path: str, **headers: str) -> requests.Response:
        """On a connection of its own, so that the kernel chooses who answers."""
        cert = str(self.client_cert) if self.client_cert else None
        return requests.get(
            self.url + path, headers=headers, verify=str(self.ca_cert), cert=cert, timeout=30, allow_redirects=False
        )

    def answers(self) -> bool:
        try:
            return self.get("/healthz").ok
        except requests.ConnectionError:
            return False


@contextmanager
def gateway(stack: Stack, folder: Path, *, client_cert: Path | None = None, **settings: str) -> Iterator[Gateway]:
    """Started and answering; `settings` are environment variables."""
    port, metrics_port = free_ports(2)
    environment = {
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "GATEWAY_NAME": "another",
        "METRICS_PORT": str(metrics_port),
        "CORE_URL": stack.core_url,
        "CORE_TOKEN_FILE": str(stack.token_file),
        "TLS_CERT_FILE": str(stack.certificates.cert),
        "TLS_KEY_FILE": str(stack.certificates.key),
    }
    log = folder / "gateway.log"
    command = [sys.executable, "-m", "gateway"]
    with log.open("w") as file:
        process = subprocess.Popen(
            command, cwd=REPOSITORY, env=os.environ | environment | settings, stdout=file, stderr=file
        )
    its = Gateway(
        url=f"https://localhost:{port}",
        metrics_url=f"http://127.0.0.1:{metrics_port}/metrics",
        ca_cert=stack.certificates.ca_cert,
        log=log,
        pid=process.pid,
        client_cert=client_cert,
    )
    try:
        eventually(its.answers)
        yield its
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def core(stack: Stack, folder: Path, **settings: str) -> Iterator[str]:
    """Another core beside the stack's, on the same Redis and RabbitMQ: its address. `settings` as of `gateway`."""
    [port] = free_ports(1)
    environment = {
        "CORE_HOST": "127.0.0.1",
        "CORE_PORT": str(port),
        "CORE_TOKEN_FILE": str(stack.token_file),
        "REDIS_URL": stack.redis_url,
        "RABBITMQ_URL": stack.rabbitmq_url,
    }
    command = [sys.executable, "-m", "core"]
    with (folder / "core.log").open("w") as file:
        process = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | environment | settings, stdout=file)
    try:
        eventually(lambda: is_healthy(port))
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
