"""GPUs by the driver's files and the operator's word."""

from pathlib import Path

from gpu_agent import gpus

INFORMATION = """\
Model: \t\t NVIDIA H200
IRQ:   \t\t 120
GPU UUID: \t {uuid}
Video BIOS: \t 96.00.a5.00.01
"""
FIRST, SECOND = "GPU-4d7a1b2c-0000-1111-2222-333344445555", "GPU-00aa11bb-9999-8888-7777-666655554444"


def _driver(folder: Path) -> Path:
    for address, uuid in (("0000:8a:00.0", SECOND), ("0000:19:00.0", FIRST)):
        gpu = folder / address
        gpu.mkdir()
        (gpu / "information").write_text(INFORMATION.format(uuid=uuid))
    return folder


def test_the_drivers_gpus_are_found(tmp_path: Path) -> None:
    """In the order of their addresses, so that slots keep their names across restarts."""
    assert gpus.chosen("", driver=_driver(tmp_path)) == [FIRST, SECOND]


def test_the_operator_may_name_them(tmp_path: Path) -> None:
    """One agent a GPU, as version 1 had it, or several."""
    assert gpus.chosen(f" {SECOND} ,", driver=_driver(tmp_path)) == [SECOND]


def test_without_a_driver_there_is_none(tmp_path: Path) -> None:
    """The agent then has CPU slots."""
    assert gpus.chosen("", driver=tmp_path / "none") == []
