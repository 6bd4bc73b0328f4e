"""The Docker engine that runs the models: the machine's own, or a private one where there is none."""

import http.client
import os
import shutil
import socket
import subprocess
from pathlib import Path

from demo.supervision import SEARCH_PATH, Program

MACHINE_SOCKET = "unix:///var/run/docker.sock"
TRY_SECONDS = 5.0


class NoEngineError(Exception):
    """No Docker engine answers, and none can be started."""


class PrivateEngine:
    """A dockerd and its containerd that keep everything in two folders of their own.

    They make no bridge and no firewall rule, so they meddle with no other engine; containers run without network.
    containerd is ours too because dockerd would otherwise share the machine's, if its socket exists.
    """

    def __init__(self, folder: Path, runtime: Path) -> None:
        self._folder = folder / "docker"
        self._runtime = runtime
        self._containerd_socket = runtime / "containerd.sock"
        self._socket = runtime / "docker.sock"

    @property
    def docker_host(self) -> str:
        return f"unix://{self._socket}"

    def programs(self, *, stage: int) -> list[Program]:
        config = self._folder / "containerd.toml"
        self._folder.mkdir(parents=True, exist_ok=True)
        config.write_text(
            "version = 2\n"
            f'root = "{self._folder / "containerd"}"\n'
            f'state = "{self._runtime / "containerd"}"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            '[debug]\nlevel = "warn"\n'
            f'[grpc]\naddress = "{self._containerd_socket}"\n'
        )
        daemon_json = self._folder / "daemon.json"
        daemon_json.write_text("{}\n")  # the machine's isn't for this engine
        containerd = ("containerd", "--config", str(config))
        dockerd = (
            "dockerd",
            *("--host", self.docker_host),
            *("--data-root", str(self._folder / "data")),
            *("--exec-root", str(self._runtime / "docker")),
            *("--pidfile", str(self._runtime / "docker.pid")),
            *("--containerd", str(self._containerd_socket)),
            *("--config-file", str(daemon_json)),
            *("--bridge", "none"),
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            *("--shutdown-timeout", "5"),
            *("--log-level", "warn"),
        )
        return [
            Program("containerd", containerd, {}, self._folder, stage, 10, self._containerd_listens),
            Program("dockerd", dockerd, {}, self._folder, stage + 1, 20, self.answers),
        ]

    def answers(self) -> bool:
        return answers(self.docker_host)

    def _containerd_listens(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            return connection.connect_ex(str(self._containerd_socket)) == 0


def machine_engine() -> str | None:
    """The DOCKER_HOST of an engine that answers on this machine."""
    candidate = os.environ.get("DOCKER_HOST") or MACHINE_SOCKET
    return candidate if answers(candidate) else None


def can_start_private_one() -> bool:
    return os.geteuid() == 0 and all(
        shutil.which(program, path=SEARCH_PATH) for program in ("dockerd", "containerd", "runc")
    )


def answers(docker_host: str) -> bool:
    """One ping of the engine's API; an engine that can only be reached over ssh or TLS counts as absent."""
    scheme, _, address = docker_host.partition("://")
    connection = http.client.HTTPConnection("localhost" if scheme == "unix" else address, timeout=TRY_SECONDS)
    try:
        if scheme == "unix":
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(TRY_SECONDS)
            connection.sock.connect(address)
        connection.request("GET", "/_ping")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def unmount_below(folder: Path) -> None:
    """What an engine that was killed left mounted would otherwise be in the way of deleting the folder."""
    # Fields are separated by blanks and the fifth is the mount point, in which a blank is written as \\040.
    mounted = [line.split()[4].replace("\\040", " ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed([mount for mount in mounted if Path(mount).is_relative_to(folder)]):
        subprocess.run(["umount", "--lazy", mount], check=True)
