"""Many tasks, and a large one."""

import hashlib
import random
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from demo.stack import Stack
from tests.e2e.api import Api
from tests.zips import files_of, zip_of

MiB = 2**20
TASKS = 300
CLIENTS = 6
PAUSE_SECONDS = 0.05
"""Between the questions of a client, so that asking doesn't take the tasks' time."""
PENDING_OR_DONE = {551, 200}

LARGE_MiB = 2048
BLOCK_MiB = 64
ALLOWED_MiB = 150
SERVICES = ("gateway", "core", "agent-1", "agent-2")
LARGE_SECONDS = 240


def test_300_small_tasks(stack: Stack, copying: str) -> None:
    """Over two agents, from several clients at once: each ends in 200 with its own bytes, and none is ever unknown."""

    def run(numbers: range) -> None:
        api = Api.public(stack.gateway_url, stack.certificates.ca_cert)
        with api.session:
            posted = {api.post(copying, input_of(number)): number for number in numbers}
            waiting = dict(posted)
            deadline = time.monotonic() + LARGE_SECONDS
            while waiting:
                assert time.monotonic() < deadline
                for uid, number in list(waiting.items()):
                    answer = api.get(f"/api/tasks/{uid}")
                    assert answer.status_code in PENDING_OR_DONE, answer.text
                    if answer.status_code == 200:
                        assert files_of(answer.content) == files_of(input_of(number))
                        del waiting[uid]
                    time.sleep(PAUSE_SECONDS)

    started = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(run, [range(first, TASKS, CLIENTS) for first in range(CLIENTS)]))
    print(f"{TASKS} tasks: {time.monotonic() - started:.1f} s")


def input_of(number: int) -> bytes:
    return zip_of({f"{number}.txt": f"This is task {number}.\n".encode() * 50})


@pytest.fixture
def large_zip(tmp_path: Path) -> Iterator[Path]:
    """2 GiB that no compression makes small: random blocks, each another."""
    path = tmp_path / "large.zip"
    block = bytearray(random.Random(3).randbytes(BLOCK_MiB * MiB))
    with zipfile.ZipFile(path, "w") as archive, archive.open("large.bin", "w", force_zip64=True) as entry:
        for number in range(LARGE_MiB // BLOCK_MiB):
            block[:8] = number.to_bytes(8, "big")
            entry.write(block)
    yield path
    path.unlink()


class Memory:
    """The peaks of the services' resident memory over what they have when nothing happens."""

    def __init__(self, stack: Stack) -> None:
        self._pids = {name: stack.pid(name) for name in SERVICES}
        self._idle = {name: self._kilobytes(name, "VmRSS") for name in SERVICES}
        for pid in self._pids.values():
            Path(f"/proc/{pid}/clear_refs").write_text("5")  # proc(5): resets the peak to what it is now

    def growth_mib(self) -> dict[str, float]:
        return {name: round((self._kilobytes(name, "VmHWM") - self._idle[name]) / 1024, 1) for name in SERVICES}

    def _kilobytes(self, name: str, field: str) -> int:
        lines = Path(f"/proc/{self._pids[name]}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


class Form:
    """A multipart form around a file, for requests to stream: its own `files=` reads all of it into memory."""

    BOUNDARY = "boundary-of-the-large-form"

    def __init__(self, file: IO[bytes], size: int) -> None:
        disposition = 'Content-Disposition: form-data; name="zip_file"; filename="large.zip"'
        self._head = f"--{self.BOUNDARY}\r\n{disposition}\r\n\r\n".encode()
        self._tail = f"\r\n--{self.BOUNDARY}--\r\n".encode()
        self._file = file
        self._size = size

    def __len__(self) -> int:
        return len(self._head) + self._size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        yield self._head
        while piece := self._file.read(MiB):
            yield piece
        yield self._tail


@pytest.mark.timeout(2 * LARGE_SECONDS)
def test_a_zip_of_2_gib(
    stack: Stack,
    api: Api,
    copying: str,
    large_zip: Path,
    tmp_path: Path,
) -> None:
    """Through a container and back it is byte-identical, and no service ever holds more than 150 MiB of it."""
    api.output(copying, input_of(1))  # what a first task loads is not the large one's
    memory = Memory(stack)
    started = time.monotonic()
    uid = posted(api, copying, large_zip)
    seconds = {"post": time.monotonic() - started}
    answered = api.wait_for_end(uid, within_seconds=LARGE_SECONDS)
    seconds["run"] = time.monotonic() - started - seconds["post"]
    assert answered == 200
    output = tmp_path / "output.zip"
    fetch(api, uid, output)
    seconds["fetch"] = time.monotonic() - started - sum(seconds.values())

    growth = memory.growth_mib()
    print("seconds:", {step: round(taken, 1) for step, taken in seconds.items()}, "growth in MiB:", growth)
    assert digests(output) == digests(large_zip)
    output.unlink()
    assert max(growth.values()) < ALLOWED_MiB, growth


def posted(api: Api, model: str, path: Path) -> str:
    headers = {"Content-Type": f"multipart/form-data; boundary={Form.BOUNDARY}"}
    with path.open("rb") as file:
        form = Form(file, path.stat().st_size)
        answer = api.call("POST", "/api/tasks/", params={"model_human_readable_id": model}, headers=headers, data=form)
    assert answer.status_code == 200, answer.text
    return str(answer.json())


def fetch(api: Api, uid: str, path: Path) -> None:
    with api.session.get(f"{api.url}/api/tasks/{uid}", stream=True, timeout=60) as answer, path.open("wb") as file:
        assert answer.status_code == 200
        for piece in answer.iter_content(MiB):
            file.write(piece)
        assert file.tell() == int(answer.headers["Content-Length"])


def digests(path: Path) -> dict[str, str]:
    """Name → digest of the content of every file in the zip."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            digest = hashlib.sha256()
            with archive.open(name) as entry:
                while piece := entry.read(MiB):
                    digest.update(piece)
            found[name] = digest.hexdigest()
    return found
