"""`just backup`, `just restore`: what Redis holds, and the set-up's files, in a folder that can be put elsewhere.

    FOLDER/dump.rdb        models, tasks, zips: a snapshot of one moment, taken while everything goes on
    FOLDER/set-up.tar      .env, secrets/, tls/certs/: on a new machine clients and scripts go on unchanged
    FOLDER/manifest.json   what there is, and the files' checksums

RabbitMQ has nothing to keep: it only rings, and what waits is rung again from Redis. Models' images aren't in it.
"""

import argparse
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from core.store import keys
from demo.stack import REPOSITORY
from deploy import preparation
from deploy.compose import (
    ENVIRONMENT,
    DeploymentError,
    check,
    compose,
    on_swarm,
    refuse_on_swarm,
    say,
    show_compose,
    volume,
)
from tls import certs

DATA: Final = "dump.rdb"
SET_UP: Final = "set-up.tar"
MANIFEST: Final = "manifest.json"
KEPT_IN: Final = REPOSITORY / "backups"
PARTS: Final = [str(path.relative_to(REPOSITORY)) for path in (ENVIRONMENT, preparation.SECRETS, certs.FOLDER)]
OF_SWARM: Final = "label=com.docker.swarm.service.name=inference-server_redis"
PAUSE_MS: Final = 5000
"""Writes wait while Redis counts and forks, a moment; should we die in between, they go on by themselves."""

POLL_SECONDS: Final = 0.2

_STAGE: Final = """
cd /data
rm -rf restored && mkdir restored
trap '[ $? = 0 ] || rm -rf restored' EXIT
cat >restored/appendonly.aof.1.base.rdb
echo 'file appendonly.aof.1.base.rdb seq 1 type b' >restored/appendonly.aof.manifest
redis-check-aof restored/appendonly.aof.manifest
chown -R redis:redis restored
"""
"""Redis with an append-only file never reads a dump.rdb: the snapshot becomes the base of such a file, which is of the
same format. Checked by Redis's own tool before anything goes. The image gives files to Redis's user only where it knows
them all.
"""

_INSTALL: Final = "cd /data; rm -rf appendonlydir temp-rewriteaof-*.aof; mv restored appendonlydir"


@dataclass(frozen=True)
class Held:
    """How much Redis holds."""

    models: int
    tasks: int

    @property
    def is_empty(self) -> bool:
        return self == Held(0, 0)

    def __str__(self) -> str:
        return f"{self.models} models and {self.tasks} tasks"


@dataclass(frozen=True)
class Manifest:
    taken: datetime
    redis_version: str
    held: Held
    files: Mapping[str, str]
    """Name → SHA-256."""

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Raises DeploymentError unless the folder is a whole backup, to the last byte."""
        try:
            said = json.loads((folder / MANIFEST).read_text())
            manifest = cls(
                datetime.fromisoformat(said["taken"]), said["redis_version"], Held(**said["held"]), said["files"]
            )
        except FileNotFoundError:
            raise DeploymentError(f"{folder} is no backup: it has no {MANIFEST}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise DeploymentError(f"{folder / MANIFEST} is damaged: {error}") from error
        for name, digest in manifest.files.items():
            path = folder / name
            if not path.exists() or sha256(path) != digest:
                raise DeploymentError(
                    f"{path} is {'damaged' if path.exists() else 'missing'}: restore from another backup"
                )
        return manifest

    def write(self, folder: Path) -> None:
        said = {**asdict(self), "taken": self.taken.isoformat()}
        (folder / MANIFEST).write_text(json.dumps(said, indent=1) + "\n")


class Redis:
    """The running one on this host, Compose's or the swarm's, through its container's own tools.

    Raises DeploymentError when there is none.
    """

    def __init__(self) -> None:
        if on_swarm():
            # The oldest: while one stops, the next one waits for the lock.
            [*_, self.container] = ["", *_docker("ps", "--quiet", "--filter", OF_SWARM).split()]
        else:
            self.container = compose("ps", "--quiet", "--status", "running", "redis").strip()
        if not self.container:
            raise DeploymentError(
                "The swarm's Redis doesn't run on this host: docker service ps inference-server_redis says where"
                if on_swarm()
                else "Redis doesn't run: just up starts it"
            )
        self._password = (preparation.SECRETS / "redis_password").read_text().strip()

    def ask(self, *lines: str) -> list[str]:
        """Each command's answer, in a line; raises DeploymentError in Redis's words."""
        command = ["docker", "exec", "--interactive", self.container, "sh", "-c"]
        script = "read -r REDISCLI_AUTH; export REDISCLI_AUTH; exec redis-cli $REDIS_CLI_TLS --no-auth-warning -e"
        told = "\n".join((self._password, *lines, ""))  # not in an argument, which all of the host could see
        done = subprocess.run(
            [*command, script], cwd=REPOSITORY, input=told, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise DeploymentError(f"Redis: {(done.stdout + done.stderr).strip()}")
        return done.stdout.splitlines()

    def held(self) -> Held:
        models, tasks = self.ask(f"HLEN {keys.MODELS}", f"ZCARD {keys.TASKS}")
        return Held(int(models), int(tasks))

    def info(self, section: str) -> dict[str, str]:
        return dict(line.split(":", 1) for line in self.ask(f"INFO {section}") if ":" in line)

    def snapshot(self) -> Held:
        """Writes /data/dump.rdb, over what an interrupted backup left; it holds exactly what the answer says."""
        self._wait_for_child()
        _, models, tasks, *_ = self.ask(
            f"CLIENT PAUSE {PAUSE_MS} WRITE", f"HLEN {keys.MODELS}", f"ZCARD {keys.TASKS}", "BGSAVE", "CLIENT UNPAUSE"
        )
        self._wait_for_child()
        if self.info("persistence")["rdb_last_bgsave_status"] != "ok":
            raise DeploymentError(
                "Redis couldn't write the snapshot: is there room on the engine's disk? just logs redis"
            )
        return Held(int(models), int(tasks))

    def _wait_for_child(self) -> None:
        """One process at a time writes: a snapshot, or the append-only file anew."""
        while True:
            state = self.info("persistence")
            if state["rdb_bgsave_in_progress"] == state["aof_rewrite_in_progress"] == "0":
                return
            time.sleep(POLL_SECONDS)


def backup(folder: Path) -> Manifest:
    """The folder appears when all of it is there and was verified, for nobody but its owner to read: it has patients'
    data and the keys to more.
    """
    _check()
    if folder.exists():
        raise DeploymentError(f"{folder} exists: name a folder that doesn't")
    redis = Redis()
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = folder.with_name(f".{folder.name}.unfinished")
    if new.exists():
        shutil.rmtree(new)  # of a backup that was interrupted
    new.mkdir(mode=0o700)
    try:
        taken, held = datetime.now(UTC), redis.snapshot()
        _docker("cp", f"{redis.container}:/data/{DATA}", str(new / DATA))
        _docker("exec", redis.container, "rm", f"/data/{DATA}")
        _feed(new / DATA, "exec", "--interactive", redis.container, "redis-check-rdb", "/dev/stdin")
        parts = [part for part in PARTS if (REPOSITORY / part).exists()]
        _tar("--create", new / SET_UP, *parts)
        files = {name: sha256(new / name) for name in (DATA, SET_UP)}
        manifest = Manifest(taken, redis.info("server")["redis_version"], held, files)
        manifest.write(new)
        _sync(new)
        new.rename(folder)
    except BaseException:
        shutil.rmtree(new)
        raise
    return manifest


def restore(folder: Path, *, yes: bool) -> Manifest:
    """Everything that Redis holds is replaced; .env, secrets and certificates come back only where they are missing.

    Raises DeploymentError before anything is touched when the backup isn't whole, or would replace data and nobody
    said yes.
    """
    manifest = Manifest.read(folder)
    _put_back_set_up(folder / SET_UP)
    _check()
    refuse_on_swarm("just restore is for a system of one host; docs/grow.md says how its data becomes a swarm's")
    preparation.derive()
    if not yes:
        _refuse_to_replace()
    in_volume = ("run", "--rm", "--no-deps", "-T", "--entrypoint", "sh", "redis", "-ec")
    _feed(folder / DATA, "compose", *in_volume, _STAGE)
    show_compose("down", "--remove-orphans")
    compose(*in_volume, _INSTALL)
    show_compose("up", "--detach", "--wait", "redis")
    if (held := Redis().held()) != manifest.held:
        raise DeploymentError(f"Redis has {held} instead of {manifest.held}: just logs redis")
    show_compose("up", "--detach", "--wait", "--build")
    return manifest


def _be_the_only_one() -> None:
    """Until this process ends: there is one snapshot at a time, and one name for what is being restored."""
    try:
        fcntl.flock(os.open(REPOSITORY, os.O_RDONLY), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DeploymentError("Another backup or restore is going on here: wait for its end") from None


def _check() -> None:
    check()
    if preparation.settings().get("REDIS_URL"):
        raise DeploymentError("REDIS_URL in .env names a Redis of your own: it has to be backed up where it runs")


def _refuse_to_replace() -> None:
    listed = subprocess.run(["docker", "volume", "ls", "--quiet"], capture_output=True, text=True, check=True).stdout
    if volume("redis") not in listed.split():
        return  # a new machine
    replace = "just restore FOLDER --yes replaces what is there"
    try:
        show_compose("up", "--detach", "--wait", "redis")
        held = Redis().held()
    except DeploymentError as error:
        raise DeploymentError(f"Nobody knows what would be replaced: {error}; {replace}") from error
    if not held.is_empty:
        raise DeploymentError(f"Redis holds {held}; {replace}")


def _feed(data: Path, *arguments: str) -> None:
    """To a tool of Redis's, which reads it to the end; raises DeploymentError in its words."""
    with data.open("rb") as stdin:
        done = subprocess.run(
            ["docker", *arguments], cwd=REPOSITORY, stdin=stdin, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise DeploymentError(f"Redis refuses {data}, and nothing was changed: {(done.stdout + done.stderr)[-2000:]}")


def _docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise DeploymentError(f"docker {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def _put_back_set_up(archive: Path) -> None:
    """Each part as a whole: secrets belong together, and so do a certificate and its key."""
    missing = [part for part in PARTS if not (REPOSITORY / part).exists()]
    if missing:
        _tar("--extract", archive, *missing)
        say(f"put back: {', '.join(missing)}")


def _tar(action: str, archive: Path, *parts: str) -> None:
    """With owners, as far as we may set them, and modes."""
    command = ["tar", "--preserve-permissions", action, "--file", str(archive), *parts]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DeploymentError(done.stderr.strip())


def _sync(folder: Path) -> None:
    for path in (*folder.iterdir(), folder):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.backup", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="write a backup")
    now = f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%SZ}"
    make.add_argument("folder", type=Path, nargs="?", default=KEPT_IN / now, help="a new one; backups/TIME by default")
    put_back = commands.add_parser("restore", help="replace what Redis holds by a backup")
    put_back.add_argument("folder", type=Path)
    put_back.add_argument("--yes", action="store_true", help="even if there are models or tasks")
    arguments = parser.parse_args()
    folder, started = arguments.folder.resolve(), time.monotonic()
    try:
        _be_the_only_one()
        if arguments.command == "make":
            manifest = backup(folder)
            size = sum(path.stat().st_size for path in folder.iterdir())
            say(
                f"{folder}: {manifest.held}, {size / 2**20:.1f} MiB, verified, after {time.monotonic() - started:.0f} s"
            )
        else:
            manifest = restore(folder, yes=arguments.yes)
            say(
                f"restored, and up after {time.monotonic() - started:.0f} s: {manifest.held} as of "
                f"{manifest.taken:%Y-%m-%d %H:%M:%S} UTC. What ran then is run again, because its lease has expired; "
                "what was posted, finished or deleted since is forgotten."
            )
    except DeploymentError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
