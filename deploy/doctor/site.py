"""Where the checks look: this host, this checkout, the engine that the docker command reaches."""

import json
import os
import re
import ssl
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from demo.stack import REPOSITORY
from deploy.compose import OF_STACK, core_trust, core_url, parse_env
from deploy.ports import port_of

COMMAND_SECONDS: Final = 15.0
NOT_FOUND: Final = 127
TOO_SLOW: Final = 124
PROJECT: Final = "inference-server"
OPERATOR: Final = "name=^operator$"
"""The core that docs/grow.md starts beside a swarm: no other one can be reached from a host."""

_UNITS: Final = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@dataclass(frozen=True)
class Said:
    """How a command ended. Not found and too slow are failures like others."""

    code: int
    out: str = ""
    error: str = ""

    @property
    def is_well(self) -> bool:
        return self.code == 0


@dataclass(frozen=True)
class Container:
    """A service's container, as the engine knows it."""

    id: str
    service: str
    status: str
    health: str
    complaint: str
    """What the latest health check said."""
    exit_code: int
    restarts: int
    ports: frozenset[int]
    """Of the host, that it publishes."""


@dataclass(frozen=True)
class Site:
    folder: Path = REPOSITORY
    proc: Path = Path("/proc")
    driver: Path = Path("/proc/driver/nvidia")
    pci: Path = Path("/sys/bus/pci/devices")

    @property
    def env_file(self) -> Path:
        return self.folder / ".env"

    @property
    def certificates(self) -> Path:
        return self.folder / "tls" / "certs"

    @property
    def secrets(self) -> Path:
        return self.folder / "secrets"

    @cached_property
    def env(self) -> Mapping[str, str]:
        """What .env sets; empty without one."""
        return parse_env(self.env_file.read_text()) if self.env_file.exists() else {}

    @cached_property
    def example(self) -> Mapping[str, str]:
        return parse_env((self.folder / ".env.example").read_text())

    def setting(self, name: str) -> str:
        """As Compose takes it: the shell's comes before .env's. Empty when it is nowhere."""
        return os.environ.get(name) or self.env.get(name, "")

    def core_url(self, port: int) -> str:
        return core_url(port, self.setting("COMPOSE_FILE"))

    @property
    def core_trust(self) -> ssl.SSLContext | None:
        return core_trust(self.setting("COMPOSE_FILE"), self.secrets)

    def port(self, name: str) -> int | None:
        return port_of(self.setting(name))

    def secret(self, name: str) -> str:
        """Empty when there is none, or it isn't ours to read."""
        try:
            return (self.secrets / name).read_text().strip()
        except OSError:
            return ""

    def run(
        self, *command: str, seconds: float = COMMAND_SECONDS, environment: Mapping[str, str] | None = None
    ) -> Said:
        try:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
            )
        except FileNotFoundError:
            return Said(NOT_FOUND, error=f"{command[0]}: command not found")
        except subprocess.TimeoutExpired:
            return Said(TOO_SLOW, error=f"no answer from {command[0]} within {seconds:g} seconds")
        return Said(done.returncode, done.stdout, done.stderr.strip())

    @cached_property
    def engine(self) -> Said:
        """`docker version` as JSON: the client's half is there even when the engine doesn't answer."""
        return self.run("docker", "version", "--format", "{{json .}}")

    @cached_property
    def engine_info(self) -> Mapping[str, Any]:
        """Empty when the engine doesn't answer."""
        if not self.engine.is_well:
            return {}
        said = self.run("docker", "info", "--format", "{{json .}}")
        return dict(json.loads(said.out)) if said.is_well else {}

    @cached_property
    def containers(self) -> Mapping[str, Container]:
        """The services' containers by service: what the swarm runs on this host, or Compose's, running or not. Empty
        when there is none, or no engine.
        """
        project = self.setting("COMPOSE_PROJECT_NAME") or PROJECT
        composed = ("--all", "--filter", f"label=com.docker.compose.project={project}")
        return self.of_swarm or {found.service: found for found in self._containers(*composed)}

    @cached_property
    def of_swarm(self) -> Mapping[str, Container]:
        """Empty where the swarm runs nothing of ours."""
        found = {found.service: found for found in self._containers("--filter", OF_STACK)}
        found.pop("core", None)
        if found and (operators := self._containers("--filter", OPERATOR)):
            [found["core"]] = operators
        return found

    def _containers(self, *chosen: str) -> list[Container]:
        if not self.engine.is_well:
            return []
        ids = self.run("docker", "ps", "--quiet", *chosen).out.split()
        # It fails if one has gone since, and lists the rest.
        said = self.run("docker", "inspect", "--type", "container", *ids) if ids else Said(0)
        return [_container(inspected) for inspected in json.loads(said.out or "[]")]


def size(text: str) -> int | None:
    """Bytes of what Redis and Compose both take for a size: 4gb, 512mb. None when it isn't one."""
    match = re.fullmatch(r"(\d+)([kmgt]?)b?", text.strip().lower())
    return int(match[1]) * _UNITS[match[2]] if match else None


def _container(inspected: Mapping[str, Any]) -> Container:
    state, labels = inspected["State"], inspected["Config"]["Labels"]
    swarms = labels.get("com.docker.swarm.service.name", "")
    health = state.get("Health", {})
    checks = health.get("Log") or [{"Output": ""}]
    published = inspected["HostConfig"].get("PortBindings") or {}
    return Container(
        id=inspected["Id"],
        service=labels.get("com.docker.compose.service") or swarms.removeprefix(f"{PROJECT}_"),
        status=state["Status"],
        health=health.get("Status", ""),
        complaint=checks[-1]["Output"].strip(),
        exit_code=state["ExitCode"],
        restarts=inspected["RestartCount"],
        ports=frozenset(
            int(binding["HostPort"])
            for bindings in published.values()
            for binding in bindings or ()
            if binding["HostPort"]
        ),
    )
