"""Core behind TLS: the gateway and the agents come to it by https, and nobody by http."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from pydantic import SecretStr

from core.client import CoreAccess, CoreClient
from core.contract.errors import Unavailable
from demo.ports import free_ports
from demo.stack import REPOSITORY, Stack
from tests.e2e.agents import own_agent
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT
from tests.e2e.gateways import gateway
from tests.waiting import eventually
from tests.zips import files_of
from tls import certs


@dataclass(frozen=True)
class InnerCore:
    url: str
    ca_cert: Path

    def answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/readyz", verify=str(self.ca_cert), timeout=10).ok
        except requests.ConnectionError:
            return False


@contextmanager
def inner_core(stack: Stack, folder: Path) -> Iterator[InnerCore]:
    """Beside the stack's own, with the same Redis and RabbitMQ."""
    [port] = free_ports(1)
    cert, key = folder / "inner.crt", folder / "inner.key"
    certs.issue_inner(stack.certificates, cert, key)
    environment = {
        "CORE_HOST": "127.0.0.1",
        "CORE_PORT": str(port),
        "CORE_TOKEN_FILE": str(stack.token_file),
        "CORE_TLS_CERT_FILE": str(cert),
        "CORE_TLS_KEY_FILE": str(key),
        "REDIS_URL": stack.redis_url,
        "RABBITMQ_URL": stack.rabbitmq_url,
    }
    with (folder / "core.log").open("w") as log:
        command = [sys.executable, "-m", "core"]
        process = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | environment, stdout=log, stderr=log)
    its = InnerCore(f"https://localhost:{port}", stack.certificates.ca_cert)
    try:
        eventually(its.answers)
        yield its
    finally:
        process.terminate()
        process.wait(40)


async def test_core_speaks_tls(stack: Stack, copying: str, tmp_path: Path) -> None:
    """A task through a gateway and an agent that trust its authority; who doesn't trust it doesn't talk to it."""
    trusting = {"CORE_CA_FILE": str(stack.certificates.ca_cert)}
    with inner_core(stack, tmp_path) as core:
        trusting["CORE_URL"] = core.url
        with (
            gateway(stack, tmp_path, client_cert=None, **trusting) as front,
            own_agent(stack, tmp_path, "trusting", within=(), **trusting),
        ):
            api = Api.public(front.url, front.ca_cert)
            with api.session:
                assert files_of(api.output(copying, INPUT))["hello.txt"] == files_of(INPUT)["hello.txt"]
        with pytest.raises(requests.ConnectionError):
            requests.get(core.url.replace("https", "http"), timeout=10)
        access = CoreAccess(core_url=core.url, core_token=SecretStr(stack.token_file.read_text().strip()))
        async with CoreClient.open(access) as strangers:
            with pytest.raises(Unavailable):
                await strangers.ready()
