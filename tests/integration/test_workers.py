"""Several processes of one service."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import eventually

PROGRAM = """
import os, pathlib, signal, sys
from core.workers import is_worker

def end(*_):
    (pathlib.Path(sys.argv[1]) / f"{os.getpid()}.ended").touch()
    sys.exit()

if is_worker(int(sys.argv[2]), ended=lambda pid: None):
    signal.signal(signal.SIGTERM, end)
    (pathlib.Path(sys.argv[1]) / f"{os.getpid()}.began").touch()
    while True:
        signal.pause()
print("all have ended")
"""


class Service:
    def __init__(self, folder: Path, workers: int) -> None:
        self._folder = folder
        command = [sys.executable, "-c", PROGRAM, str(folder), str(workers)]
        self.parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def workers(self, what: str = "began") -> set[int]:
        return {int(path.stem) for path in self._folder.glob(f"*.{what}")}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path, 2)
    eventually(lambda: len(service.workers()) == 2)
    yield service
    service.parent.kill()
    service.parent.communicate()


def test_all_end_with_a_signal(service: Service) -> None:
    """And each has the time that it takes."""
    service.parent.send_signal(signal.SIGTERM)
    said, _ = service.parent.communicate(timeout=30)
    assert (service.parent.returncode, said) == (0, "all have ended\n")
    assert service.workers("ended") == service.workers()


def test_one_that_dies_is_replaced(service: Service) -> None:
    dead = min(service.workers())
    os.kill(dead, signal.SIGKILL)
    eventually(lambda: len(service.workers()) == 3)
    service.parent.send_signal(signal.SIGTERM)
    service.parent.communicate(timeout=30)
    assert service.workers("ended") == service.workers() - {dead}


def test_none_outlives_its_parent(service: Service) -> None:
    """It would hold the port."""
    service.parent.kill()
    eventually(lambda: service.workers("ended") == service.workers())


def test_one_is_the_process_itself(tmp_path: Path) -> None:
    service = Service(tmp_path, 1)
    eventually(lambda: service.workers() == {service.parent.pid})
    service.parent.send_signal(signal.SIGTERM)
    service.parent.communicate(timeout=30)
    assert service.workers("ended") == {service.parent.pid}
