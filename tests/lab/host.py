"""A Docker host on this machine: a network namespace and an engine of its own.

Its ports, bridges and firewall rules meet nobody else's, and nothing of the machine's own network is changed: the way
out, which builds need, is slirp4netns, a process. /run is the host's own, too, and with it the engine's usual socket.
"""

import ctypes
import json
import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from demo import engine
from demo.supervision import SEARCH_PATH
from tests.lacking import cannot_run, needs_root
from tests.waiting import eventually

PROGRAMS: Final = ("ip", "nsenter", "unshare", "setpriv", "slirp4netns", "dockerd", "containerd", "runc", "iptables")
NAME_SERVER: Final = "10.0.2.3"
"""slirp4netns's own; it asks those of the machine."""

OWN_RUN_AND_NAME: Final = 'mount -t tmpfs -o mode=755 tmpfs /run && hostname "$0" && exec "$@"'
IN_MEMORY: Final = "/run/engine"
"""For an engine that starts with nothing and leaves nothing: to delete thousands of files takes a disk minutes."""

STOP_SECONDS: Final = 60
CLONE_NEWNET: Final = 0x40000000


class Host:
    """Its engine keeps everything in `folder`, but for /run, which is memory and goes with the engine.

    `docker_host` works from everywhere; a command that is to meet the host's ports needs `run`, or a thread `entered`.
    The engine takes `registries` without TLS. One that is `in_memory` has nothing in its folder but its log.
    """

    def __init__(
        self, folder: Path, name: str = "lab", *, registries: Sequence[str] = (), in_memory: bool = False
    ) -> None:
        self.folder = folder
        self.name = name
        self.log = folder / "dockerd.log"
        self.namespace = f"lab-{secrets.token_hex(4)}"
        self._registries = registries
        self._data = IN_MEMORY if in_memory else str(folder / "data")
        self._engine: subprocess.Popen[bytes] | None = None

    @property
    def docker_host(self) -> str:
        return f"unix://{self.folder}/docker.sock"

    @contextmanager
    def up(self) -> Iterator["Host"]:
        """The host, with its engine, for as long as the context lasts; then nothing of it is left."""
        needs_root("make a host of its own")
        if missing := [program for program in PROGRAMS if shutil.which(program, path=SEARCH_PATH) is None]:
            cannot_run(f"not installed: {', '.join(missing)}")
        self.folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["ip", "netns", "add", self.namespace], check=True)
        try:
            subprocess.run(["ip", "-n", self.namespace, "link", "set", "lo", "up"], check=True)
            with self._way_out():
                self.start()
                try:
                    yield self
                finally:
                    self.kill()
        finally:
            subprocess.run(["ip", "netns", "delete", self.namespace], check=True)
            engine.unmount_below(self.folder)
            shutil.rmtree(self.folder)

    def start(self) -> None:
        """Start the engine and wait until it answers."""
        config = self.folder / "daemon.json"
        config.write_text(
            json.dumps({"insecure-registries": [*self._registries]})
        )  # the machine's isn't for this engine
        dockerd = (
            "dockerd",
            *("--config-file", str(config), "--data-root", self._data, "--log-level", "warn"),
            *("--host", "unix:///run/docker.sock", "--host", self.docker_host),
            *("--dns", NAME_SERVER, "--shutdown-timeout", "5"),
        )
        unshared = ("unshare", "--mount", "--uts", "--propagation", "private")
        with_own_run = (*unshared, "sh", "-c", OWN_RUN_AND_NAME, self.name)
        in_network = ("nsenter", f"--net=/run/netns/{self.namespace}", "--")
        with self.log.open("ab") as log:
            self._engine = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *in_network, *with_own_run, *dockerd],
                env={**os.environ, "PATH": SEARCH_PATH},
                stdout=log,
                stderr=log,
            )
        try:
            eventually(lambda: engine.answers(self.docker_host))
        except AssertionError:
            raise AssertionError(f"no engine; the end of its log:\n{self.log.read_text()[-2000:]}") from None

    def stop(self) -> None:
        """Stop the engine, and with it all containers."""
        if self._engine is not None:
            self._engine.send_signal(signal.SIGTERM)
            try:
                self._engine.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._engine.kill()  # else what it has mounted keeps all of the host from going
                self._engine.wait()
                raise
            finally:
                self._engine = None

    def kill(self) -> None:
        """Stop the engine, which would wait for each container as long as the container's own grace period is."""
        if self._engine is not None:
            self.run("sh", "-c", "docker kill $(docker ps --quiet)", timeout_seconds=STOP_SECONDS)
            self.stop()

    def run(
        self, *command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout_seconds: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """A command on the host; what it said is in the answer, whether or not it failed."""
        assert self._engine is not None, "a host is there while its engine runs"
        environment = {**os.environ, **(env or {}), "DOCKER_HOST": self.docker_host}
        within = ("nsenter", f"--target={self._engine.pid}", "--net", "--mount", "--uts", f"--wdns={cwd or '/'}", "--")
        return subprocess.run(
            [*within, *command], env=environment, capture_output=True, text=True, timeout=timeout_seconds
        )

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread's new connections are made on this host, and so are those of what it starts."""
        with entered(self.namespace):
            yield

    @contextmanager
    def _way_out(self) -> Iterator[None]:
        ready, tell = os.pipe()
        command = ("slirp4netns", "--configure", "--mtu=65520", "--disable-host-loopback", f"--ready-fd={tell}")
        with (self.folder / "slirp4netns.log").open("wb") as log:
            process = subprocess.Popen(
                [
                    "setpriv",
                    "--pdeathsig",
                    "KILL",
                    *command,
                    "--netns-type=path",
                    f"/run/netns/{self.namespace}",
                    "tap0",
                ],
                pass_fds=[tell],
                stdout=log,
                stderr=log,
            )
        os.close(tell)
        try:
            with os.fdopen(ready, "rb") as told:
                assert told.read(1), f"slirp4netns did not start: {(self.folder / 'slirp4netns.log').read_text()}"
            yield
        finally:
            process.terminate()
            process.wait(timeout=STOP_SECONDS)


@contextmanager
def entered(namespace: str) -> Iterator[None]:
    """The calling thread is in the network of this name."""
    with Path("/proc/thread-self/ns/net").open() as home, Path(f"/run/netns/{namespace}").open() as there:
        _set_network(there.fileno())
        try:
            yield
        finally:
            _set_network(home.fileno())


def _set_network(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
