"""Images that come slowly, not at all, or are removed as soon as they are there."""

import io
import json
import secrets
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.contract.model import Pull
from demo.image import busybox_tar, docker
from demo.stack import Stack
from gpu_agent.engine import Engine, ImageUnavailable
from gpu_agent.uses import alone
from tests.e2e import registry
from tests.e2e.agents import own_agent
from tests.e2e.api import Api
from tests.e2e.conftest import COPY, INPUT
from tests.images import APPLETS
from tests.waiting import eventually
from tests.zips import files_of, zip_of

STALL_SECONDS = 2
PIECE_BYTES = 128 * 1024


@pytest.fixture
def host(stack: Stack, tmp_path: Path) -> Iterator[str]:
    """A registry with an image `model:1` that the engine doesn't have, nor its layer."""
    layer = io.BytesIO(busybox_tar(APPLETS))
    with tarfile.open(fileobj=layer, mode="a") as tar:
        tar.addfile(tarfile.TarInfo(secrets.token_hex(8)))
    with registry.running(tmp_path) as host:
        command = f"CMD {json.dumps(['/bin/sh', '-c', COPY])}"
        docker(stack.docker_host, "import", "--change", command, "-", f"{host}/model:1", stdin=layer.getvalue())
        docker(stack.docker_host, "push", "--quiet", f"{host}/model:1")
        docker(stack.docker_host, "image", "rm", f"{host}/model:1")
        yield host
        if docker(stack.docker_host, "images", "--quiet", f"{host}/model:1"):
            docker(stack.docker_host, "image", "rm", f"{host}/model:1")


def _register(core: Api, tag: str, *, zip: bytes | None = None, **parameters: str) -> str:
    name = f"pulled-{secrets.token_hex(4)}"
    parameters = {"human_readable_id": name, "container_tag": tag, "use_gpu": "false", **parameters}
    core.call("POST", "/api/models/", params=parameters, zip=zip).raise_for_status()
    return name


def test_a_pull_that_stands_still_is_given_up(api: Api, core: Api, stack: Stack, host: str, tmp_path: Path) -> None:
    """The attempt ends with the reason, and when the registry has recovered the next one pulls anew."""
    goes_on = threading.Event()

    def stand_still() -> None:
        goes_on.wait()

    with (
        registry.slow(host, PIECE_BYTES, stand_still) as stalled,
        own_agent(stack, tmp_path, "pulling", PULL_STALL_SECONDS=str(STALL_SECONDS)) as agent,
    ):
        uid = api.post(_register(core, f"{stalled}/model:1"), INPUT)
        eventually(lambda: agent.said("attempt.failed"))
        failure = eventually(lambda: core.get(f"/api/tasks/{uid}").json()["failure"])
        goes_on.set()
        assert failure["reason"] == "image_unavailable"
        assert f"nothing came from its registry for {STALL_SECONDS} seconds" in failure["message"]
        assert api.wait(uid).status_code == 200
        assert not agent.said("host.paused")
        docker(stack.docker_host, "image", "rm", f"{stalled}/model:1")


def test_a_pull_that_moves_may_take_long(api: Api, core: Api, stack: Stack, host: str, tmp_path: Path) -> None:
    """Several times longer than it may stand still."""
    pauses = []

    def pause() -> None:
        pauses.append(time.monotonic())
        time.sleep(STALL_SECONDS / 2)

    with (
        registry.slow(host, PIECE_BYTES, pause) as slow,
        own_agent(stack, tmp_path, "pulling", PULL_STALL_SECONDS=str(STALL_SECONDS)),
    ):
        assert api.wait(api.post(_register(core, f"{slow}/model:1", max_attempts="1"), INPUT)).status_code == 200
        assert pauses[-1] - pauses[0] > 2 * STALL_SECONDS
    docker(stack.docker_host, "image", "rm", f"{slow}/model:1")  # the agent has gone, and the container with it


def test_an_image_that_was_removed_is_pulled_again(
    api: Api, core: Api, stack: Stack, host: str, tmp_path: Path
) -> None:
    """By an operator, after the agent saw to it and before it made the container: the attempt goes on."""
    tag = f"{host}/model:1"
    model = _register(core, tag, zip=zip_of({"w": b"w"}), model_available="true", max_attempts="1")
    zip_id = core.get(f"/api/models/human_readable_id/{model}").json()["model_zip"]
    with own_agent(stack, tmp_path, "pulling") as agent:
        models = tmp_path / "work" / "models"
        models.mkdir(exist_ok=True)
        with alone(models / f"{zip_id}.lock"):  # the attempt waits for it between the two
            uid = api.post(model, zip_of({"a": b"a"}))
            eventually(lambda: agent.said("image.pulled"))
            docker(stack.docker_host, "image", "rm", tag)
        assert files_of(api.wait(uid).content) == {"a": b"a"}
        assert agent.said("image.vanished")


async def test_an_image_that_is_gone_for_good_is_unavailable(stack: Stack, host: str) -> None:
    """No broken host: the image can't be had any more."""
    async with Engine.open(stack.docker_host, slots=1, pull_stall_seconds=10) as engine:
        tag = f"{host}/other:1"
        docker(stack.docker_host, "pull", "--quiet", f"{host}/model:1")
        docker(stack.docker_host, "tag", f"{host}/model:1", tag)
        await engine.ensure_image(tag, Pull.MISSING)
        docker(stack.docker_host, "image", "rm", tag)
        with pytest.raises(ImageUnavailable, match="can't be pulled"):
            await engine.create_idle(f"test-{secrets.token_hex(4)}", tag, [], {})
