"""Docker Compose, as the recipes call it: in the repository's folder, with its .env."""

import json
import re
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Final

from demo.stack import REPOSITORY

ENVIRONMENT: Final = REPOSITORY / ".env"
HTTPS_PORT: Final = 443
TLS_FILE: Final = "deploy/tls.yaml"
OF_STACK: Final = "label=com.docker.stack.namespace=inference-server"
OLDEST: Final = (2, 24)
"""The first Compose that takes an env_file that need not be there."""

_LINE: Final = re.compile(r"^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=[ \t]*(.*?)[ \t]*$")

INSTALLATION: Final = """\
Install Docker's engine (https://docs.docker.com/engine/install), or your distribution's: docker.io with \
docker-compose-v2 on Ubuntu, with docker-compose on Debian 13."""


class DeploymentError(Exception):
    """Something that the operator has to do; the message says what."""


def compose(*arguments: str) -> str:
    """What Compose answers; raises DeploymentError in its words."""
    try:
        done = subprocess.run(
            ["docker", "compose", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise DeploymentError(f"Docker is missing. {INSTALLATION}") from None
    if done.returncode:
        raise DeploymentError(f"docker compose {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def show_compose(*arguments: str) -> None:
    """For the operator to watch; raises DeploymentError when it fails, and the reason stands above."""
    done = subprocess.run(["docker", "compose", *arguments], cwd=REPOSITORY, check=False)
    if done.returncode:
        raise DeploymentError(f"docker compose {' '.join(arguments)} failed")


def check() -> None:
    """That there is a .env, an engine, and a Compose that is new enough. Raises DeploymentError."""
    if not ENVIRONMENT.exists():
        raise DeploymentError("There is no .env: just init DOMAIN makes it.")
    try:
        subprocess.run(["docker", "--version"], capture_output=True, check=True)
        version = compose("version", "--short").strip()
    except FileNotFoundError:
        raise DeploymentError(f"Docker is missing. {INSTALLATION}") from None
    except DeploymentError:
        raise DeploymentError(f"Docker Compose v2 is missing. {INSTALLATION}") from None
    if tuple(int(part) for part in version.removeprefix("v").split(".")[:2]) < OLDEST:
        raise DeploymentError(f"Docker Compose {version} is older than {OLDEST[0]}.{OLDEST[1]}. {INSTALLATION}")
    engine = subprocess.run(["docker", "version"], capture_output=True, text=True, check=False)
    if engine.returncode:
        raise DeploymentError(
            f"The Docker engine doesn't answer: {engine.stderr.strip()}\n"
            "Start it (sudo systemctl start docker), or let this user reach it (group docker)."
        )


def refuse_on_swarm(instead: str) -> None:
    """Compose's system would be a second one, on the same data. Raises DeploymentError."""
    if on_swarm():
        raise DeploymentError(f"This host runs the swarm's system: {instead}")


def on_swarm() -> bool:
    """Whether the swarm's system runs on this host, or is managed here: only a manager knows of services."""
    asked = (["service", "ls"], ["ps"])
    return any(
        subprocess.run(
            ["docker", *what, "--quiet", "--filter", OF_STACK], capture_output=True, text=True, check=False
        ).stdout
        for what in asked
    )


def say(text: str) -> None:
    """To the operator, before what a subprocess says next."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def running() -> list[str]:
    """The services that have a container that runs."""
    if not ENVIRONMENT.exists():
        return []
    return compose("ps", "--services", "--status", "running").split()


def volume(name: str) -> str:
    """What the engine calls the volume, whose name begins with the project's."""
    return str(json.loads(compose("config", "--format", "json"))["volumes"][name]["name"])


def parse_env(text: str) -> dict[str, str]:
    """A .env as Compose reads it, but for quotes over several lines and variables in values."""
    found = {}
    for line in text.splitlines():
        if not line.lstrip().startswith("#") and (match := _LINE.match(line)):
            name, value = match.groups()
            quoted = re.match(r"""(["'])(.*?)\1""", value)
            found[name] = quoted[2] if quoted else re.split(r"\s+#", value)[0]
    return found


def gateway_url(host: str, port: int) -> str:
    """Where clients reach it; an IPv6 address stands in brackets."""
    name = f"[{host}]" if ":" in host else host
    return f"https://{name}" if port == HTTPS_PORT else f"https://{name}:{port}"


def has_inner_tls(files: str) -> bool:
    """Whether these files, as COMPOSE_FILE names them, let core, Redis and RabbitMQ speak TLS."""
    return TLS_FILE in files.split(":")


def core_url(port: str | int, files: str) -> str:
    """Where operators on this machine reach it. Of https the certificate's authority is secrets/inner_ca."""
    return f"{'https' if has_inner_tls(files) else 'http'}://localhost:{port}"


def core_trust(files: str, secrets: Path) -> ssl.SSLContext | None:
    """What a client of core's needs to speak to it at `core_url`; None where it speaks plain HTTP."""
    authority = secrets / "inner_ca"
    return ssl.create_default_context(cafile=authority) if has_inner_tls(files) and authority.exists() else None
