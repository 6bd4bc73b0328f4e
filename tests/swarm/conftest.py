"""Three hosts, on which the chapter about more hosts in docs/grow.md is followed to the letter."""

import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from demo.stack import REPOSITORY
from tests.e2e import registry
from tests.e2e.api import Api
from tests.images import Images
from tests.lab import bases
from tests.lab.host import Host
from tests.lab.switch import Switch
from tests.lacking import cannot_run
from tests.waiting import eventually

GUIDE = (REPOSITORY / "docs" / "grow.md").read_text()
DOMAIN = "inference.example.org"
NETWORKS = ("inference-server_frontend", "inference-server_backend")
NEEDED_GIB = 6
SUBNETS = "172.30.0.0/16"  # the swarm's usual third one is the way out's
JUST = f'just() {{ {Path(sys.executable).with_name("just")} --no-deps --set python {sys.executable} "$@"; }}'
# The engine's own /run: three hosts share this machine's disk.
SETTINGS = {"WORK_DIR": "/run/inference-server", "REDIS_MAXMEMORY": "512mb", "REDIS_MEMORY_LIMIT": "1gb"}


@dataclass(frozen=True)
class Swarm:
    """`hosts` by name, a clone of the repository on the first, and what the guide's names stand for here."""

    hosts: dict[str, Host]
    switch: Switch
    folder: Path
    registry: str

    @property
    def first(self) -> Host:
        return self.hosts["host-1"]

    def follow(self, step: str, on: str = "host-1") -> str:
        """The commands that the guide gives for the step, one after the other, on a host; all that they said."""
        commands = _steps()[step]
        for name, here in {
            "registry.example.org": self.registry,
            "192.0.2.1": self.switch.address(1),
            "/var/lib/inference-server": SETTINGS["WORK_DIR"],
        }.items():
            commands = commands.replace(name, here)
        return self.run(commands, on=on)

    def run(self, script: str, on: str = "host-1") -> str:
        """A script in the clone; it fails as soon as one of its commands does. `just` installs nothing."""
        environment = {"DOCKER_CONFIG": str(bases.compose_plugin())}
        done = self.hosts[on].run("bash", "-euc", f"{JUST}\n{script}", cwd=self.folder, env=environment)
        assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}{done.stderr[-2000:]}\n{self.state()}"
        return done.stdout + done.stderr

    def state(self) -> str:
        """For whoever reads of a failure: where everything runs, with the swarm's words, and the last of the logs."""
        first = self.first
        told = first.run("docker", "stack", "ps", "--no-trunc", "inference-server").stdout
        for service in ("core", "gateway", "gpu_agent", "redis", "rabbitmq"):
            command = ("docker", "service", "logs", "--tail", "20", f"inference-server_{service}")
            logs = first.run(*command, timeout_seconds=30)
            told += f"\n{service}\n{logs.stdout}{logs.stderr}"
        return told

    def client(self) -> Api:
        return Api.public(f"https://{DOMAIN}", self.folder / "tls" / "certs" / "ca.crt")

    def agent_log(self, on: str) -> str:
        """Of all agents that the swarm has started on the host."""
        each = "docker ps --all --quiet --filter name=inference-server_gpu_agent"
        return self.run(f"for agent in $({each}); do docker logs $agent 2>&1; done", on=on)


@dataclass(frozen=True)
class Core:
    """The private API, as an operator on the first host reaches it."""

    swarm: Swarm

    def call(self, method: str, path: str, **parameters: str) -> requests.Response:
        with self.swarm.first.entered():
            api = Api.private("http://127.0.0.1:7000", (self.swarm.folder / "secrets" / "core_token").read_text())
            with api.session:
                answer = api.call(method, path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer

    def register(self, name: str, image: str) -> None:
        self.call("POST", "/api/models/", human_readable_id=name, container_tag=image, use_gpu="false", memory_mb="64")

    def agents(self, uid: str) -> list[str]:
        """Which hosts' agents had the task, the first one first."""
        return [attempt["agent"].split("/")[0] for attempt in self.call("GET", f"/api/tasks/{uid}").json()["attempts"]]


def _steps() -> dict[str, str]:
    """The chapter's blocks of commands, by the words in front of them."""
    _, chapter = GUIDE.split("\n## More hosts\n")
    step = r"^\*\*([^*]*)\*\*[^`]*?(?:`[^`\n]+`[^`]*?)*^```sh\n(.*?)^```$"
    return dict(re.findall(step, chapter, re.MULTILINE | re.DOTALL))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure is told with the swarm's state at that time: what comes after would change it."""
    report = yield
    swarm = getattr(item, "funcargs", {}).get("swarm")
    if report.when == "call" and report.failed and swarm is not None:
        report.sections.append(("the swarm", swarm.state()))
    return report


@pytest.fixture(scope="package")
def say(pytestconfig: pytest.Config) -> Callable[[str], None]:
    """A figure for whoever watches, and for docs/swarm.md."""
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")

    def said(figure: str) -> None:
        with capture.global_and_fixture_disabled():
            print(f"\nswarm: {figure}")

    return said


@pytest.fixture(scope="package")
def swarm(tmp_path_factory: pytest.TempPathFactory, say: Callable[[str], None]) -> Iterator[Swarm]:
    """All three have joined as managers, and the second and the third have agents."""
    available = int(re.findall(r"^MemAvailable: *(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)[0]) / 2**20
    if available < NEEDED_GIB:
        cannot_run(f"three engines in memory need {NEEDED_GIB} GiB, and {available:.1f} are available")
    folder = tmp_path_factory.mktemp("swarm")
    switch = Switch()
    names = ("host-1", "host-2", "host-3")
    hosts = {name: Host(folder / name, name, registries=[switch.network], in_memory=True) for name in names}
    with ExitStack() as stack:
        for host in hosts.values():
            stack.enter_context(host.up())
        stack.enter_context(switch.joining([*hosts.values()]))
        stack.callback(_kill_at_once, [*hosts.values()])
        first = hosts["host-1"]
        with first.entered():
            images = stack.enter_context(registry.running(folder, switch.address(1)))
        for image in ("python:3.13-slim", "redis:8.2", "rabbitmq:4.1"):
            bases.load(first.docker_host, image)
        swarm = Swarm(hosts, switch, folder / "clone", images)
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(swarm.folder)], check=True)
        swarm.follow("The first host")
        swarm.run("; ".join(f"sed -i 's|^{name}=.*|{name}={value}|' .env" for name, value in SETTINGS.items()))
        _make_networks(swarm)
        say(f"the first host runs after {_seconds(lambda: swarm.follow('Start it')):.0f} s, images built and pushed")
        say(f"three hosts run after another {_seconds(lambda: _join(swarm)):.0f} s")
        swarm.follow("Models are registered")
        eventually(
            lambda: "healthy" in swarm.run("docker inspect --format '{{.State.Health.Status}}' operator").split()
        )
        yield swarm


def _kill_at_once(hosts: list[Host]) -> None:
    """One after the other, those that are left would start what is gone."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(Host.kill, hosts))


def _make_networks(swarm: Swarm) -> None:
    """Before the guide's command: a test machine's kernel may have no ESP, and then encrypted ones pass nothing."""
    address = swarm.switch.address(1)
    swarm.run(f"docker swarm init --advertise-addr {address} --default-addr-pool {SUBNETS}")
    for network in NETWORKS:
        swarm.run(f"docker network create --driver overlay --attachable {network}")


def _join(swarm: Swarm) -> None:
    for number, name in enumerate([*swarm.hosts][1:], 2):
        told = (
            swarm.follow("A further host")
            .replace("ITS_ADDRESS", swarm.switch.address(number))
            .replace("ITS_NAME", name)
        )
        there, here = (re.findall(r"^  (.*)", part, re.MULTILINE) for part in told.split("Then here"))
        swarm.run("\n".join(there), on=name)
        swarm.run("\n".join(here))
    swarm.run("just swarm-update")


def _seconds(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


@pytest.fixture
def api(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    """The public API, by a name that leads to all three."""
    addresses = [swarm.switch.address(number) for number in range(1, len(swarm.hosts) + 1)]
    resolve = socket.getaddrinfo

    def resolved(host: Any, *arguments: Any, **options: Any) -> list[Any]:
        """Stands in for DNS, which gives them in any order."""
        found = random.sample(addresses, len(addresses)) if host == DOMAIN else [host]
        return [entry for address in found for entry in resolve(address, *arguments, **options)]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    api = swarm.client()
    with swarm.switch.entered(), api.session:
        yield api


@pytest.fixture(scope="package")
def core(swarm: Swarm) -> Core:
    return Core(swarm)


@pytest.fixture(scope="package")
def model(swarm: Swarm, core: Core) -> str:
    """Sleeps as long as its input says, and leaves something that no other run leaves. Its image is in the registry."""
    local = Images(swarm.first.docker_host).running(
        "sleep $(cat /input/seconds); head -c 16 /dev/urandom | sha256sum > /output/unique"
    )
    image = f"{swarm.registry}/model:1"
    swarm.run(f"docker tag {local} {image}; docker push --quiet {image}")
    core.register("sleeping", image)
    return "sleeping"
