"""A model whose containers end when the test says so."""

from demo.image import docker
from demo.stack import Stack
from tests.waiting import eventually

GATED = "until [ -e /output/opened ]; do sleep 0.05; done; cp -R /input/. /output/"


def runs(stack: Stack, uid: str, attempt: int) -> bool:
    """Whether the container of that attempt runs."""
    return bool(docker(stack.docker_host, "ps", "--quiet", "--filter", f"name={_container(uid, attempt)}"))


def open_gate(stack: Stack, uid: str, attempt: int) -> None:
    """Waits for the container; its output has the attempt's number, and all of the input."""
    eventually(lambda: runs(stack, uid, attempt))
    script = f"echo {attempt} > /output/opening; mv /output/opening /output/opened"
    docker(stack.docker_host, "exec", _container(uid, attempt), "sh", "-c", script)


def _container(uid: str, attempt: int) -> str:
    return f"inference-server-{uid}-{attempt}"
