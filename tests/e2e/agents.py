"""An agent of a test's own, beside or instead of the stack's."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.stack import REPOSITORY, Stack
from tests.waiting import eventually

STOP_SECONDS = 60


@dataclass(frozen=True)
class OwnAgent:
    process: subprocess.Popen[bytes]
    log: Path
    environment: Mapping[str, str]

    def said(self, event: str) -> bool:
        return self.times_said(event) > 0

    def times_said(self, event: str) -> int:
        return self.log.read_text().count(f'"{event}"')


@contextmanager
def own_agent(
    stack: Stack, folder: Path, name: str, *, within: Sequence[str] = (), **settings: str
) -> Iterator[OwnAgent]:
    """The only agent, until the context ends; `within` is what its command is given to."""
    log_file = folder / "agent.log"
    environment = {
        "PATH": os.environ["PATH"],
        "CORE_URL": stack.core_url,
        "CORE_TOKEN_FILE": str(stack.token_file),
        "RABBITMQ_URL": stack.rabbitmq_url,
        "DOCKER_HOST": stack.docker_host,
        "AGENT_NAME": name,
        "WORK_DIR": str(folder / "work"),
        **settings,
    }
    for other in stack.status():
        if other.name.startswith("agent-") and other.pid is not None:
            stack.stop(other.name)
    with log_file.open("wb") as log:
        command = [*within, sys.executable, "-m", "gpu_agent"]
        process = subprocess.Popen(command, env=environment, cwd=REPOSITORY, stdout=log, stderr=log)
    agent = OwnAgent(process, log_file, environment)
    try:
        eventually(lambda: agent.said("agent.started"))
        yield agent
    finally:
        process.terminate()
        process.wait(timeout=STOP_SECONDS)
        for others in ("agent-1", "agent-2"):
            stack.start(others)
