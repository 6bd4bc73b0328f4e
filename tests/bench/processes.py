"""What processes cost, as the kernel counts it: CPU seconds and memory, each with all its descendants."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
TICK_SECONDS = 1 / TICKS_PER_SECOND
"""The least CPU time that can be told from none."""

PEAK = "5"
"""To /proc/PID/clear_refs: the peak begins anew at what is held now (proc_pid_clear_refs(5))."""


@dataclass(frozen=True)
class Processes:
    """By name. CPU seconds of children that have ended are in their parents'."""

    pids: Mapping[str, int]
    with_descendants: bool = True

    def cpu_seconds(self) -> dict[str, float]:
        return {name: sum(map(_cpu_seconds, family)) for name, family in self._families()}

    def resident_mib(self) -> dict[str, float]:
        return self._memory_mib("VmRSS")

    def peak_mib(self) -> dict[str, float]:
        return self._memory_mib("VmHWM")

    def forget_peaks(self) -> None:
        for _, family in self._families():
            for pid in family:
                Path(f"/proc/{pid}/clear_refs").write_text(PEAK)

    def workers(self, name: str) -> int:
        """How many of a family have no children: one that is alone, or those that a parent keeps."""
        children = _children()
        return sum(pid not in children for pid in _family(self.pids[name], children))

    def only(self, *names: str) -> "Processes":
        return Processes({name: self.pids[name] for name in names})

    def _memory_mib(self, line: str) -> dict[str, float]:
        return {name: sum(_status_kib(pid, line) for pid in family) / 1024 for name, family in self._families()}

    def _families(self) -> list[tuple[str, list[int]]]:
        children = _children() if self.with_descendants else {}
        return [(name, _family(pid, children)) for name, pid in self.pids.items()]


def this_process(name: str) -> Processes:
    """Alone: what is measured may be its child."""
    return Processes({name: os.getpid()}, with_descendants=False)


@dataclass
class Meter:
    """Adds up the CPU seconds that the processes used within `running`."""

    processes: Processes
    used: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def running(self) -> Iterator[None]:
        before = self.processes.cpu_seconds()
        yield
        self.used.update({name: seconds - before[name] for name, seconds in self.processes.cpu_seconds().items()})

    def per(self, units: float) -> dict[str, float]:
        return {name: seconds / units for name, seconds in self.used.items()}


def _children() -> dict[int, list[int]]:
    """Of every process."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended
            children.setdefault(int(_stat(int(folder.name))[1]), []).append(int(folder.name))
    return children


def _family(pid: int, children: Mapping[int, list[int]]) -> list[int]:
    members = [pid]
    for member in members:
        members += children.get(member, [])
    return members


def _cpu_seconds(pid: int) -> float:
    """utime, stime, cutime and cstime of proc_pid_stat(5)."""
    try:
        return sum(map(int, _stat(pid)[11:15])) / TICKS_PER_SECOND
    except OSError:
        return 0.0


def _stat(pid: int) -> list[str]:
    """The fields from the third on: the second is a name, which may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _status_kib(pid: int, line: str) -> int:
    with suppress(OSError):
        for found in Path(f"/proc/{pid}/status").read_text().splitlines():
            if found.startswith(f"{line}:"):
                return int(found.split()[1])
    return 0
