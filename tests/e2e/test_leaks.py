"""The check after each test is worth something: it sees a leak of each kind."""

from pathlib import Path

import pytest

from core.contract import queues
from demo.image import docker
from demo.stack import Stack
from gpu_agent.engine import AGENT
from tests.direct import redis_at
from tests.images import Images
from tests.leaks import Leaks
from tests.waiting import eventually


@pytest.fixture
def agent(stack: Stack) -> str:
    """The name of one of the agents."""
    return eventually(lambda: sorted((stack.folder / "work").glob("*.lock")))[0].stem


def test_a_key_without_an_owner_is_seen(leaks: Leaks, stack: Stack) -> None:
    """A chunk of a zip that no task and no model names counts as left behind."""
    with redis_at(stack.redis_url) as redis:
        redis.set("chunk:nobodys:0", b"")
        assert leaks.found() == ["key chunk:nobodys:0"]
        redis.delete("chunk:nobodys:0")


def test_a_file_of_an_attempt_is_seen(leaks: Leaks, stack: Stack, agent: str) -> None:
    """A folder of an attempt that doesn't run counts as left behind."""
    folder: Path = stack.folder / "work" / "agents" / agent / "task-1"
    folder.mkdir(parents=True)
    assert leaks.found() == [f"file {folder}"]
    folder.rmdir()


def test_a_container_is_seen(leaks: Leaks, stack: Stack, agent: str, images: Images) -> None:
    """A container with the label of one of the stack's agents counts as left behind, running or not."""
    container = docker(stack.docker_host, "create", "--label", f"{AGENT}={agent}", images.running("true")).strip()
    name = docker(stack.docker_host, "inspect", "--format", "{{.Name}}", container).strip().lstrip("/")
    assert leaks.found() == [f"container {agent} {name}"]
    docker(stack.docker_host, "rm", container)


def test_a_volume_is_seen(leaks: Leaks, stack: Stack, agent: str) -> None:
    """A volume with the label of one of the stack's agents counts as left behind."""
    volume = docker(stack.docker_host, "volume", "create", "--label", f"{AGENT}={agent}").strip()
    assert leaks.found() == [f"volume {agent} {volume}"]
    docker(stack.docker_host, "volume", "rm", volume)


def test_another_stacks_container_is_not_ours(leaks: Leaks, stack: Stack, images: Images) -> None:
    """Stacks share an engine, and each minds its own."""
    container = docker(stack.docker_host, "create", "--label", f"{AGENT}=another", images.running("true")).strip()
    assert leaks.found() == []
    docker(stack.docker_host, "rm", container)


def test_messages_are_counted(leaks: Leaks, stack: Stack) -> None:
    """A message that waits in a queue which the agents don't empty is seen."""
    leaks.publish(queues.for_gpus(queues.UNFINISHED), b"x" * 43)
    assert eventually(leaks.found) == [f"1 messages in {queues.for_gpus(queues.UNFINISHED)}"]
