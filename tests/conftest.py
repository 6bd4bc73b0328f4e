"""The servers and the stack that tests share: started once a session on ports of their own, ended with it."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path

import pytest

from demo import engine
from demo.ports import Ports, free_ports
from demo.stack import Stack
from demo.supervision import SEARCH_PATH
from tests.clusters import RABBITMQ, REDIS, Clusters
from tests.lacking import cannot_run

SERVERS = ("epmd", "redis", "rabbitmq", *REDIS, *RABBITMQ)
PROGRAMS = ("setpriv", "redis-server", "rabbitmq-server", "epmd")
# Small enough for a bomb of a test's size, large enough for 2 GiB.
SETTINGS = {
    "ALLOW_PUBLIC_POST_MODEL": "yes",
    "MAX_UPLOAD_MB": "3072",
    "MAX_UNZIPPED_MB": "3072",
    "WEBHOOK_ALLOW": "127.0.0.1",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--clusters", action="store_true", help="on a Redis Cluster and a RabbitMQ cluster")
    parser.addoption("--screenshots", type=Path, metavar="FOLDER", help="where to put pictures of the pages")


@pytest.fixture(scope="session")
def clusters(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--clusters"))


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory, clusters: bool) -> Iterator[Stack]:
    """A Redis and a RabbitMQ: `redis_url`, `rabbitmq_url`, and `stop` and `start` by name."""
    with started(tmp_path_factory, only=SERVERS, clusters=clusters) as servers:
        yield servers


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, clusters: bool) -> Iterator[Stack]:
    """The whole system with two agents without GPUs."""
    measured = ("gateway", "agent-1", "agent-2")
    with started(tmp_path_factory, agents=2, settings=SETTINGS, clusters=clusters, measured=measured) as stack:
        yield stack


@contextmanager
def started(
    folders: pytest.TempPathFactory,
    *,
    agents: int = 0,
    settings: Mapping[str, str] | None = None,
    only: Sequence[str] | None = None,
    rabbitmq_settings: Mapping[str, int] | None = None,
    clusters: bool = False,
    measured: Sequence[str] = (),
) -> Iterator[Stack]:
    """A stack of its own, which goes with its data when the context ends. Who is `measured` has a METRICS_PORT."""
    missing = [program for program in PROGRAMS if shutil.which(program, path=SEARCH_PATH) is None]
    if missing:
        cannot_run(f"not installed: {', '.join(missing)}")
    ports = Ports.free()
    others = (port for port in free_ports(len(measured) + len(astuple(ports))) if port not in astuple(ports))
    stack = Stack(
        folders.mktemp("stack"),
        ports,
        agents=agents,
        settings=settings,
        own_settings={name: {"METRICS_PORT": str(next(others))} for name in measured},
        own_engine=True,
        only=only,
        rabbitmq_settings=rabbitmq_settings,
        servers=Clusters(ports) if clusters else None,
    )
    try:
        stack.up()
    except engine.NoEngineError as error:
        cannot_run(str(error))
    try:
        yield stack
    finally:
        stack.down()
        stack.delete()
