"""Model images for tests, made on the spot without any registry: a busybox whose command is a script."""

import io
import json
import re
import secrets
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

from demo.image import busybox_tar, docker

APPLETS = (
    *("cat", "chmod", "cp", "cut", "date", "dd", "echo", "find", "head", "id", "ip"),
    *("ln", "ls", "mkdir", "mkfifo", "mknod", "mount", "mv", "nc", "printf", "rm", "seq", "sh"),
    *("sha256sum", "sleep", "sort", "sysctl", "tail", "test", "touch", "tr", "true"),
    *("wc", "wget", "yes"),
)


class Images:
    """One image for each script; `remove` takes all of them away. Their names are this run's own."""

    def __init__(self, docker_host: str) -> None:
        self._docker_host = docker_host
        self.repository = f"inference-server-test-{secrets.token_hex(4)}"
        self._tags: dict[tuple[object, ...], str] = {}
        self._tar = busybox_tar(APPLETS)

    def running(
        self, script: str, *, user: str = "", folder: str = "", programs: Sequence[str] = (), mode: int = 0o755
    ) -> str:
        """The tag of an image whose own command is this shell script. `programs` are this machine's, with this mode."""
        key = script, user, folder, *programs, mode
        if key not in self._tags:
            tag = f"{self.repository}/model-{len(self._tags)}:1"
            changes = ["--change", f"CMD {json.dumps(['/bin/sh', '-c', script])}"]
            changes += ["--change", f"USER {user}"] if user else []
            changes += ["--change", f"WORKDIR {folder}"] if folder else []
            docker(self._docker_host, "import", *changes, "-", tag, stdin=_with_programs(self._tar, programs, mode))
            self._tags[key] = tag
        return self._tags[key]

    def remove(self) -> None:
        if self._tags:
            docker(self._docker_host, "image", "rm", "--force", *self._tags.values())
            self._tags.clear()


def _with_programs(tar: bytes, programs: Sequence[str], mode: int) -> bytes:
    """And with the libraries that they are linked with, all in the places that they have here."""
    buffer = io.BytesIO(tar)
    with tarfile.open(fileobj=buffer, mode="a") as image:
        for program in programs:
            path = shutil.which(program)
            assert path is not None, f"{program} is not installed"
            linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
            for file in (path, *re.findall(r"(/\S+) \(0x", linked)):
                entry = image.gettarinfo(str(Path(file).resolve()), file.lstrip("/"))
                entry.mode = mode
                with Path(file).open("rb") as content:
                    image.addfile(entry, content)
    return buffer.getvalue()
