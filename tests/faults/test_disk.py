"""Disks that are full: a small file system as WORK_DIR, which the engine sees as well."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core.contract import queues
from demo.image import docker
from demo.stack import Stack
from tests.e2e.agents import OwnAgent, own_agent
from tests.e2e.api import Api
from tests.e2e.conftest import COPY, INPUT, ModelMaker
from tests.lacking import needs_root
from tests.leaks import Leaks
from tests.waiting import eventually
from tests.zips import zip_of

MiB = 2**20
DISK_MB = 64
MIN_FREE_MB = 32


@pytest.fixture
def work_dir(tmp_path: Path) -> Iterator[Path]:
    needs_root("mount a small disk")
    folder = tmp_path / "work"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "small", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def _agent(stack: Stack, folder: Path, *, min_free_mb: int) -> Iterator[OwnAgent]:
    with own_agent(stack, folder, "small", MIN_FREE_MB=str(min_free_mb)) as agent:
        assert '"are": "folders"' in agent.log.read_text()
        yield agent


def _left(stack: Stack, work_dir: Path) -> list[str]:
    containers = docker(stack.docker_host, "ps", "--all", "--quiet", "--filter", "label=inference-server.agent=small")
    volumes = docker(stack.docker_host, "volume", "ls", "-q", "--filter", "label=inference-server.agent=small")
    return [*containers.split(), *volumes.split(), *map(str, work_dir.glob("agents/*/*"))]


def test_a_host_with_a_full_disk_takes_no_tasks(
    api: Api, core: Api, stack: Stack, copying: str, leaks: Leaks, work_dir: Path
) -> None:
    """The message stays for other agents, the log says what to do, and when there is room the task runs."""
    with _agent(stack, work_dir.parent, min_free_mb=MIN_FREE_MB) as agent:
        filler = work_dir / "filler"
        filler.write_bytes(bytes((DISK_MB - MIN_FREE_MB + 1) * MiB))
        uid = api.post(copying, INPUT)
        eventually(lambda: agent.said("disk.full"))
        assert "make room, or set MIN_FREE_MB lower" in agent.log.read_text()
        eventually(lambda: leaks.messages(queues.UNFINISHED) == 1)
        task = core.get(f"/api/tasks/{uid}").json()
        assert (task["state"], task["attempt"]) == ("pending", 0)
        filler.unlink()
        assert api.wait(uid).status_code == 200
        assert agent.times_said("disk.full") == 1


def test_an_input_that_doesnt_fit(api: Api, stack: Stack, copying: str, model: ModelMaker, work_dir: Path) -> None:
    """The host is at fault, not the input: the attempt is tried again, and nothing of it stays."""
    with _agent(stack, work_dir.parent, min_free_mb=MIN_FREE_MB) as agent:
        large = zip_of({"noise": os.urandom((DISK_MB + 1) * MiB)})
        failure = api.failure(model(COPY, max_attempts="2"), large)
        assert failure["reason"] == "disk_full"
        assert "disk of the host" in failure["message"]
        assert agent.times_said("attempt.failed") == 2
        assert _left(stack, work_dir) == []
        assert api.wait(api.post(copying, INPUT)).status_code == 200


def test_a_disk_that_the_engine_doesnt_see(
    api: Api, stack: Stack, copying: str, model: ModelMaker, tmp_path: Path
) -> None:
    """Where volumes are copied, it is the agent's own that is full: of the input, or of the output that comes back."""
    (tmp_path / "work").mkdir()
    mount = f'mount -t tmpfs -o size={DISK_MB}m small {tmp_path / "work"} && exec "$@"'
    hidden = ["unshare", "--mount", "sh", "-c", mount, "-"]
    with own_agent(stack, tmp_path, "small", within=hidden, MIN_FREE_MB=str(MIN_FREE_MB)) as agent:
        assert '"are": "copies"' in agent.log.read_text()
        large = zip_of({"noise": os.urandom((DISK_MB + 1) * MiB)})
        assert api.failure(model(COPY, max_attempts="1"), large)["reason"] == "disk_full"
        filling = model(f"dd if=/dev/zero of=/output/x bs=1M count={DISK_MB + 1}", max_attempts="1")
        assert api.failure(filling, INPUT)["reason"] == "disk_full"
        assert _left(stack, tmp_path / "work") == []
        assert api.wait(api.post(copying, INPUT)).status_code == 200


@pytest.mark.parametrize(("output_mb", "reason"), [("1024", "disk_full"), ("16", "output_too_large")])
def test_an_output_that_fills_the_disk(
    api: Api, stack: Stack, copying: str, model: ModelMaker, work_dir: Path, output_mb: str, reason: str
) -> None:
    """Whose fault it is depends on what the model was allowed."""
    filling = model("yes > /output/x", output_mb=output_mb, max_attempts="1")
    with _agent(stack, work_dir.parent, min_free_mb=MIN_FREE_MB):
        failure = api.failure(filling, INPUT)
        assert failure["reason"] == reason, failure
        assert _left(stack, work_dir) == []
        assert api.wait(api.post(copying, INPUT)).status_code == 200
