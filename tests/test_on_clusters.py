"""The same tests once more, on a Redis Cluster and a RabbitMQ cluster."""

import subprocess
import sys

import pytest

from demo.stack import REPOSITORY
from tests.lacking import needs_root

SUITES = (
    "tests/e2e/test_contract.py",
    "tests/integration/test_blobs.py",
    "tests/integration/test_dispatch.py",
    "tests/integration/test_room.py",
    "tests/integration/test_transitions.py",
)
"""`just test --clusters` runs what one asks for."""


@pytest.mark.timeout(400)
def test_nobody_sees_a_difference() -> None:
    """Clients, the store and its scripts: in a process of its own, whose servers end with it."""
    needs_root("start a Docker engine of its own")
    command = [sys.executable, "-m", "pytest", "--clusters", "-q", *SUITES]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-10000:]
