"""How much a container has written, and what is too much."""

import asyncio
import os
from pathlib import Path

import pytest

from core.contract.model import Model
from core.contract.task import Reason
from gpu_agent.folders import MAX_ENTRIES
from gpu_agent.quota import MAX_DEPTH, Excess, Size, judged, rest, size_of

MiB = 2**20
MODEL = Model(id=1, uid="y" * 43, human_readable_id="m", container_tag="m", disk_mb=1, output_mb=2)


def _count(folder: Path, *, max_bytes: int = 2**40, max_entries: int = 1000) -> Size:
    return size_of(folder, max_bytes=max_bytes, max_entries=max_entries)


def test_all_that_takes_room_is_counted(tmp_path: Path) -> None:
    """Files at any depth; of a link the link, and of a file with holes what it has."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(os.urandom(MiB))
    (tmp_path / "elsewhere").symlink_to("/")
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(2**40)
    size = _count(tmp_path)
    assert MiB <= size.bytes < 2 * MiB
    assert (size.entries, size.depth) == (5, 3)


def test_counting_ends_at_the_bound(tmp_path: Path) -> None:
    """However much there is, a look doesn't take longer."""
    for number in range(20):
        (tmp_path / str(number)).write_bytes(bytes(4096))
    assert _count(tmp_path, max_entries=5).entries == 6
    assert _count(tmp_path, max_bytes=10_000).entries < 20


def test_no_tree_is_too_deep_to_be_counted(tmp_path: Path) -> None:
    """No deeper than it may be: each level takes a descriptor."""
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(2 * MAX_DEPTH):
        os.mkdir("x", dir_fd=folder)
        below = os.open("x", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    before = len(list(Path("/proc/self/fd").iterdir()))
    assert _count(tmp_path).depth == MAX_DEPTH + 1
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_goes_meanwhile_is_left_out(tmp_path: Path) -> None:
    """Or was never there."""
    assert _count(tmp_path / "nothing") == Size()


@pytest.mark.parametrize(
    ("root_bytes", "output", "reason", "words"),
    [
        (MiB + 1, Size(), Reason.DISK_LIMIT, "disk_mb"),
        (0, Size(bytes=2 * MiB + 1), Reason.OUTPUT_TOO_LARGE, "output_mb"),
        (0, Size(entries=MAX_ENTRIES + 1), Reason.OUTPUT_TOO_LARGE, "archive"),
        (0, Size(depth=MAX_DEPTH + 1), Reason.OUTPUT_INVALID, "nested"),
    ],
)
def test_what_is_too_much(root_bytes: int, output: Size, reason: Reason, words: str) -> None:
    """The message says what to do."""
    excess = judged(MODEL, root_bytes, output)
    assert isinstance(excess, Excess)
    assert excess.reason is reason
    assert words in excess.message


def test_what_is_as_much_as_it_may_be() -> None:
    """The bounds themselves."""
    assert judged(MODEL, MiB, Size(bytes=2 * MiB, entries=MAX_ENTRIES, depth=MAX_DEPTH)) is None


async def test_a_pause_ends_when_the_disk_fills() -> None:
    """Else many small files would buy the time to write a large one."""
    free = iter([100 * MiB, 99 * MiB, 89 * MiB])
    async with asyncio.timeout(30):
        await rest(3600, 10 * MiB, lambda: next(free))
    assert next(free, None) is None
