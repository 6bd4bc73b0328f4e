"""This host: disks, memory, clock, kernel."""

import ctypes
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from deploy.doctor.finding import Finding, broken, ok, warning
from deploy.doctor.site import Site, size
from gpu_agent.settings import Settings as Agent

MiB: Final = 2**20
MIN_FREE_MB: Final = Agent.model_fields["min_free_mb"].default
FULL_PERCENT: Final = 85
CLOCK_APART: Final = timedelta(seconds=5)
_UNSYNCHRONISED: Final = 0x40
"""STA_UNSYNC of adjtimex(2), in the status word behind a padded int and four longs."""

_STATUS_OFFSET: Final = 40
_TIMEX_BYTES: Final = 256


@dataclass(frozen=True)
class Disk:
    total: int
    free: int
    free_inodes: int | None
    """None where the file system has no fixed number of them."""


def disk(site: Site) -> Iterator[Finding]:
    """Of the agent's folder, of the engine's, which has the images and Redis's volume."""
    min_free_mb = int(value) if (value := site.setting("MIN_FREE_MB")).isdecimal() else MIN_FREE_MB
    work_dir = Path(site.setting("WORK_DIR") or "/")
    yield judge_disk(
        f"WORK_DIR {work_dir}",
        _look_at(work_dir),
        needed_mb=min_free_mb,
        fix="make room there, or set WORK_DIR in .env to a folder on a larger disk; then `just up`",
    )
    root = Path(site.engine_info.get("DockerRootDir", ""))
    if not root.is_absolute() or not root.exists():
        return  # no engine, or one on another host
    maxmemory = size(site.setting("REDIS_MAXMEMORY")) or 0
    yield judge_disk(
        f"the engine's {root}",
        _look_at(root),
        needed_mb=min_free_mb,
        fix="`docker system df` shows what takes the room, `docker image prune && docker builder prune` makes some",
    )
    yield judge_redis_disk(_look_at(root), maxmemory)


def judge_disk(name: str, disk: Disk, *, needed_mb: int, fix: str) -> Finding:
    percent = 100 - 100 * disk.free // max(disk.total, 1)
    seen = f"{name}: {percent} % full, {disk.free // MiB} MiB free"
    if disk.free_inodes == 0:
        return broken(f"{name}: has no inodes left", fix)
    if disk.free < needed_mb * MiB:
        return broken(f"{seen}; with less than {needed_mb} an agent takes no tasks", fix)
    return warning(seen, fix) if percent >= FULL_PERCENT else ok(seen)


def judge_redis_disk(disk: Disk, maxmemory: int) -> Finding:
    """The append-only file reaches one and a half times the data, and is written anew beside the old one."""
    needed = maxmemory * 5 // 2
    seen = f"Redis's volume: {disk.free // MiB} MiB free for up to {maxmemory // MiB} MiB of data"
    if disk.free < needed:
        return warning(
            f"{seen}, which may take {needed // MiB} on the disk", "a larger disk, or a smaller REDIS_MAXMEMORY"
        )
    return ok(seen)


def _look_at(folder: Path) -> Disk:
    """As much of the path as there is: the engine makes the rest."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    figures = os.statvfs(there)
    return Disk(
        total=figures.f_blocks * figures.f_frsize,
        free=figures.f_bavail * figures.f_frsize,
        free_inodes=figures.f_ffree if figures.f_files else None,
    )


def memory(site: Site) -> Iterator[Finding]:
    figures = {
        name: int(rest.split()[0]) * 1024
        for name, _, rest in (line.partition(":") for line in (site.proc / "meminfo").read_text().splitlines())
    }
    maxmemory, limit = size(site.setting("REDIS_MAXMEMORY")), size(site.setting("REDIS_MEMORY_LIMIT"))
    yield judge_memory(figures["MemTotal"], figures["MemAvailable"], maxmemory, limit)
    swapped = figures["SwapTotal"] - figures["SwapFree"]
    if swapped > figures["SwapTotal"] // 2:
        yield warning(
            f"{swapped // MiB} MiB are swapped out: what runs here needs more memory than there is",
            "`top -o SWAP` shows whose",
        )
    yield from judge_kernel_memory(
        overcommit=(site.proc / "sys/vm/overcommit_memory").read_text().strip(), huge_pages=_huge_pages()
    )


def judge_memory(total: int, available: int, maxmemory: int | None, limit: int | None) -> Finding:
    host = f"{total // MiB} MiB, {available // MiB} available"
    if not maxmemory:
        return ok(f"{host}; REDIS_MAXMEMORY isn't set")
    seen = f"REDIS_MAXMEMORY is {maxmemory // MiB} MiB, the host has {host}"
    half, three_quarters = f"{total // 2 // MiB}mb", f"{total * 3 // 4 // MiB}mb"
    advice = f"`REDIS_MAXMEMORY={half}` and `REDIS_MEMORY_LIMIT={three_quarters}` in .env; then `just up`"
    if maxmemory >= total:
        return broken(seen, advice)
    if limit and limit <= maxmemory:
        return broken(
            f"REDIS_MEMORY_LIMIT, {limit // MiB} MiB, is not above REDIS_MAXMEMORY: Redis is killed before it is full",
            f"`REDIS_MEMORY_LIMIT={maxmemory * 3 // 2 // MiB}mb` in .env; then `just up`",
        )
    if limit and limit < maxmemory * 5 // 4:
        return warning(
            f"REDIS_MEMORY_LIMIT, {limit // MiB} MiB, leaves Redis little room to rewrite its file",
            f"`REDIS_MEMORY_LIMIT={maxmemory * 3 // 2 // MiB}mb` in .env; then `just up`",
        )
    return warning(seen, advice) if max(maxmemory, limit or 0) > total * 9 // 10 else ok(seen)


def judge_kernel_memory(*, overcommit: str, huge_pages: str) -> Iterator[Finding]:
    """What Redis warns of in its own log."""
    if overcommit != "1":
        yield warning(
            f"vm.overcommit_memory is {overcommit}: when memory is scarce, Redis can't rewrite its file",
            "`echo vm.overcommit_memory=1 | sudo tee /etc/sysctl.d/redis.conf && sudo sysctl --system`",
        )
    if "[always]" in huge_pages:
        yield warning(
            "transparent huge pages are on: Redis takes more memory and time while it rewrites its file",
            "`echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled`, now and at each boot",
        )


def _huge_pages() -> str:
    file = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    return file.read_text() if file.exists() else ""


def clock(site: Site) -> Iterator[Finding]:
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: asks, and sets nothing
    state = ctypes.CDLL(None, use_errno=True).adjtimex(timex)
    [status] = struct.unpack_from("i", timex, _STATUS_OFFSET)
    yield judge_clock(is_synchronised=state >= 0 and not status & _UNSYNCHRONISED)
    if engine_time := site.engine_info.get("SystemTime"):
        yield from judge_apart(datetime.fromisoformat(engine_time), datetime.now(UTC))


def judge_clock(*, is_synchronised: bool) -> Finding:
    now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if is_synchronised:
        return ok(f"{now}, synchronised")
    return warning(
        f"{now}, and nothing keeps it right: certificates, and the times in tasks, hang on it",
        "`sudo timedatectl set-ntp true`, or `sudo apt-get install chrony`",
    )


def judge_apart(engine: datetime, here: datetime) -> Iterator[Finding]:
    """Of an engine on another host; this one's has the same clock."""
    if abs(engine - here) > CLOCK_APART:
        yield broken(
            f"the engine's clock is {abs(engine - here).total_seconds():.0f} s off this one", "set both by NTP"
        )
