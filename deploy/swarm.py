"""The system on a Docker swarm: deploy/stack.yaml, on the hosts that carry its labels."""

import argparse
import hashlib
import json
import os
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from demo.stack import REPOSITORY
from deploy import preparation
from deploy.compose import OF_STACK, DeploymentError, check, say, show_compose
from tls import certs

STACK: Final = "inference-server"
STACK_FILE: Final = REPOSITORY / "deploy" / "stack.yaml"
OURS: Final = ("core", "gateway", "gpu_agent")
NETWORKS: Final = (f"{STACK}_frontend", f"{STACK}_backend")
DATA_LABEL: Final = "inference-server.data=true"
AGENT_LABEL: Final = "inference-server.agent=true"
SETTLED_SECONDS: Final = 900
POLL_SECONDS: Final = 1.0


class SwarmError(DeploymentError):
    """What the engine said instead of doing it."""


def init(arguments: argparse.Namespace) -> None:
    """What is there already stays: a swarm, the host with the data, and networks, be they encrypted or not."""
    check()
    if {*NETWORKS} & {*_networks("driver=bridge")}:
        raise DeploymentError("Compose's networks have the names of the swarm's: just down first.")
    if _docker("info", "--format", "{{.Swarm.LocalNodeState}}").strip() != "active":
        _docker("swarm", "init", "--advertise-addr", arguments.address, *arguments.options)
    node, name = _docker("info", "--format", "{{.Swarm.NodeID}} {{.Name}}").split()
    if not _docker("node", "ls", "--quiet", "--filter", f"node.label={DATA_LABEL}"):
        _docker("node", "update", "--label-add", DATA_LABEL, node)
    present = _networks("scope=swarm")
    for network in NETWORKS:
        if network not in present:
            _docker("network", "create", "--driver", "overlay", "--attachable", "--opt", "encrypted", network)
    update(arguments)
    say(f"For an agent on this host:\n  {_make_work_dir()}\n  docker node update --label-add {AGENT_LABEL} {name}")
    say("Next: just swarm-join")


def join(arguments: argparse.Namespace) -> None:
    """Say what makes a host part of the swarm."""
    check()
    told = _docker("swarm", "join-token", arguments.role)
    [command] = [line.strip() for line in told.splitlines() if "docker swarm join" in line]
    command = command.replace("--token", "--advertise-addr ITS_ADDRESS --token")
    say("On the new host, as root; the token is a secret:")
    say(f"  {_make_work_dir()}\n  {command}")
    say(f"Then here, for an agent on it:\n  docker node update --label-add {AGENT_LABEL} ITS_NAME")


def update(_: argparse.Namespace) -> None:
    """Build, push, replace what changed, and wait until it runs. What doesn't start is taken back by the swarm.

    As with Compose, the shell's settings come before .env's.
    """
    check()
    preparation.derive()
    settings = {**preparation.settings(), **os.environ}
    show_compose("build", *OURS)
    if _names_a_registry(settings["IMAGES"]):
        for service in OURS:  # the first one takes the layers along that they share
            show_compose("push", "--quiet", service)
    started = time.monotonic()
    command = ["docker", "stack", "deploy", "--compose-file", str(STACK_FILE), "--with-registry-auth", "--prune", STACK]
    done = subprocess.run(command, env={**settings, **_digests()}, check=False)
    if done.returncode:
        raise DeploymentError("docker stack deploy failed")
    _wait_until_settled()
    _remove_old()
    say(f"all of it runs, after {time.monotonic() - started:.0f} s")


def _networks(condition: str) -> list[str]:
    return _docker("network", "ls", "--filter", condition, "--format", "{{.Name}}").split()


def _make_work_dir() -> str:
    """A swarm makes no folder that it mounts."""
    return f"mkdir -p {preparation.settings()['WORK_DIR']}"


def _names_a_registry(images: str) -> bool:
    """As the engine sees it: the first part of a name is a host if it looks like one."""
    host, _, rest = images.partition("/")
    return bool(rest) and (host == "localhost" or "." in host or ":" in host)


def _digests() -> dict[str, str]:
    """A part of the name of each secret and each config."""
    files = [
        *(preparation.SECRETS / name for name in preparation.PASSWORDS),
        *(preparation.SECRETS / name for name in ("redis_users", "rabbitmq_definitions")),
        *(STACK_FILE.parent / name for name in ("redis.conf", "rabbitmq.conf")),
        *(certs.FOLDER / name for name in ("server.crt", "server.key")),
    ]
    return {f"DIGEST_{path.name.replace('.', '_')}": _digest(path) for path in files}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]


def _remove_old() -> None:
    """Former contents of secrets and configs; the swarm refuses to remove what a service still uses."""
    current = {f"{name.removeprefix('DIGEST_')}-{digest}" for name, digest in _digests().items()}
    for kind in ("secret", "config"):
        for name in {*_docker(kind, "ls", "--filter", OF_STACK, "--format", "{{.Name}}").split()} - current:
            with suppress(SwarmError):
                _docker(kind, "rm", name)


def _wait_until_settled() -> None:
    """A swarm that has no leader for a moment gets one: its silence is waited out, too."""
    deadline = time.monotonic() + SETTLED_SECONDS
    told = ""
    while telling := _what_is_awaited():
        if telling != told:
            say(f"waiting for {telling}")
            told = telling
        if time.monotonic() > deadline:
            raise DeploymentError(f"Not all of it runs:\n{_docker('stack', 'ps', '--no-trunc', STACK)}")
        time.sleep(POLL_SECONDS)


def _what_is_awaited() -> str:
    try:
        states = {name: _unsettled(name) for name in _services()}
    except SwarmError as error:
        return f"an answer: {error}"
    return ", ".join(f"{name.removeprefix(f'{STACK}_')} {state}" for name, state in states.items() if state)


def _services() -> list[str]:
    return _docker("stack", "services", "--format", "{{.Name}}", STACK).split()


def _unsettled(name: str) -> str:
    """How many of a service's tasks run as it is now defined, of how many; empty when it is all of them, and no more.

    Raises DeploymentError when the swarm gave up, or went back.
    """
    [service] = json.loads(_docker("service", "inspect", name))
    state = (service.get("UpdateStatus") or {}).get("State", "")
    if "rollback" in state or state == "paused":
        told = _docker("service", "ps", "--no-trunc", "--format", "{{.Node}} {{.CurrentState}} {{.Error}}", name)
        raise DeploymentError(f"The update of {name} failed, and its state is {state}:\n{told}")
    tasks = _tasks(name)
    defined = _set(service["Spec"]["TaskTemplate"]["ContainerSpec"])
    fresh = [t for t in tasks if t["Status"]["State"] == "running" and _set(t["Spec"]["ContainerSpec"]) == defined]
    [wanted] = _docker("service", "ls", "--filter", f"name={name}", "--format", "{{.Replicas}}").split()[:1]
    count = int(wanted.partition("/")[2])
    return "" if len(fresh) == len(tasks) == count and state != "updating" else f"{len(fresh)}/{count}"


def _tasks(service: str) -> list[dict[str, Any]]:
    """Those that should run."""
    ids = _docker("service", "ps", "--quiet", "--no-trunc", "--filter", "desired-state=running", service).split()
    return json.loads(_docker("inspect", "--type", "task", *ids)) if ids else []


def _set(spec: Any) -> Any:
    """A spec without what isn't set, which is written in several ways."""
    if isinstance(spec, dict):
        return {name: left for name, value in spec.items() if (left := _set(value))}
    return spec


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SwarmError(f"docker {' '.join(arguments[:2])}: {done.stderr.strip()}")
    return done.stdout
