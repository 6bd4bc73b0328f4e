"""What a test needs and this machine lacks."""

import os
from typing import NoReturn

import pytest


def cannot_run(reason: str) -> NoReturn:
    """On a laptop that is fine; in CI it would hide that nothing was tested."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def needs_root(what: str) -> None:
    if os.geteuid() != 0:
        cannot_run(f"only root can {what}")
