"""TLS and passwords to real servers, with a CA of one's own."""

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.parse import quote

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from core.amqp import Broker, BrokerSettings
from core.secrets import with_password
from core.store import open_store
from demo import ready, servers
from demo.ports import Ports, free_ports
from demo.servers import RABBITMQ_NODE, Servers
from demo.stack import Stack
from demo.supervision import Program
from tests.clusters import DEFINITIONS
from tests.integration.making import claimed, pending
from tests.waiting import eventually_async
from tls import certs

PASSWORD = "p@ss:w/o?r#d%20,ü+"
UNTRUSTED = "has a certificate that is not trusted"


class Guarded(Servers):
    """Each with a password, and a second port for TLS."""

    def __init__(self, ports: Ports, certificates: certs.Certificates) -> None:
        super().__init__(ports, {})
        self._certificates = certificates
        self.redis_port, self.rabbitmq_port = free_ports(2)

    def programs(self, folder: Path, *, below: int, stage: int) -> list[Program]:
        files, ports = self._certificates, self._ports
        tls = {"tls-port": self.redis_port, "tls-auth-clients": "no", "requirepass": PASSWORD}
        tls |= {"tls-cert-file": files.cert, "tls-key-file": files.key, "tls-ca-cert-file": files.ca_cert}
        options = [word for option, value in tls.items() for word in (f"--{option}", str(value))]
        redis = servers.redis(folder / "redis", ports.redis, *options, stage=stage)
        definitions = folder / "definitions.json"
        user = {"name": "guest", "password": PASSWORD, "tags": []}
        definitions.write_text(json.dumps({**DEFINITIONS, "users": [user]}))
        lines = (
            f"listeners.ssl.1 = 127.0.0.1:{self.rabbitmq_port}",
            f"ssl_options.cacertfile = {files.ca_cert}",
            f"ssl_options.certfile = {files.cert}",
            f"ssl_options.keyfile = {files.key}",
            f"load_definitions = {definitions}",
        )
        return [
            servers.epmd(folder, ports.epmd, stage=below),
            replace(redis, is_ready=partial(ready.listens, self.redis_port)),
            servers.rabbitmq(
                folder / "rabbitmq",
                RABBITMQ_NODE,
                ports.rabbitmq,
                ports.rabbitmq_dist,
                ports.epmd,
                *lines,
                settings={},
                stage=stage,
            ),
        ]

    def redis_tls_url(self, ca_cert: Path, password: str = PASSWORD) -> str:
        return with_password(f"rediss://127.0.0.1:{self.redis_port}/0?ssl_ca_certs={quote(str(ca_cert))}", password)

    def rabbitmq_tls(self, ca_cert: Path, password: str = PASSWORD) -> BrokerSettings:
        return BrokerSettings(
            rabbitmq_url=SecretStr(f"amqps://guest@localhost:{self.rabbitmq_port}/?cafile={ca_cert}"),
            rabbitmq_password=SecretStr(password),
        )


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> certs.Certificates:
    return certs.make(tmp_path_factory.mktemp("certs"), "localhost")


@pytest.fixture(scope="module")
def strangers_ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certs.make(tmp_path_factory.mktemp("stranger"), "localhost").ca_cert


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, certificates: certs.Certificates) -> Iterator[Guarded]:
    ports = Ports.free()
    guarded = Guarded(ports, certificates)
    stack = Stack(tmp_path_factory.mktemp("guarded"), ports, servers=guarded, only=("epmd", "redis", "rabbitmq"))
    stack.up()
    yield guarded
    stack.down()
    stack.delete()


async def test_redis(guarded: Guarded, certificates: certs.Certificates) -> None:
    """A password of any characters arrives."""
    async with open_store(guarded.redis_tls_url(certificates.ca_cert), reserve_percent=10) as store:
        assert store.pulse.missing is None
        await claimed(store, await pending(store))


async def test_rabbitmq(guarded: Guarded, certificates: certs.Certificates) -> None:
    async with Broker.open(guarded.rabbitmq_tls(certificates.ca_cert)) as broker:
        await broker.wait_connected()
        assert broker.missing is None
        await broker.publish(broker.settings.finished_job_queue, "task", expire_ms=1)


async def test_a_redis_that_nobody_vouches_for(guarded: Guarded, strangers_ca: Path) -> None:
    """/readyz says so, and the log says what OpenSSL did."""
    with capture_logs() as logs:
        async with open_store(guarded.redis_tls_url(strangers_ca), reserve_percent=10) as store:
            assert store.pulse.missing == UNTRUSTED
    [warning] = [entry for entry in logs if entry["event"] == "store.away"]
    assert "certificate verify failed" in warning["error"]


async def test_a_rabbitmq_that_nobody_vouches_for(guarded: Guarded, strangers_ca: Path) -> None:
    with capture_logs() as logs:
        async with Broker.open(guarded.rabbitmq_tls(strangers_ca)) as broker:
            await eventually_async(lambda: broker.missing == UNTRUSTED)
    assert any("certificate verify failed" in entry.get("error", "") for entry in logs)


async def test_a_wrong_password(guarded: Guarded, certificates: certs.Certificates) -> None:
    async with open_store(guarded.redis_tls_url(certificates.ca_cert, "wrong"), reserve_percent=10) as store:
        assert store.pulse.missing == "does not accept the password"
    async with Broker.open(guarded.rabbitmq_tls(certificates.ca_cert, "wrong")) as broker:
        await eventually_async(lambda: broker.missing == "does not accept the user or the password")
