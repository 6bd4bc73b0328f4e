"""Ways in which a process of the stack fails."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import requests

from demo.stack import Stack
from tests.waiting import eventually


def kill(stack: Stack, name: str) -> None:
    """kill -9. It is dead when this returns, and comes back by itself."""
    pid = stack.pid(name)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not Path(f"/proc/{pid}").exists())


def wait_until_back(stack: Stack, name: str) -> None:
    """And the system takes tasks again."""
    eventually(lambda: any(process.name == name and process.pid for process in stack.status()))
    stack.start(name)
    eventually(lambda: _is_ready(stack))


def _is_ready(stack: Stack) -> bool:
    try:
        return requests.get(f"{stack.gateway_url}/readyz", verify=str(stack.certificates.ca_cert), timeout=10).ok
    except requests.RequestException:
        return False


@contextmanager
def frozen(stack: Stack, name: str) -> Iterator[None]:
    """It answers nothing, and its connections stay open."""
    group = os.getpgid(stack.pid(name))
    os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # killed meanwhile
            os.killpg(group, signal.SIGCONT)
