"""`python -m tests.bench [NAME...]`: what the system costs, beside what the same machine does without it.

Each figure stands beside a control that ran in turns with it; medians, with ranges in brackets. Load, servers and
controls share this machine's processors. docs/performance.md says how to read the table.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tests.bench import (
    drain,
    growth,
    listening,
    plot,
    recovery,
    requests_per_second,
    slow,
    table,
    transfers,
    turnaround,
    waiting,
)
from tests.bench.rig import Rig
from tests.bench.scale import Scale

BENCHES = {
    "turnaround": turnaround.rows,
    "drain": drain.rows,
    "transfers": transfers.rows,
    "polls": requests_per_second.polls,
    "posts": requests_per_second.posts,
    "waiting": waiting.rows,
    "listening": listening.rows,
    "slow": slow.rows,
    "growth": growth.rows,
}
RECOVERY = "recovery"


def main() -> int:
    parser = argparse.ArgumentParser(prog="just bench", description=__doc__)
    names = [*BENCHES, RECOVERY]
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"what to measure: {', '.join(names)}; all by default")
    parser.add_argument("--rounds", type=int, default=Scale.rounds, help="how often (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures of every round")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="where to draw the growth, as SVG")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    scale = replace(Scale(), rounds=arguments.rounds)
    rows: list[table.Row] = []
    try:
        for found in measured(arguments.names or names, scale):
            rows += found
    finally:  # what was measured before something broke
        _show(rows, json_file=arguments.json, plot_file=arguments.plot)
    return int(not all(row.holds for row in rows))


def _show(rows: list[table.Row], *, json_file: Path | None, plot_file: Path | None) -> None:
    print(
        f"{os.cpu_count()} processors, {platform.machine()}, Linux {platform.release()}; the load runs there as well\n"
    )
    print(table.as_text(rows))
    if json_file:
        json_file.write_text(json.dumps(table.as_json(rows), indent=1) + "\n")
    if plot_file and (sized := [row for row in rows if row.at and row.unit == "ms"]):
        plot_file.write_text(plot.as_svg(sized))


def measured(names: list[str], scale: Scale) -> Iterator[list[table.Row]]:
    """Bench after bench."""
    if benches := [name for name in names if name in BENCHES]:
        with Rig.up() as rig:
            for name in benches:
                print(f"{name} ...", file=sys.stderr)
                yield BENCHES[name](rig, scale)
    if RECOVERY in names:
        yield recovery.rows(scale)


if __name__ == "__main__":
    sys.exit(main())
