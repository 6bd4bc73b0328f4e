"""An agent whose folders the engine doesn't see: the same results, copied through the engine."""

import asyncio
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from core.client import CoreAccess, CoreClient
from core.contract.model import Model
from core.contract.task import Blob, Task
from demo.image import docker
from demo.stack import Stack
from gpu_agent.engine import Engine
from gpu_agent.volumes import Volumes
from tests.e2e.agents import own_agent
from tests.e2e.api import Api
from tests.e2e.conftest import ModelMaker
from tests.images import Images
from tests.lacking import needs_root
from tests.waiting import eventually
from tests.zips import files_of, modes_of, zip_of

NAME = "elsewhere"
SCRIPT = """
cp -R /input/. /output/ && cp -R /model /output/model && mkdir /output/empty && chmod 750 /output/empty &&
mkdir /output/shut && chmod 555 /output/shut &&
ln -s a.txt /output/link && ln /output/a.txt /output/second && touch /input/x 2>/dev/null; test ! -e /input/x
"""


@pytest.fixture(scope="module")
def agent(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The only agent: in a mount namespace, where its WORK_DIR is a file system that the engine doesn't have."""
    needs_root("make a mount namespace")
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "work").mkdir()
    hidden = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {folder / "work"} && exec "$@"', "-"]
    with own_agent(stack, folder, NAME, within=hidden) as agent:
        assert '"are": "copies"' in agent.log.read_text()
        yield


def _left(stack: Stack) -> str:
    """Containers of the agent's, and its tasks' volumes."""
    of_agent = f"label=inference-server.agent={NAME}"
    return docker(stack.docker_host, "ps", "-aq", "--filter", of_agent) + docker(
        stack.docker_host, "volume", "ls", "-q", "--filter", of_agent
    )


@pytest.mark.usefixtures("agent")
def test_volumes_are_copied_through_the_engine(api: Api, core: Api, stack: Stack, model: ModelMaker) -> None:
    """Input, model, output with folders, modes and links; the model's volume stays for the next task; nothing else."""
    name = model(SCRIPT, zip=zip_of({"weights/w.bin": b"weights"}), model_available="true")
    for content in (b"first", b"second"):
        zip = api.output(name, zip_of({"a.txt": content, "d/ü.txt": b"x" * 3_000_000}))
        assert files_of(zip) == {
            "a.txt": content,
            "second": content,
            "d/": b"",
            "d/ü.txt": b"x" * 3_000_000,
            "empty/": b"",
            "shut/": b"",
            "link": b"a.txt",
            "model/": b"",
            "model/weights/": b"",
            "model/weights/w.bin": b"weights",
        }
        assert modes_of(zip)["empty/"] & 0o777 == 0o750
        assert modes_of(zip)["shut/"] & 0o777 == 0o555
    volume = core.get(f"/api/models/human_readable_id/{name}").json()["model_volume_id"]
    (kept,) = docker(stack.docker_host, "volume", "ls", "-q", "--filter", f"name={volume}").split()
    assert kept.startswith(f"{volume}-")  # of this agent's WORK_DIR
    docker(stack.docker_host, "volume", "rm", kept)
    eventually(lambda: not _left(stack))


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("ln -s /etc/passwd /output/x", "output_invalid"),
        ("mkfifo /output/x", "output_invalid"),
        ("true", "no_output"),
        ("dd if=/dev/zero of=/output/x bs=1M count=3", "output_too_large"),
        ("dd if=/dev/zero of=/output/x bs=1M count=3; sleep 600", "output_too_large"),
        ("dd if=/dev/zero of=/x bs=1M count=3; sleep 600", "disk_limit"),
        ("exit 3", "exit_nonzero"),
    ],
)
def test_what_is_refused_is_refused(api: Api, stack: Stack, model: ModelMaker, script: str, reason: str) -> None:
    """For the same reasons, and with as little left behind."""
    assert api.failure(model(script, output_mb="2", disk_mb="2"), zip_of({"a": b"a"}))["reason"] == reason
    eventually(lambda: not _left(stack))


@pytest.mark.usefixtures("agent")
def test_an_image_that_makes_no_container_fails(api: Api, stack: Stack, model: ModelMaker) -> None:
    """None for copying either."""
    assert api.failure(model("true", folder="/bin/busybox"), zip_of({"a": b"a"}))["reason"] == "exit_nonzero"
    eventually(lambda: not _left(stack))


async def test_a_copied_model_is_never_changed(stack: Stack, images: Images, tmp_path: Path) -> None:
    """Tasks that come at once have it copied once; an agent whose WORK_DIR is new leaves what others have as it is."""
    zip = Blob(id=secrets.token_hex(16), size=1)
    model = Model(id=1, uid="y" * 43, human_readable_id="m", container_tag=images.running("true"), zip=zip)
    access = CoreAccess(core_url=stack.core_url, core_token=SecretStr("unused"))
    begin = int(time.time())

    def created(kind: str, name: str) -> list[str]:
        found = docker(
            stack.docker_host,
            *("events", "--since", str(begin), "--until", str(int(time.time()) + 1), "--filter", "event=create"),
            *("--filter", f"type={kind}", "--format", "{{.Actor.ID}} {{.Actor.Attributes.name}}"),
        )
        return [line for line in found.splitlines() if name in line]

    async with (
        Engine.open(stack.docker_host, slots=1, pull_stall_seconds=60) as engine,
        CoreClient.open(access) as core,
    ):

        async def use(volumes: Volumes) -> None:
            uid = secrets.token_urlsafe(32)
            task = Task(uid=uid, model_human_readable_id="m", datetime_created=datetime.now(UTC), attempt=1)
            async with volumes.fresh(uid, task, model, {}):
                await volumes.keep_model(model, core, {})

        for identity in ("first", "second"):
            kept = tmp_path / identity / "models" / zip.id
            kept.mkdir(parents=True)
            (kept / "weights").write_bytes(bytes(10_000_000))
            volumes = Volumes(engine, tmp_path / identity, "a", is_shared=False, identity=identity)
            await asyncio.gather(*(use(volumes) for _ in range(3)))
            await use(volumes)
        names = {f"inference-server-model-{zip.id}-{identity}" for identity in ("first", "second")}
        listed = docker(stack.docker_host, "volume", "ls", "-q", "--filter", f"name={zip.id}").split()
        assert set(listed) == names
        assert len(created("container", "inference-server-fill-")) == len(names)
        docker(stack.docker_host, "volume", "rm", *names)
