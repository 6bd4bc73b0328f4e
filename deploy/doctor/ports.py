"""The two ports that the set-up listens on, and who else may."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from deploy.doctor.finding import Finding, broken, ok
from deploy.doctor.site import Site
from deploy.ports import listening

_NAMES: Final = ("HTTPS_PORT", "OPERATOR_PORT")
_UNIT: Final = re.compile(r"/system\.slice/([^/\n]+\.service)")


@dataclass(frozen=True)
class Process:
    pid: int
    name: str
    unit: str = ""
    """The systemd unit that it belongs to."""


def check(site: Site) -> Iterator[Finding]:
    for name in _NAMES:
        if port := site.port(name):
            ours = any(
                port in container.ports and container.status == "running" for container in site.containers.values()
            )
            others = _publishers(site, port) if site.engine.is_well else []
            inodes = listening(site.proc).get(port)
            process = _owner(site.proc, inodes) if inodes else None
            yield judge(name, port, is_ours=ours, is_free=not inodes, containers=others, process=process)


def judge(
    name: str, port: int, *, is_ours: bool, is_free: bool, containers: list[str], process: Process | None
) -> Finding:
    if is_ours:
        return ok(f"{name} {port}: ours")
    elsewhere = f"or set {name} in .env to a free port; then `just up`"
    if containers:
        return broken(
            f"{name} {port}: taken by the container {containers[0]}", f"`docker stop {containers[0]}`, {elsewhere}"
        )
    if is_free:
        return ok(f"{name} {port}: free")
    if process is None:
        return broken(
            f"{name} {port}: taken by another user's process", f"`sudo just doctor` says by which; {elsewhere}"
        )
    stop = f"sudo systemctl disable --now {process.unit}" if process.unit else f"sudo kill {process.pid}"
    return broken(f"{name} {port}: taken by {process.name}, pid {process.pid}", f"`{stop}`, {elsewhere}")


def _publishers(site: Site, port: int) -> list[str]:
    return site.run("docker", "ps", "--filter", f"publish={port}", "--format", "{{.Names}}").out.split()


def _owner(proc: Path, inodes: set[str]) -> Process | None:
    sockets = {f"socket:[{inode}]" for inode in inodes}
    for folder in proc.glob("[0-9]*"):
        with suppress(OSError):  # gone meanwhile, or another user's
            if any(str(link.readlink()) in sockets for link in (folder / "fd").iterdir()):
                unit = _UNIT.search((folder / "cgroup").read_text())
                return Process(int(folder.name), (folder / "comm").read_text().strip(), unit[1] if unit else "")
    return None
