"""Stand-ins for the official images that ours are built on and compose starts, made of Debian 13's packages.

They are what the official ones are to those who use them: the same commands, folders, users, and the same way from root
to the server's own user. What they aren't: as small, and of the same version to the last digit.
"""

import fcntl
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from demo import engine
from demo.stack import REPOSITORY
from tests.lacking import cannot_run, needs_root

KEPT_IN: Final = REPOSITORY / ".tools" / "lab"
SUITE: Final = "trixie"
CA_BUNDLE: Final = Path("/etc/ssl/certs/ca-certificates.crt")

# As the official images: root gives the data folder to the server's user and becomes that user. Redis's keeps what it
# writes to itself, and gives away nothing where a file lies that it doesn't know.
_REDIS_ENTRYPOINT: Final = """\
#!/bin/sh
set -e
[ "$(umask)" != 0022 ] || umask 0077
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
  unknown=$(find . -mindepth 1 -maxdepth 1 ! -name '*.rdb' ! -name appendonlydir -print -quit)
  [ -n "$unknown" ] || find . ! -user redis -exec chown redis '{}' +
  exec setpriv --reuid=redis --regid=redis --clear-groups "$0" "$@"
fi
exec "$@"
"""
_RABBITMQ_ENTRYPOINT: Final = """\
#!/bin/sh
set -e
if [ "$1" = rabbitmq-server ] && [ "$(id -u)" = 0 ]; then
  find /var/lib/rabbitmq ! -user rabbitmq -exec chown rabbitmq '{}' +
  exec setpriv --reuid=rabbitmq --regid=rabbitmq --clear-groups "$0" "$@"
fi
exec "$@"
"""


@dataclass(frozen=True)
class Base:
    """The official image of this name, whatever its tag."""

    name: str
    packages: Sequence[str]
    changes: Sequence[str] = ()
    entrypoint: str = ""
    data: str = ""
    """The folder of the user that has the base's name."""


BASES: Final = (
    Base("python", ("python3", "python3-pip", "python3-venv"), ('CMD ["python"]',)),
    Base(
        "redis",
        ("redis-server",),
        ("VOLUME /data", "WORKDIR /data", 'ENTRYPOINT ["docker-entrypoint.sh"]', 'CMD ["redis-server"]'),
        _REDIS_ENTRYPOINT,
        "/data",
    ),
    Base(
        "rabbitmq",
        ("rabbitmq-server",),
        (
            "VOLUME /var/lib/rabbitmq",
            "ENV HOME=/var/lib/rabbitmq RABBITMQ_LOGS=-",
            "ENV PATH=/usr/lib/rabbitmq/bin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            'ENTRYPOINT ["docker-entrypoint.sh"]',
            'CMD ["rabbitmq-server"]',
        ),
        _RABBITMQ_ENTRYPOINT,
        "/var/lib/rabbitmq",
    ),
)


def archive_of(tag: str) -> tuple[Path, Sequence[str]]:
    """What `docker import` needs for a stand-in of `tag`: the archive, and the changes. Made once a machine."""
    [base] = [base for base in BASES if base.name == tag.partition(":")[0]]
    archive = KEPT_IN / f"{base.name}-{sha256(repr(base).encode()).hexdigest()[:8]}.tar"
    with _alone():
        if not archive.exists():
            _make(base, archive)
    return archive, [f"--change={change}" for change in base.changes]


def load(docker_host: str, tag: str) -> None:
    """Make the stand-in known to an engine under the official image's tag."""
    archive, changes = archive_of(tag)
    subprocess.run(
        ["docker", "--host", docker_host, "import", *changes, str(archive), tag], check=True, stdout=subprocess.DEVNULL
    )


def compose_plugin() -> Path:
    """A DOCKER_CONFIG folder with Compose v2, which Debian 12 lacks."""
    config = KEPT_IN / "docker"
    plugin = config / "cli-plugins" / "docker-compose"
    with _alone():
        if not plugin.exists():
            root = _debian()
            _within(root, "cd /tmp && apt-get -qq download docker-compose && dpkg --extract docker-compose_*.deb found")
            plugin.parent.mkdir(parents=True, exist_ok=True)
            (root / "tmp/found/usr/libexec/docker/cli-plugins/docker-compose").replace(plugin)
            _within(root, "rm -rf /tmp/*")
    return config


@contextmanager
def _alone() -> Iterator[None]:
    """Tests run several at a time, and what is kept is made once."""
    KEPT_IN.mkdir(parents=True, exist_ok=True)
    with (KEPT_IN / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _debian() -> Path:
    """A root folder with a bare Debian 13, its package lists and this machine's certificates."""
    root = KEPT_IN / SUITE
    if root.exists():
        return root
    needs_root("make base images")
    if shutil.which("debootstrap") is None:
        cannot_run("not installed: debootstrap")
    new = root.with_suffix(".new")
    if new.exists():
        _remove(new)
    new.mkdir(parents=True)
    try:
        _run("debootstrap", "--variant=minbase", "--include=ca-certificates", SUITE, str(new))
    finally:
        engine.unmount_below(new)  # cut short it leaves /proc
    shutil.copy(CA_BUNDLE, new / CA_BUNDLE.relative_to("/"))
    _within(new, "apt-get -qq update")
    new.rename(root)
    return root


def _make(base: Base, archive: Path) -> None:
    root = KEPT_IN / f"{base.name}.new"
    if root.exists():
        _remove(root)
    _run("cp", "--archive", str(_debian()), str(root))
    packages = " ".join(base.packages)
    _within(root, f"DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends {packages}")
    _within(root, "apt-get clean; rm -rf /var/lib/apt/lists/* /usr/lib/python3*/EXTERNALLY-MANAGED")
    if (root / "usr/bin/python3").exists():
        (root / "usr/bin/python").symlink_to("python3")
    if base.entrypoint:
        entrypoint = root / "usr/local/bin/docker-entrypoint.sh"
        entrypoint.write_text(base.entrypoint)
        entrypoint.chmod(0o755)
    if base.data:
        _within(root, f"install --directory --owner={base.name} {base.data}")
    new = archive.with_suffix(".new")
    with tarfile.open(new, "w") as tar:
        tar.add(root, arcname=".")
    shutil.rmtree(root)
    new.rename(archive)


def _remove(root: Path) -> None:
    """What was cut short may have /proc and more mounted still."""
    engine.unmount_below(root)
    shutil.rmtree(root)


def _within(root: Path, script: str) -> None:
    _run("chroot", str(root), "sh", "-ec", script)


def _run(*command: str) -> None:
    environment = {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
