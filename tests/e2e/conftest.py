"""The stack as its clients and operators see it, and the check that no test leaves anything behind."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from demo.image import docker
from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.guarded import Guarded
from tests.images import Images
from tests.infer import install
from tests.lab import bases
from tests.leaks import GPU_QUEUES, Leaks
from tests.waiting import eventually
from tests.zips import zip_of

INPUT = zip_of({"hello.txt": b"Hello, model!\n", "measurements/day-1.csv": b"hour,value\n8,0.25\n"})
COPY = "cp -R /input/. /output/"

AGENTS = ("agent-1", "agent-2")

ModelMaker = Callable[..., str]


@pytest.fixture(scope="session")
def api(stack: Stack) -> Iterator[Api]:
    """The public API."""
    api = Api.public(stack.gateway_url, stack.certificates.ca_cert)
    with api.session:
        yield api


@pytest.fixture(scope="session")
def core(stack: Stack) -> Iterator[Api]:
    """The private API."""
    core = Api.private(stack.core_url, stack.token_file.read_text().strip())
    with core.session:
        yield core


@pytest.fixture(scope="session")
def images(stack: Stack, core: Api) -> Iterator[Images]:
    images = Images(stack.docker_host)
    yield images
    images.remove()
    # The models' volumes are kept for the next task, and nobody comes after this session.
    volumes = [volume for model in core.get("/api/models/").json() if (volume := model["model_volume_id"])]
    if volumes:
        docker(stack.docker_host, "volume", "rm", "--force", *volumes)


@pytest.fixture(scope="session")
def python_image(stack: Stack) -> Iterator[str]:
    """What stands in for Python's official image, under its name."""
    tag = "python:3.13-slim"
    bases.load(stack.docker_host, tag)
    yield tag
    docker(stack.docker_host, "image", "rm", "--force", tag)


@pytest.fixture(scope="session")
def model(core: Api, images: Images) -> ModelMaker:
    """Registers a model that runs a shell script: `model(COPY, timeout_seconds="2")` → its human_readable_id."""

    def registered(
        script: str,
        *,
        user: str = "",
        folder: str = "",
        programs: Sequence[str] = (),
        mode: int = 0o755,
        zip: bytes | None = None,
        **parameters: str,
    ) -> str:
        name = f"model-{secrets.token_hex(4)}"
        tag = images.running(script, user=user, folder=folder, programs=programs, mode=mode)
        parameters = {"use_gpu": "false", **parameters, "human_readable_id": name, "container_tag": tag}
        answer = core.call("POST", "/api/models/", params=parameters, zip=zip)
        assert answer.status_code == 200, answer.text
        return name

    return registered


@pytest.fixture(scope="session")
def copying(model: ModelMaker) -> str:
    """A model that gives back what it got."""
    return model(COPY)


@pytest.fixture(scope="session")
def client_bin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of programs, with the client's, of an environment that has nothing of ours but the client."""
    return install(tmp_path_factory.mktemp("client"))


@pytest.fixture(scope="session")
def waiting(model: ModelMaker) -> str:
    """A model for a GPU, which no agent of the stack has: its tasks stay pending."""
    return model(COPY, use_gpu="true")


@pytest.fixture
def no_agents(stack: Stack) -> Iterator[None]:
    """The stack without its agents."""
    for agent in AGENTS:
        stack.stop(agent)
    yield
    for agent in AGENTS:
        stack.start(agent)


@pytest.fixture(scope="module")
def guarded(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """Where clients need a key."""
    with Guarded.up(stack, tmp_path_factory.mktemp("guarded")) as guarded:
        yield guarded


@pytest.fixture(scope="session")
def all_leaks(stack: Stack) -> Iterator[Leaks]:
    with Leaks(stack) as leaks:
        yield leaks


@pytest.fixture(autouse=True)
def leaks(all_leaks: Leaks, core: Api) -> Iterator[Leaks]:
    """After each test its tasks are deleted, and then nothing of them is left anywhere."""
    yield all_leaks
    for task in core.get("/api/tasks/").json():
        assert core.delete(task["uid"]).status_code == 200
    # Nobody with a GPU is there to drop the messages of deleted tasks.
    eventually_settled(all_leaks)


def eventually_settled(leaks: Leaks) -> None:
    """Waits until nothing is left over; what still is, is named."""
    found: list[str] = []

    def settled() -> bool:
        for queue in GPU_QUEUES:
            leaks.purge(queue)
        leaks.let_entries_age()
        found[:] = leaks.found()
        return not found

    try:
        eventually(settled)
    except AssertionError:
        pytest.fail("left behind:\n" + "\n".join(found))
