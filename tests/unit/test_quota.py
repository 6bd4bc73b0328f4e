"""How much a container has written, and what is too much."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from core.contract.model import Model
from core.contract.task import Reason, State, Task
from gpu_agent import quota
from gpu_agent.disks import Disks
from gpu_agent.engine import Engine, EngineError
from gpu_agent.folders import MAX_ENTRIES
from gpu_agent.quota import MAX_DEPTH, Excess, Quota, Size, below, judged_output, judged_root, rest, size_of
from gpu_agent.volumes import AttemptVolumes

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


def test_a_link_in_a_folders_place_leads_nowhere(tmp_path: Path) -> None:
    """Though it was a folder when its name was read."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(bytes(MiB))
    (tmp_path / "output" / "folder").mkdir(parents=True)
    with closing(below(tmp_path / "output")) as found:
        next(found)
        (tmp_path / "output" / "folder").rmdir()
        (tmp_path / "output" / "folder").symlink_to(tmp_path / "elsewhere")
        assert [*found] == []


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
    excess = judged_root(MODEL, root_bytes) or judged_output(MODEL, output)
    assert isinstance(excess, Excess)
    assert excess.reason is reason
    assert words in excess.message


def test_what_is_as_much_as_it_may_be() -> None:
    """The bounds themselves."""
    assert judged_root(MODEL, MiB) is None
    assert judged_output(MODEL, Size(bytes=2 * MiB, entries=MAX_ENTRIES, depth=MAX_DEPTH)) is None


async def test_a_pause_ends_when_the_disk_fills() -> None:
    """Else many small files would buy the time to write a large one."""
    free = iter([100 * MiB, 99 * MiB, 89 * MiB])
    async with asyncio.timeout(30):
        await rest(3600, 10 * MiB, lambda: next(free))
    assert next(free, None) is None


EMPTY_FILE = {"X-Docker-Container-Path-Stat": base64.b64encode(b'{"size": 0}').decode()}
Answer = Callable[[web.Request], web.Response]


@asynccontextmanager
async def _engine(**answers: Answer) -> AsyncIterator[Engine]:
    """One that answers so when it is asked for a container or its disk's use. Files in a container are empty."""

    async def answer(request: web.Request) -> web.Response:
        asked = request.path.rpartition("/")[2]
        if asked == "version":
            return web.json_response({"ApiVersion": "1.41"})
        return answers[asked](request) if asked in answers else web.Response(headers=EMPTY_FILE)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    async with (
        TestServer(app) as server,
        Engine.open(f"http://{server.host}:{server.port}", slots=1, pull_stall_seconds=1) as engine,
    ):
        yield engine


def _container(written: object, *volumes: str) -> web.Response:
    mounts = [{"Type": "volume", "Name": name} for name in volumes]
    return web.json_response({"SizeRw": written, "Mounts": mounts})


def _failing(_: web.Request) -> web.Response:
    return web.json_response({"message": "a disk usage operation is already running"}, status=500)


def _quota(engine: Engine, folder: Path) -> Quota:
    task = Task(uid="x" * 43, model_human_readable_id="m", state=State.RUNNING, datetime_created=datetime.now(UTC))
    volumes = AttemptVolumes(task, MODEL, folder, (), {}, engine, None)
    return Quota(engine, "container", volumes, Disks(folder, min_free_mb=0))


async def test_two_looks_agree_and_a_failed_one_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is counted twice as it is moved ends no container, nor does an engine that is away for a moment."""
    monkeypatch.setattr(quota, "LOOK_SECONDS", 0.01)
    looks = iter([0, None, 2 * MiB, 0, 2 * MiB, None, 2 * MiB, 2 * MiB])
    async with _engine(json=lambda _: _container(next(looks))) as engine, asyncio.timeout(30):
        excess = await _quota(engine, tmp_path).exceeded()
    assert excess.reason is Reason.DISK_LIMIT
    assert next(looks, "none left") == "none left"


async def test_what_the_root_takes_stands_when_more_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that doesn't tell of its volumes."""
    monkeypatch.setattr(quota, "LOOK_SECONDS", 0.01)
    async with (
        _engine(json=lambda _: _container(2 * MiB, "declared"), df=_failing) as engine,
        asyncio.timeout(30),
    ):
        assert (await _quota(engine, tmp_path).exceeded()).reason is Reason.DISK_LIMIT


async def test_all_who_wait_share_one_look_at_the_volumes() -> None:
    """Which began after they asked; engines refuse a second one meanwhile."""
    looks = 0

    def tell(_: web.Request) -> web.Response:
        nonlocal looks
        looks += 1
        return web.json_response({"Volumes": [{"Name": "a", "UsageData": {"Size": looks}}]})

    async with _engine(df=tell) as engine:
        assert await asyncio.gather(*(engine.volume_bytes({"a"}) for _ in range(5))) == [1, 2, 2, 2, 2]
        assert await engine.volume_bytes({"a"}) == 3


@pytest.mark.parametrize("usage", [None, {}, {"Size": None}])
async def test_an_engine_that_does_not_tell_is_no_fault_of_the_models(usage: object) -> None:
    """Not how large a container's root is, nor a volume, nor a file."""
    told = web.json_response({"Volumes": [{"Name": "a", "UsageData": usage}]})
    async with _engine(json=lambda _: _container(None), df=lambda _: told, archive=lambda _: web.Response()) as engine:
        for asked in (engine.written("container"), engine.volume_bytes({"a"}), engine.engines_files_bytes("container")):
            with pytest.raises(EngineError):
                await asked
