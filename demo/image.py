"""The example model's image, built without an image registry."""

import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "passthrough"
BASE_TAG = "inference-server/busybox:local"
TAG = "inference-server/passthrough:1"
APPLETS = ("cat", "cp", "echo", "find", "ls", "mkdir", "sh", "sha256sum", "sleep", "sort", "wc")


class ImageError(Exception):
    """The image could not be made; the message is Docker's."""


def build(docker_host: str) -> str:
    """Build the example as its Dockerfile says, on a base image made of this machine's busybox. The image's tag."""
    if not _exists(docker_host, BASE_TAG):
        docker(docker_host, "import", "-", BASE_TAG, stdin=busybox_tar(APPLETS))
    docker(docker_host, "build", "--quiet", "--build-arg", f"BASE={BASE_TAG}", "--tag", TAG, str(EXAMPLE))
    return TAG


def remove(docker_host: str) -> None:
    for tag in (TAG, BASE_TAG):
        if _exists(docker_host, tag):
            docker(docker_host, "image", "rm", tag)


def _exists(docker_host: str, tag: str) -> bool:
    return bool(docker(docker_host, "images", "--quiet", tag).strip())


def busybox_tar(applets: Sequence[str]) -> bytes:
    """The file system of an image: a statically linked busybox and links to it."""
    busybox = shutil.which("busybox")
    if busybox is None:
        raise ImageError("there is no busybox; install the package busybox-static")
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        binary = tar.gettarinfo(str(Path(busybox).resolve()), "bin/busybox")
        binary.mode = 0o755
        with Path(busybox).open("rb") as file:
            tar.addfile(binary, file)
        for applet in applets:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        scratch = tarfile.TarInfo("tmp")
        scratch.type, scratch.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(scratch)
    return buffer.getvalue()


def docker(docker_host: str, *arguments: str, stdin: bytes = b"") -> str:
    """What the command says; ImageError when it fails."""
    # The classic builder: it is always there, and takes its base from the engine without asking a registry.
    environment = {**os.environ, "DOCKER_HOST": docker_host, "DOCKER_BUILDKIT": "0"}
    done = subprocess.run(["docker", *arguments], env=environment, input=stdin, capture_output=True, check=False)
    if done.returncode:
        raise ImageError(f"docker {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout.decode()
