"""Where an image comes from: a registry that is really there, or really not."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.image import docker
from demo.stack import Stack
from tests.e2e import registry
from tests.e2e.agents import own_agent
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT
from tests.images import Images
from tests.zips import files_of


class Repository:
    """One image name in a registry, and what is pushed there."""

    def __init__(self, stack: Stack, images: Images, host: str) -> None:
        self.name = f"{host}/team/model"
        self.tag = f"{self.name}:1"
        self._docker_host = stack.docker_host
        self._images = images

    def push(self, script: str) -> None:
        """A new image under the same tag; afterwards the engine has it no more."""
        docker(self._docker_host, "tag", self._images.running(script), self.tag)
        docker(self._docker_host, "push", "--quiet", self.tag)
        docker(self._docker_host, "image", "rm", self.tag)

    def forget(self) -> None:
        """By tag and by digest: one that lost its tag to a newer one has only that."""
        shown = docker(self._docker_host, "images", "--digests", "--format", "{{.Tag}} {{.Digest}}", self.name)
        for tag, digest in map(str.split, shown.splitlines()):
            if tag != "<none>":
                docker(self._docker_host, "image", "rm", f"{self.name}:{tag}")
            if digest != "<none>" and digest in docker(self._docker_host, "images", "--digests", self.name):
                docker(self._docker_host, "image", "rm", f"{self.name}@{digest}")

    def is_here(self) -> bool:
        return bool(docker(self._docker_host, "images", "--quiet", self.tag).strip())


@pytest.fixture
def repository(stack: Stack, images: Images, tmp_path: Path) -> Iterator[Repository]:
    with registry.running(tmp_path) as host:
        repository = Repository(stack, images, host)
        yield repository
        repository.forget()


def _register(core: Api, tag: str, **parameters: str) -> str:
    name = f"pulled-{secrets.token_hex(4)}"
    parameters = {"human_readable_id": name, "container_tag": tag, "use_gpu": "false", **parameters}
    assert core.call("POST", "/api/models/", params=parameters).status_code == 200
    return name


def test_an_image_that_is_missing_is_pulled(api: Api, core: Api, repository: Repository) -> None:
    """The first task pulls it; it stays for the next ones, even when the registry has a newer one."""
    repository.push("echo first > /output/version")
    model = _register(core, repository.tag)
    assert files_of(api.output(model, INPUT)) == {"version": b"first\n"}
    assert repository.is_here()


def test_a_model_may_ask_for_the_newest_image(api: Api, core: Api, repository: Repository) -> None:
    """`pull=always` asks the registry before each run."""
    repository.push("echo first > /output/version")
    model = _register(core, repository.tag, pull="always")
    assert files_of(api.output(model, INPUT)) == {"version": b"first\n"}
    repository.push("echo second > /output/version")
    assert files_of(api.output(model, INPUT)) == {"version": b"second\n"}


def test_a_pinned_image_stays_what_it_was(api: Api, core: Api, repository: Repository) -> None:
    """On a host that has it no more, and when its name stands for another: until the model is revised."""
    repository.push("echo first > /output/version")
    model = _register(core, repository.tag, pin="true")
    assert files_of(api.output(model, INPUT)) == {"version": b"first\n"}
    registered = core.get(f"/api/models/human_readable_id/{model}").json()
    assert registered["digest"].startswith("sha256:")
    repository.forget()
    repository.push("echo second > /output/version")
    assert files_of(api.output(model, INPUT)) == {"version": b"first\n"}
    uid = api.post(model, INPUT)
    api.wait_for_end(uid)
    [attempt] = core.get(f"/api/tasks/{uid}").json()["attempts"]
    assert attempt["image"] == f"{repository.name}@{registered['digest']}"
    revised = core.call("PUT", f"/api/models/{registered['uid']}").json()
    assert (revised["revision"], revised["digest"]) == (2, None)
    assert files_of(api.output(model, INPUT)) == {"version": b"second\n"}


def test_an_image_that_nobody_has_is_said_so(api: Api, core: Api) -> None:
    """After its tries the task fails with the reason and the image's name; no registry answers on that port."""
    model = _register(core, "127.0.0.1:9/team/none:1", max_attempts="2")
    failure = api.failure(model, INPUT)
    assert failure["reason"] == "image_unavailable"
    assert "127.0.0.1:9/team/none:1" in failure["message"]
    assert failure["exit_code"] is None


def test_an_agent_has_a_list_of_its_own(
    api: Api, core: Api, stack: Stack, copying: str, images: Images, tmp_path: Path
) -> None:
    """Whatever core lets be registered, its host runs nothing else; the next task is run."""
    other = _register(core, "registry.example.org.evil.example/model:1", max_attempts="1")
    with own_agent(stack, tmp_path, "choosy", IMAGE_ALLOW=f"{images.repository}/*") as agent:
        failure = api.failure(other, INPUT)
        assert failure["reason"] == "image_unavailable"
        assert "IMAGE_ALLOW" in failure["message"]
        assert not agent.said("image.pulled")
        assert api.wait(api.post(copying, INPUT)).status_code == 200
