"""The client's transfers while the server's parts are killed under them."""

import hashlib
import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from inference_client import Changed, Client, Logged, Transfer

from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT, ModelMaker
from tests.faults.gates import GATED, open_gate
from tests.faults.kills import kill, wait_until_back
from tests.faults.transfers import MiB
from tests.zips import files_of, zip_of

FILES = {f"{number}.bin": random.Random(number).randbytes(16 * MiB) for number in range(4)}
BYTES = 64 * MiB
KILLS = {BYTES // 3: "gateway", 2 * BYTES // 3: "core"}


@pytest.fixture
def client(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("NO_PROXY", "localhost")
    with Client(stack.gateway_url, ca=stack.certificates.ca_cert, patience_seconds=60) as client:
        yield client


def killing(stack: Stack, steps: list[int]) -> Callable[[Transfer], None]:
    """Kills a part of the server when so many bytes are through; it comes back by itself."""
    left = dict(KILLS)

    def on_progress(transfer: Transfer) -> None:
        steps.append(transfer.done_bytes)
        for bound in [bound for bound in left if transfer.done_bytes >= bound]:
            kill(stack, left.pop(bound))

    return on_progress


def test_an_upload(client: Client, stack: Stack, waiting: str, core: Api, tmp_path: Path) -> None:
    """It goes on where it was cut, twice; what arrives is what was sent, and it never starts anew."""
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    steps: list[int] = []
    task = client.submit(waiting, tmp_path, on_progress=killing(stack, steps))
    arrived = files_of(core.get(f"/api/tasks/inputs/{task.uid}").content)
    assert {name: _digest(arrived[name]) for name in arrived} == {name: _digest(FILES[name]) for name in FILES}
    back = [after for before, after in pairwise(steps) if after < before]
    assert len(back) >= 2
    assert min(back) > MiB


def test_a_download(client: Client, stack: Stack, waiting: str, core: Api, tmp_path: Path) -> None:
    """It goes on where it was cut, twice, and the file has its name when it is whole."""
    output = zip_of(FILES)
    task = client.submit(waiting, INPUT)
    assert core.call("POST", f"/api/tasks/outputs/{task.uid}", zip=output).status_code == 200
    steps: list[int] = []
    target = client.fetch(task.uid, tmp_path / "result.zip", on_progress=killing(stack, steps))
    assert _digest(target.read_bytes()) == _digest(output)
    assert list(tmp_path.iterdir()) == [target]
    assert steps == sorted(steps)


def test_what_is_heard(client: Client, stack: Stack, model: ModelMaker) -> None:
    """Each line once, and the end, although the gateway and core are killed meanwhile. An agent keeps the last lines
    for a core that is away for a moment only: the container ends when it is back.
    """
    task = client.submit(model(f"echo one; {GATED}; echo two"), INPUT)
    lines: list[str] = []
    for event in client.events(task.uid):
        if isinstance(event, Logged):
            lines += event.text.splitlines()
            if lines == ["one"]:
                for part in ("gateway", "core"):
                    kill(stack, part)
                    wait_until_back(stack, part)
                open_gate(stack, task.uid, 1)
    assert lines == ["one", "two"]
    assert isinstance(event, Changed)
    assert event.task.state == "finished"
    assert client.wait(task.uid) == event.task


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
