"""When a host may take tasks, and what it says when it may not."""

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from core.client import CoreClient
from gpu_agent.disks import Disks
from gpu_agent.engine import Engine
from gpu_agent.host import Host
from gpu_agent.images import Images
from gpu_agent.settings import Settings
from gpu_agent.volumes import Volumes

MORE_THAN_ANY_DISK_MB = 2**40


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    """Its engine and its core are never called."""
    settings = Settings(core_token=SecretStr("token"), agent_name="agent", work_dir=tmp_path)
    async with (
        CoreClient.open(settings) as core,
        Engine.open("unix:///nowhere", slots=1, pull_stall_seconds=1) as engine,
    ):
        volumes = Volumes(engine, tmp_path, "agent", is_shared=False)
        yield Host(settings, core, engine, volumes, Images(engine, tmp_path), Disks(tmp_path, min_free_mb=0))


async def test_a_well_host_has_no_problems(host: Host) -> None:
    """And a slot needn't wait."""
    assert host.problems() == {}
    await host.wait_until_well()


async def test_what_fails_several_slots_at_once_counts_once(host: Host) -> None:
    """An engine that is restarted ends what runs in all of them, and is one failure."""
    for _ in range(3):
        host.failed()
    assert host.problems()["host"].endswith("1 failed in a row for its sake")


async def test_an_attempt_that_went_well_ends_the_pause(host: Host) -> None:
    """Another slot has shown that the host is well."""
    host.failed()
    host.worked()
    assert host.problems() == {}
    await host.wait_until_well()


async def test_what_went_well_before_a_failure_ends_no_pause(host: Host) -> None:
    """Its output was delivered after, but its container had ended before."""
    ended = time.monotonic()
    host.failed()
    host.worked(ended)
    assert "host" in host.problems()


async def test_a_container_that_stays_is_a_problem_until_it_is_gone(host: Host) -> None:
    """It may hold a GPU, whatever other slots show."""
    host.left("stuck")
    host.worked()
    assert host.problems() == {"containers": "the engine doesn't remove stuck"}


async def test_a_full_disk_is_a_problem_in_words(host: Host) -> None:
    """With what to do."""
    host.disks = replace(host.disks, min_free_mb=MORE_THAN_ANY_DISK_MB)
    assert "make room, or set MIN_FREE_MB lower" in host.problems()["disk"]


async def test_a_disk_that_cant_be_looked_at_is_one_as_well(host: Host, tmp_path: Path) -> None:
    """It ends neither the agent nor the tasks that run."""
    host.disks = replace(host.disks, work_dir=tmp_path / "gone")
    assert "gone" in host.problems()["disk"]
    assert host.disks.room() == {}


def test_the_room_of_a_disk_is_told_once(tmp_path: Path) -> None:
    """Also when WORK_DIR and the engine's folder are both on it."""
    (engine_root := tmp_path / "engine").mkdir()
    [(folder, disk)] = Disks(tmp_path, min_free_mb=0, engine_root=engine_root).room().items()
    assert folder == str(tmp_path)
    assert 0 <= disk.free_mb <= disk.total_mb
