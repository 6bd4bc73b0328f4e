"""A model whose containers end when the test says so."""

from demo.image import docker
from demo.stack import Stack
from tests.waiting import eventually

GATED = "until [ -e /output/opened ]; do sleep 0.05; done; cp -R /input/. /output/"


def runs(stack: Stack, uid: str, attempt: int) -> bool:
    """Whether the container of that attempt runs."""
    return bool(_container(stack, uid, attempt))


def open_gate(stack: Stack, uid: str, attempt: int) -> None:
    """Waits for the container; its output has the attempt's number, and all of the input."""
    eventually(lambda: runs(stack, uid, attempt))
    script = f"echo {attempt} > /output/opening; mv /output/opening /output/opened"
    docker(stack.docker_host, "exec", _container(stack, uid, attempt), "sh", "-c", script)


def _container(stack: Stack, uid: str, attempt: int) -> str:
    """Its id; nothing unless it runs."""
    named = f"name=^/inference-server-{uid}-{attempt}-"
    return docker(stack.docker_host, "ps", "--quiet", "--filter", named).strip()
