"""An agent that isn't root."""

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

CAPABILITY_VERSION = 0x20080522


@pytest.fixture
def unprivileged(tmp_path: Path) -> Iterator[Path]:
    """A folder of one's own, in which modes count as for anybody, also where root runs the tests.

    Without its capabilities root is such a one: in this thread and in those that it starts.
    """
    libc = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    before = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable: twice 32 of each
    assert libc.capget(header, before) == 0
    none_effective = (ctypes.c_uint32 * 6)(0, *before[1:3], 0, *before[4:])
    assert libc.capset(header, none_effective) == 0
    yield tmp_path
    assert libc.capset(header, before) == 0
