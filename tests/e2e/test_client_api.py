"""The Python API of the client, blocking and on asyncio."""

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from inference_client import (
    AsyncClient,
    Changed,
    Client,
    Conflict,
    Logged,
    NotFinished,
    NotFound,
    NotInTime,
    Progressed,
    Task,
    TaskFailed,
    Transfer,
    Unreachable,
)

from demo.stack import Stack
from tests.e2e.conftest import INPUT, ModelMaker
from tests.proxy import Proxies
from tests.zips import files_of

PATIENCE_SECONDS = 1
TALKING = "echo begun; echo 'progress: 50% half of it'; cp -R /input/. /output/; echo ended"


@pytest.fixture
def client(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("NO_PROXY", "localhost")
    with Client(stack.gateway_url, ca=stack.certificates.ca_cert) as client:
        yield client


@pytest.fixture
async def async_client(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncClient]:
    monkeypatch.setenv("NO_PROXY", "localhost")
    async with AsyncClient(stack.gateway_url, ca=stack.certificates.ca_cert) as client:
        yield client


def test_blocking(client: Client, model: ModelMaker, tmp_path: Path) -> None:
    """From the model's name to the result's file, with all that is heard on the way."""
    name = model(TALKING)
    assert name in [known.human_readable_id for known in client.models()]
    steps: list[Transfer] = []
    task = client.submit(name, INPUT, labels={"a": "b"}, priority="high", on_progress=steps.append)
    assert (task.model, task.labels, task.priority) == (name, {"a": "b"}, "high")
    assert steps[0].uid == task.uid
    assert steps[-1].done_bytes == steps[-1].total_bytes == len(INPUT)
    states: list[Task] = []
    assert client.wait(task.uid, on_change=states.append) == states[-1]
    assert (states[-1].state, states[-1].attempts[0].number) == ("finished", 1)
    fetched = client.fetch(task.uid, tmp_path)
    assert fetched == tmp_path / f"{task.uid}.zip"
    assert files_of(fetched.read_bytes()).items() >= files_of(INPUT).items()
    assert client.log(task.uid).splitlines()[0] == "begun"
    heard = list(client.events(task.uid))
    assert isinstance(heard[-1], Changed)
    assert heard[-1].task.state == "finished"
    assert list(client.events(task.uid, after=heard[-1].id)) == []
    client.delete(task.uid)
    with pytest.raises(NotFound):
        client.status(task.uid)


async def test_on_asyncio(async_client: AsyncClient, model: ModelMaker, tmp_path: Path) -> None:
    """The same, from files; and the events come while it runs."""
    for name, content in files_of(INPUT).items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    task = await async_client.submit(model(TALKING), tmp_path / "in")
    events = [event async for event in async_client.events(task.uid)]
    assert "".join(event.text for event in events if isinstance(event, Logged)).splitlines()[::2] == ["begun", "ended"]
    assert [event.progress.fraction for event in events if isinstance(event, Progressed)] == [0.5]
    assert isinstance(events[-1], Changed)
    assert (await async_client.wait(task.uid)) == events[-1].task
    fetched = await async_client.fetch(task.uid, tmp_path / "new" / "result.zip")
    assert files_of(fetched.read_bytes()).items() >= files_of(INPUT).items()


def test_the_same_uid_is_the_same_task(client: Client, waiting: str) -> None:
    """Sent again with the same zip it is there; with another it is refused."""
    task = client.submit(waiting, INPUT, uid="u" * 43)
    assert client.submit(waiting, INPUT, uid="u" * 43) == task
    with pytest.raises(Conflict):
        client.submit(waiting, INPUT, uid="u" * 43, priority="low")


def test_patience(stack: Stack, waiting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was there and went away is asked again, for so long; one that never was there isn't."""
    monkeypatch.setenv("NO_PROXY", "localhost")
    with Proxies() as proxies:
        proxy = proxies.to(("127.0.0.1", stack.ports.gateway))
        with Client(
            f"https://localhost:{proxy.port}", ca=stack.certificates.ca_cert, patience_seconds=PATIENCE_SECONDS
        ) as client:
            asked = time.monotonic()
            with proxy.refusing(), pytest.raises(Unreachable):
                client.models()
            assert time.monotonic() - asked < PATIENCE_SECONDS
            task = client.submit(waiting, INPUT)
            asked = time.monotonic()
            with proxy.refusing(), pytest.raises(Unreachable):
                client.wait(task.uid)
            assert time.monotonic() - asked >= PATIENCE_SECONDS
            proxy.cut()
            assert client.status(task.uid) == task


def test_what_goes_wrong_has_a_type(client: Client, waiting: str, model: ModelMaker, tmp_path: Path) -> None:
    """And the server's own words."""
    with pytest.raises(NotFound, match="no such model"):
        client.submit("no-such-model", INPUT)
    task = client.submit(waiting, INPUT)
    with pytest.raises(NotFinished):
        client.fetch(task.uid, tmp_path)
    with pytest.raises(NotInTime):
        client.wait(task.uid, timeout_seconds=0.1)
    with pytest.raises(Conflict):
        client.retry(task.uid)
    assert client.cancel(task.uid).reason == "cancelled"
    with pytest.raises(TaskFailed, match="cancelled"):
        client.fetch(task.uid, tmp_path)
