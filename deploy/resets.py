"""Three ways to start anew, from the one that costs nothing to the one that leaves nothing."""

import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from deploy import preparation
from deploy.compose import ENVIRONMENT, DeploymentError, compose, show_compose, volume
from tls import certs

AGENT_LABEL: Final = "inference-server.agent"


@dataclass(frozen=True)
class Reset:
    deletes: str
    keeps: str
    run: Callable[[], None]
    starts_again: bool


def _soft() -> None:
    """RabbitMQ only rings: what waits is rung again from Redis."""
    show_compose("down", "--remove-orphans")
    _docker("volume", "rm", "--force", volume("rabbitmq"))


def _volumes() -> None:
    show_compose("down", "--remove-orphans", "--volumes")


def _all() -> None:
    show_compose("down", "--remove-orphans")
    # The agent writes there as root, which who calls this need not be.
    clear = 'find "$WORK_DIR" -mindepth 1 -delete'
    compose("run", "--rm", "--no-deps", "--no-TTY", "gpu_agent", "sh", "-c", clear)
    theirs = ("--quiet", "--filter", f"label={AGENT_LABEL}={preparation.settings()['AGENT_NAME']}")
    if containers := _docker("ps", "--all", *theirs).split():  # of tasks, which an agent that was killed leaves
        _docker("rm", "--force", *containers)
    if volumes := _docker("volume", "ls", *theirs).split():
        _docker("volume", "rm", "--force", *volumes)
    show_compose("down", "--remove-orphans", "--volumes", "--rmi", "all")
    if certs.Certificates(certs.FOLDER).ca_key.exists():
        shutil.rmtree(certs.FOLDER)
    shutil.rmtree(preparation.SECRETS)
    ENVIRONMENT.unlink()


RESETS: Final = {
    "soft": Reset(
        "the containers, and what RabbitMQ holds.",
        "models, tasks, inputs and outputs; images, secrets, certificates. Running tasks run again.",
        _soft,
        starts_again=True,
    ),
    "volumes": Reset(
        "the containers, and what Redis and RabbitMQ hold: all models and tasks, with their zips.",
        "images, secrets, certificates and .env.",
        _volumes,
        starts_again=True,
    ),
    "all": Reset(
        "everything that just init and just up made: containers, data, images, the content of WORK_DIR, secrets, "
        ".env, and the certificate with its authority, which clients trust.",
        "a certificate of your own, and the models' images.",
        _all,
        starts_again=False,
    ),
}


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DeploymentError(f"docker {arguments[0]}: {done.stderr.strip()}")
    return done.stdout
