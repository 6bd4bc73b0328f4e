"""The system as an operator starts it from a fresh clone with Docker Compose, on a host of its own."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from demo.stack import REPOSITORY
from tests.e2e.api import Api
from tests.images import Images
from tests.lab import bases
from tests.lab.host import Host

SERVICES = ("redis", "rabbitmq", "core", "gateway", "gpu_agent")
OURS = SERVICES[2:]
OPERATORS_GROUP = 4242  # as if who runs init weren't root


@dataclass(frozen=True)
class Site:
    """A clone of the repository on a Docker host."""

    host: Host
    folder: Path
    took_seconds: dict[str, float] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Where the engine's client finds Compose."""
        return {"DOCKER_CONFIG": str(bases.compose_plugin())}

    def deploy(self, *arguments: str) -> str:
        """What the recipe of that name does, as `just` calls it; all that it said."""
        return self.run(sys.executable, "-m", "deploy", *arguments)

    def compose(self, *arguments: str) -> str:
        return self.run("docker", "compose", *arguments)

    def inspect(self, service: str) -> dict[str, Any]:
        [found] = json.loads(self.run("docker", "inspect", self.compose("ps", "--quiet", service).strip()))
        return dict(found)

    def secret(self, name: str) -> str:
        return (self.folder / "secrets" / name).read_text().strip()

    def set(self, **settings: str) -> None:
        """As the operator edits .env."""
        file = self.folder / ".env"
        text = file.read_text()
        for name, value in settings.items():
            text = re.sub(rf"^{name}=.*$", f"{name}={value}", text, flags=re.MULTILINE)
        file.write_text(text)

    def run(self, *command: str) -> str:
        """All that it said."""
        done = self.host.run(*command, cwd=self.folder, env=self.environment)
        assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr


@pytest.fixture(scope="package")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Up, and the tests are on its host: their connections to localhost are connections there."""
    folder = tmp_path_factory.mktemp("compose")
    with Host(folder / "host").up() as host, host.entered():
        site = Site(host, folder / "clone")
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(site.folder)], check=True)
        site.deploy("init", "localhost")
        for path in (certificates := site.folder / "tls" / "certs", certificates / "server.key"):
            os.chown(path, -1, OPERATORS_GROUP)
        site.set(
            CERTS_GROUP=str(OPERATORS_GROUP),
            WORK_DIR="/run/inference-server",
            REDIS_MAXMEMORY="512mb",
            REDIS_MEMORY_LIMIT="1gb",
        )
        for image in _base_images(site):
            bases.load(host.docker_host, image)
        for name, arguments in (("build", ("build",)), ("up", ("up", "--detach", "--wait"))):
            started = time.monotonic()
            site.compose(*arguments)
            site.took_seconds[name] = time.monotonic() - started
        yield site


@pytest.fixture
def api(site: Site) -> Iterator[Api]:
    """The public API, at the port that browsers call."""
    api = Api.public("https://localhost:443", site.folder / "tls" / "certs" / "ca.crt")
    with api.session:
        yield api


@pytest.fixture
def core(site: Site) -> Iterator[Api]:
    """The private API, as operators on the host reach it."""
    has_tls = "deploy/tls.yaml" in (site.folder / ".env").read_text()
    core = Api.private(f"http{'s' * has_tls}://localhost:7000", site.secret("core_token"))
    core.session.verify = str(site.folder / "secrets" / "inner_ca") if has_tls else False
    with core.session:
        yield core


@pytest.fixture(scope="package")
def images(site: Site) -> Images:
    return Images(site.host.docker_host)


def _base_images(site: Site) -> list[str]:
    """What the Dockerfile and the compose file would pull."""
    [python] = re.findall(r"^ARG PYTHON=(.*)$", (site.folder / "Dockerfile").read_text(), re.MULTILINE)
    services = json.loads(site.compose("config", "--format", "json"))["services"]
    return [python, *(service["image"] for name, service in services.items() if name not in OURS)]
