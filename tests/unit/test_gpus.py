"""GPUs by the driver's files, the operator's word and NVML's figures.

NVML itself is read on machines that have it: tests/gpu.
"""

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gpu_agent.gpus import Gpu, Gpus, foreign
from gpu_agent.nvml import Reading
from gpu_agent.settings import Settings

INFORMATION = """\
Model: \t\t {name}
IRQ:   \t\t 120
GPU UUID: \t {uuid}
Video BIOS: \t 96.00.a5.00.01
Bus Type: \t PCIe
DMA Size: \t 52 bits
DMA Mask: \t 0xfffffffffffff
Bus Location: \t 0000:19:00.0
Device Minor: \t 0
GPU Firmware: \t 580.159.04
GPU Excluded:\t No
"""
OPEN = (
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (builder@host)\nGCC version:\n"
)
CLOSED = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19 18:56:32 UTC 2023\nGCC version:\n"
FIRST, SECOND = "GPU-4d7a1b2c-0000-1111-2222-333344445555", "GPU-00aa11bb-9999-8888-7777-666655554444"
ASLEEP = "GPU-????????-????-????-????-????????????"


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    """A driver's folder with two GPUs."""
    _plug_in(tmp_path, "0000:8a:00.0", SECOND)
    _plug_in(tmp_path, "0000:19:00.0", FIRST)
    (tmp_path / "version").write_text(OPEN)
    return tmp_path


def _plug_in(driver: Path, address: str, uuid: str) -> None:
    gpu = driver / "gpus" / address
    gpu.mkdir(parents=True)
    (gpu / "information").write_text(INFORMATION.format(name="NVIDIA H200", uuid=uuid))


def _settings(gpu_uuid: str = "") -> Settings:
    return Settings(core_token="x", gpu_uuid=gpu_uuid)


async def test_the_drivers_gpus_are_found(driver: Path) -> None:
    """In the order of their addresses, so that slots keep their names across restarts; NVML isn't needed for it."""
    gpus = await Gpus.of(_settings(), driver=driver)
    assert gpus.all == (Gpu(FIRST, "NVIDIA H200"), Gpu(SECOND, "NVIDIA H200"))
    assert await gpus.problems(()) == {}


@pytest.mark.parametrize(("text", "version"), [(OPEN, "580.159.04"), (CLOSED, "535.129.03")])
async def test_the_drivers_version_is_known(driver: Path, text: str, version: str) -> None:
    """Its open and its closed module word it differently."""
    (driver / "version").write_text(text)
    assert (await Gpus.of(_settings(), driver=driver)).driver == version


async def test_the_operator_may_name_them(driver: Path) -> None:
    """One agent a GPU, as version 1 had it, or several."""
    assert (await Gpus.of(_settings(f" {SECOND} ,"), driver=driver)).all == (Gpu(SECOND, "NVIDIA H200"),)


async def test_a_mig_device_is_passed_through(driver: Path) -> None:
    """The driver's files don't have it, and yet it isn't unfit."""
    gpus = await Gpus.of(_settings("MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"), driver=driver)
    assert [gpu.uuid for gpu in gpus.all] == ["MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"]
    assert await gpus.problems(()) == {}


async def test_a_named_gpu_that_is_not_there_is_unfit(driver: Path) -> None:
    """The words name those that are."""
    gpus = await Gpus.of(_settings("GPU-typo"), driver=driver)
    assert FIRST in (await gpus.problems(()))["GPU-typo"]


async def test_without_a_driver_there_is_none(tmp_path: Path) -> None:
    """The agent then has CPU slots."""
    gpus = await Gpus.of(_settings(), driver=tmp_path / "none")
    assert (gpus.all, gpus.driver) == ((), "")


async def test_an_agent_may_be_kept_off_them(driver: Path) -> None:
    """It serves models that need none, beside one that has them."""
    assert (await Gpus.of(_settings("none"), driver=driver)).all == ()


async def test_those_of_an_engine_elsewhere_are_taken_as_they_are(tmp_path: Path) -> None:
    """Only the engine can tell whether they work."""
    gpus = await Gpus.of(_settings(), discovered=(FIRST,), driver=tmp_path / "none")
    assert gpus.all == (Gpu(FIRST),)
    assert await gpus.problems(()) == {}


async def test_a_gpu_that_vanishes_is_unfit_until_it_is_back(driver: Path) -> None:
    """And said to be so once, not every few seconds."""
    gpus = await Gpus.of(_settings(), driver=driver)
    (driver / "gpus" / "0000:19:00.0").rename(driver / "unplugged")
    with capture_logs() as logs:
        for _ in range(2):
            assert list(await gpus.problems((FIRST,))) == [FIRST]
        (driver / "unplugged").rename(driver / "gpus" / "0000:19:00.0")
        assert await gpus.problems(()) == {}
    assert [line["event"] for line in logs] == ["gpu.drained", "gpu.back"]


async def test_a_gpu_that_sleeps_is_not_taken_for_gone(driver: Path) -> None:
    """The driver shows no UUID of a GPU that nobody has used yet, which may be any."""
    _plug_in(driver, "0000:03:00.0", ASLEEP)
    gpus = await Gpus.of(_settings(f"{FIRST},GPU-unseen"), driver=driver)
    assert await gpus.problems(()) == {}
    assert [gpu.uuid for gpu in (await Gpus.of(_settings(), driver=driver)).all] == [FIRST, SECOND]


async def test_a_driver_that_hangs_holds_nobody_up(driver: Path) -> None:
    """Its GPUs are unfit until it answers again."""
    gpus = await Gpus.of(_settings(), driver=driver)
    information = driver / "gpus" / "0000:19:00.0" / "information"
    information.rename(driver / "aside")
    os.mkfifo(information)
    found = await gpus.problems(())
    assert found.keys() == {FIRST, SECOND}
    assert "hasn't answered" in found[FIRST]
    information.write_text((driver / "aside").read_text())
    information.unlink()
    (driver / "aside").rename(information)
    await gpus.problems(())
    assert await gpus.problems(()) == {}


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        (Reading(143771, 1024), ""),
        (Reading(None, None), ""),
        (Reading(143771, 1025), "1025 MB of its memory are taken by processes that aren't InferenceServer's"),
        (
            Reading(143771, 38000, (7, 812)),
            "38000 MB of its memory are taken by processes that aren't InferenceServer's: pids 7, 812",
        ),
    ],
)
def test_foreign_work_is_what_a_desktop_would_not_take(reading: Reading, words: str) -> None:
    """Where the figure isn't known, nothing is said."""
    assert foreign(reading, 1024) == words
