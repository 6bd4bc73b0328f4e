"""Model images for tests, made on the spot without any registry: a busybox whose command is a script."""

import json
import secrets

from demo.image import busybox_tar, docker

APPLETS = (
    *("cat", "chmod", "cp", "cut", "date", "dd", "echo", "find", "head", "id", "ip", "ln", "ls", "mkdir", "mkfifo"),
    *("mknod", "mv", "nc", "printf", "rm", "seq", "sh", "sha256sum", "sleep", "sort", "tail", "test", "touch", "tr"),
    *("true", "wc", "wget", "yes"),
)


class Images:
    """One image for each script; `remove` takes all of them away. Their names are this run's own."""

    def __init__(self, docker_host: str) -> None:
        self._docker_host = docker_host
        self._repository = f"inference-server-test-{secrets.token_hex(4)}"
        self._tags: dict[tuple[str, ...], str] = {}
        self._tar = busybox_tar(APPLETS)

    def running(self, script: str, *, user: str = "", folder: str = "") -> str:
        """The tag of an image whose own command is this shell script."""
        if (script, user, folder) not in self._tags:
            tag = f"{self._repository}/model-{len(self._tags)}:1"
            changes = ["--change", f"CMD {json.dumps(['/bin/sh', '-c', script])}"]
            changes += ["--change", f"USER {user}"] if user else []
            changes += ["--change", f"WORKDIR {folder}"] if folder else []
            docker(self._docker_host, "import", *changes, "-", tag, stdin=self._tar)
            self._tags[script, user, folder] = tag
        return self._tags[script, user, folder]

    def remove(self) -> None:
        if self._tags:
            docker(self._docker_host, "image", "rm", "--force", *self._tags.values())
            self._tags.clear()
