"""An agent's health, as its container asks for it."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from demo.stack import REPOSITORY, Stack
from gpu_agent import health
from gpu_agent.health import Health
from tests.e2e.agents import OwnAgent, own_agent
from tests.e2e.api import Api
from tests.lacking import cannot_run
from tests.waiting import eventually

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def _asked(agent: OwnAgent) -> tuple[int, str]:
    command = [sys.executable, "-m", "gpu_agent.health"]
    done = subprocess.run(command, env=dict(agent.environment), cwd=REPOSITORY, capture_output=True, text=True)
    return done.returncode, done.stdout.strip()


@pytest.mark.parametrize(("part", "name"), [("Core", "core"), ("The Docker engine", "dockerd")])
def test_an_agent_says_what_it_lacks(api: Api, stack: Stack, tmp_path: Path, part: str, name: str) -> None:
    """While a part is away the answer is 1 and names it; it is 0 again when the part is back."""
    if name not in {process.name for process in stack.status()}:
        cannot_run("the machine's own engine isn't the tests' to stop")
    with own_agent(stack, tmp_path, "asked") as agent:
        eventually(lambda: _asked(agent) == (0, "healthy"))
        stack.stop(name)
        try:
            eventually(lambda: _asked(agent)[0] == 1)
            assert _asked(agent)[1].startswith(part)
        finally:
            stack.start(name)
        eventually(lambda: _asked(agent) == (0, "healthy"))
    code, words = _asked(agent)
    assert code == 1
    assert "doesn't run" in words


def test_an_agent_without_broker_says_so(api: Api, stack: Stack, tmp_path: Path) -> None:
    """Nothing listens on that port."""
    with own_agent(stack, tmp_path, "asked", RABBITMQ_URL="amqp://127.0.0.1:9/") as agent:
        eventually(lambda: _asked(agent) == (1, "RabbitMQ isn't connected"))


def test_an_agent_that_says_nothing_is_not_healthy(tmp_path: Path) -> None:
    """What it said last counts for half a minute."""
    file = tmp_path / "agent.health"
    health.write(file, Health(time=NOW, running=(), problems={}))
    assert not health.problems(file, NOW + health.STALE_AFTER)
    [problem] = health.problems(file, NOW + 2 * health.STALE_AFTER)
    assert "nothing for 60 seconds" in problem
