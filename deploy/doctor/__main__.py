"""`python -m deploy.doctor`: exits with 1 if something is broken, with 0 if all works, warnings or not."""

import argparse
import json
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from deploy.doctor import certificate, docker, host, ports, services, settings
from deploy.doctor.finding import Finding, Level, broken
from deploy.doctor.site import Site

Check = Callable[[Site], Iterator[Finding]]

CHECKS: Final[Mapping[str, Check]] = {
    "settings": settings.env,
    "secrets": settings.secrets,
    "certificate": certificate.check,
    "inside": certificate.inner,
    "engine": docker.engine,
    "compose": docker.compose,
    "gpus": docker.gpus,
    "swarm": docker.swarm,
    "ports": ports.check,
    "disk": host.disk,
    "memory": host.memory,
    "clock": host.clock,
    "services": services.containers,
    "answers": services.answers,
    "redis": services.redis,
    "rabbitmq": services.rabbitmq,
    "agents": services.agents,
}
CHECK_SECONDS: Final = 45.0
"""The longest that a check's own deadlines add up to; a disk that hangs knows none."""

_COLOURS: Final = {Level.OK: "32", Level.WARNING: "33", Level.BROKEN: "1;31"}
_INDENT: Final = " " * 24
_WIDTH: Final = 120


@dataclass(frozen=True)
class Row:
    check: str
    finding: Finding


def examine(site: Site) -> list[Row]:
    """All checks at once, each for itself: one that fails or hangs is a finding, and keeps nobody else from looking."""
    found: dict[str, list[Finding]] = {name: [] for name in CHECKS}
    threads = {
        name: threading.Thread(target=_collect, args=(check, site, found[name]), name=name, daemon=True)
        for name, check in CHECKS.items()
    }
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + CHECK_SECONDS
    for name, thread in threads.items():
        thread.join(max(deadline - time.monotonic(), 0))
        if thread.is_alive():
            found[name].append(
                broken(f"no end after {CHECK_SECONDS:g} seconds", "something hangs: a disk, or the engine")
            )
    return [Row(name, finding) for name in CHECKS for finding in found[name]]


def _collect(check: Check, site: Site, found: list[Finding]) -> None:
    try:
        found.extend(check(site))
    except PermissionError as error:
        found.append(broken(f"{error.filename} isn't yours to read", "sudo just doctor"))
    except Exception as error:  # noqa: BLE001 - the others are still worth saying
        found.append(broken(f"the check itself failed: {error!r}", "tell whoever maintains InferenceServer"))


def shown(rows: Sequence[Row], *, coloured: bool) -> Iterator[str]:
    """The worst last, where the eye is when it has scrolled by."""
    for row in sorted(rows, key=lambda row: list(Level).index(row.finding.level)):
        level = f"{row.finding.level:<9}"
        if coloured:
            level = f"\033[{_COLOURS[row.finding.level]}m{level}\033[0m"
        [first, *rest] = textwrap.wrap(row.finding.seen, _WIDTH - len(_INDENT), break_on_hyphens=False) or [""]
        yield f"{level}{row.check:<15}{first}"
        yield from (f"{_INDENT}{line}" for line in rest)
        if row.finding.fix:
            yield f"{_INDENT}→ {row.finding.fix}"  # unbroken, to be copied
    count = {level: sum(row.finding.level is level for row in rows) for level in Level}
    yield ""
    yield f"broken: {count[Level.BROKEN]}, warnings: {count[Level.WARNING]}, ok: {count[Level.OK]}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="just doctor", description="Look at this host and this set-up.")
    parser.add_argument("--json", action="store_true", help="for scripts: a list of check, level, seen, fix")
    arguments = parser.parse_args()
    rows = examine(Site())
    if arguments.json:
        json.dump([{"check": row.check, **asdict(row.finding)} for row in rows], sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        for line in shown(rows, coloured=sys.stdout.isatty()):
            sys.stdout.write(f"{line}\n")
    return int(any(row.finding.level is Level.BROKEN for row in rows))


if __name__ == "__main__":
    sys.exit(main())
