"""What fills a host's disk with time: images and model zips that nothing needs any more."""

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from core.contract.model import Pull
from core.store import keys
from demo.image import docker
from demo.stack import Stack
from gpu_agent.engine import Engine
from gpu_agent.images import Images as PulledImages
from tests.direct import redis_at
from tests.e2e import registry
from tests.e2e.agents import own_agent
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT, ModelMaker
from tests.images import Images
from tests.waiting import eventually
from tests.zips import zip_of


class Registry:
    """A registry, and what the engine has of it."""

    def __init__(self, stack: Stack, host: str) -> None:
        self._stack = stack
        self._images = Images(stack.docker_host)
        self._host = host

    def push(self, name: str, script: str = "echo done > /output/done") -> str:
        """The tag of a new image that the engine doesn't have."""
        tag = f"{self._host}/{name}"
        self.tag(self._images.running(script), tag)
        self.docker("push", "--quiet", tag)
        self.docker("image", "rm", tag)
        self._images.remove()
        return tag

    def tag(self, image: str, tag: str) -> None:
        self.docker("tag", image, tag)

    def docker(self, *arguments: str) -> str:
        return docker(self._stack.docker_host, *arguments)

    def here(self) -> set[str]:
        """Names without the host; an image that lost its name to a newer one has none."""
        shown = self.docker("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", f"reference={self._host}/*")
        return {line.removeprefix(f"{self._host}/") for line in shown.split()}


@pytest.fixture
def hub(stack: Stack, tmp_path: Path) -> Iterator[Registry]:
    with registry.running(tmp_path) as host:
        hub = Registry(stack, host)
        yield hub
        if names := [f"{host}/{name}" for name in hub.here() if "<none>" not in name]:
            hub.docker("image", "rm", *names)


@pytest.fixture
async def pulled(stack: Stack, tmp_path: Path) -> AsyncIterator[PulledImages]:
    """As an agent of this host has them."""
    async with Engine.open(stack.docker_host, slots=1, pull_stall_seconds=60) as engine:
        (tmp_path / "images").mkdir()
        yield PulledImages(engine, tmp_path / "images")


async def _use(pulled: PulledImages, tag: str, pull: Pull = Pull.MISSING) -> None:
    async with pulled.ready(tag, pull):
        pass


def never() -> bool:
    return False


async def test_the_least_recently_used_go_first(hub: Registry, pulled: PulledImages) -> None:
    """And no more than it takes."""
    tags = [hub.push(f"model:{number}", f"echo {number} > /output/x") for number in range(3)]
    for tag in (*tags, tags[0]):
        await _use(pulled, tag)
    await pulled.prune(set(), until=lambda: len(hub.here()) == 2)
    assert hub.here() == {"model:0", "model:2"}
    await pulled.prune(set(), until=lambda: len(hub.here()) == 1)
    assert hub.here() == {"model:0"}


async def test_what_stays(hub: Registry, pulled: PulledImages, images: Images) -> None:
    """A model's image, one in use by any agent of the host, one in a container, one that an operator brought, and one
    that an operator put in the place of ours or gave a name of their own.
    """
    tags = {
        name: hub.push(f"{name}:1", f"echo {name} > /output/x") for name in ("named", "used", "run", "ours", "kept")
    }
    for tag in tags.values():
        await _use(pulled, tag)
    operators = hub.push("operators:1")
    hub.docker("pull", "--quiet", operators)
    await _use(pulled, operators)
    replaced = hub.push("replaced:1")
    await _use(pulled, replaced)
    hub.tag(images.running("true"), replaced)
    hub.tag(tags["kept"], tags["kept"].removesuffix(":1") + ":own")
    container = hub.docker("create", tags["run"]).strip()
    try:
        async with pulled.ready(tags["used"], Pull.MISSING):
            another = PulledImages(pulled.engine, pulled.folder)
            await another.prune({tags["named"]}, until=never)
        assert hub.here() == {"named:1", "used:1", "run:1", "operators:1", "replaced:1", "kept:own"}
    finally:
        hub.docker("rm", container)
    await pulled.prune(set(), until=never)
    assert hub.here() == {"operators:1", "replaced:1", "kept:own"}
    assert list(pulled.folder.iterdir()) == []


async def test_one_that_a_newer_one_replaced_goes(hub: Registry, pulled: PulledImages) -> None:
    """Though a model names them both: only the newer one runs."""
    for number in range(2):
        tag = hub.push("model:1", f"echo {number} > /output/x")
        await _use(pulled, tag, Pull.ALWAYS)
    newest = await pulled.engine.image(tag)
    assert len(hub.here()) == 2
    await pulled.prune({tag}, until=never)
    assert hub.here() == {"model:1"}
    assert await pulled.engine.image(tag) == newest


def test_an_agent_prunes(
    api: Api, core: Api, stack: Stack, hub: Registry, model: ModelMaker, copying: str, tmp_path: Path
) -> None:
    """When the disk is fuller than the setting, images that no model names; zips of models that are no more always."""
    tag = hub.push("model:1")
    name = f"pulled-{secrets.token_hex(4)}"
    parameters = {"human_readable_id": name, "container_tag": tag, "use_gpu": "false"}
    core.call("POST", "/api/models/", params=parameters).raise_for_status()
    zipped = model("cp /model/* /output/", zip=zip_of({"w": b"w"}), model_available="true")
    volume = core.get(f"/api/models/human_readable_id/{zipped}").json()["model_volume_id"]

    def volumes() -> set[str]:
        return set(hub.docker("volume", "ls", "--quiet").split())

    with own_agent(stack, tmp_path, "pruning") as agent:
        for each in (name, zipped):
            assert api.wait(api.post(each, INPUT)).status_code == 200
        assert not agent.said("image.pruned")
    kept = tmp_path / "work" / "models"
    (kept / f"{secrets.token_hex(8)}.filling-{secrets.token_hex(8)}").mkdir()  # of an agent that was killed
    always = {"PRUNE_IMAGES_ABOVE": "0", "PRUNE_IMAGES_BELOW": "0"}
    with own_agent(stack, tmp_path, "pruning", **always) as agent:
        eventually(lambda: not list(kept.glob("*.filling-*")))
        assert volume in volumes()
        assert hub.here() == {"model:1"}
    with redis_at(stack.redis_url) as redis:
        redis.hdel(keys.MODELS, name)
        record = redis.hget(keys.MODELS, zipped)
        redis.hdel(keys.MODELS, zipped)
        try:
            with own_agent(stack, tmp_path, "pruning", **always) as agent:
                eventually(lambda: agent.said("image.pruned") and agent.said("model.erased"))
                eventually(lambda: not list(kept.iterdir()))
                assert hub.here() == set()
                assert volume not in volumes()
        finally:
            redis.hset(keys.MODELS, zipped, record)
