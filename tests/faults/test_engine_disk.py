"""An engine whose own disk is full: a stack of its own, whose engine keeps everything on a small file system."""

import io
import os
import secrets
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.image import docker
from demo.ports import Ports
from demo.stack import Stack
from tests.e2e import registry
from tests.e2e.api import Api
from tests.e2e.conftest import COPY, INPUT
from tests.images import Images
from tests.lacking import needs_root

MiB = 2**20
DISK_MB = 32


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    needs_root("mount a small disk and start an engine on it")
    folder = tmp_path_factory.mktemp("small")
    disk = folder / "docker" / "data"
    disk.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "small", str(disk)], check=True)
    stack = Stack(folder, Ports.free(), agents=1, settings={"MIN_FREE_MB": "8"}, own_engine=True)
    try:
        stack.up()
        yield stack
    finally:
        stack.down()
        stack.delete()


@pytest.fixture(scope="module")
def client(small: Stack) -> Iterator[Api]:
    client = Api.public(small.gateway_url, small.certificates.ca_cert)
    with client.session:
        yield client


def _register(small: Stack, tag: str) -> str:
    name = f"model-{secrets.token_hex(4)}"
    parameters = {"human_readable_id": name, "container_tag": tag, "use_gpu": "false", "max_attempts": "1"}
    operator = Api.private(small.core_url, small.token_file.read_text().strip())
    with operator.session:
        operator.call("POST", "/api/models/", params=parameters).raise_for_status()
    return name


def _large() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        noise = tarfile.TarInfo("noise")
        noise.size = 2 * DISK_MB * MiB
        tar.addfile(noise, io.BytesIO(os.urandom(noise.size)))
    return buffer.getvalue()


def test_a_container_that_fills_the_disk(small: Stack, client: Api) -> None:
    """With files of its own, which go with it: the disk was full when it failed. The next task finds room."""
    images = Images(small.docker_host)
    filling, copying = (_register(small, images.running(script)) for script in ("yes > /tmp/x", COPY))
    assert client.failure(filling, INPUT)["reason"] == "disk_full"
    assert client.wait(client.post(copying, INPUT)).status_code == 200


def test_an_image_that_doesnt_fit(stack: Stack, small: Stack, client: Api, tmp_path: Path) -> None:
    """It can be had elsewhere: the disk is named, not the image."""
    with registry.running(tmp_path) as host:
        tag = f"{host}/large:1"
        docker(stack.docker_host, "import", "-", tag, stdin=_large())
        docker(stack.docker_host, "push", "--quiet", tag)
        docker(stack.docker_host, "image", "rm", tag)
        assert client.failure(_register(small, tag), INPUT)["reason"] == "disk_full"
        assert docker(small.docker_host, "images", "--quiet", tag) == ""
