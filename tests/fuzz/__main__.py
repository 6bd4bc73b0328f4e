"""`python -m tests.fuzz`: exit code 0 when nothing was found."""

import argparse
import base64
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.fuzz.run import Plan, Result, fuzz
from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="just fuzz", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"all, or some of: {', '.join(TARGETS)}")
    bound = parser.add_mutually_exclusive_group()
    bound.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    bound.add_argument("--runs", type=int, help="for each target and process, instead of seconds")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time (default: 1)")
    parser.add_argument("--seed", type=int, help="of the mutations (default: another one each time)")
    parser.add_argument("--folder", type=Path, default=Path(".run/fuzz"), help="corpus and finds (default: .run/fuzz)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="only check what this file holds; needs no atheris")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(TARGETS):
        parser.error(f"there is no {', '.join(sorted(unknown))}: choose from {', '.join(TARGETS)}")
    names = asked.names or list(TARGETS)
    if asked.replay:
        for name in names:
            TARGETS[name].check(asked.replay.read_bytes())
        return 0
    seconds = asked.seconds if asked.runs is None else None
    plan = Plan(asked.folder.resolve(), seconds=seconds, runs=asked.runs, jobs=asked.jobs, seed=asked.seed)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing that was started stays
    try:
        results = [fuzz(name, plan) for name in names]
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    print(as_text(results))
    return int(not all(result.is_good for result in results))


def as_text(results: Iterable[Result]) -> str:
    lines = ["| target | executions | a second | coverage | corpus | finds |", "|---|---|---|---|---|---|"]
    for result in results:
        figures = (result.executions, round(result.executions / result.seconds), result.coverage, result.corpus)
        lines.append(f"| {result.name} | {' | '.join(f'{figure:,}' for figure in figures)} | {len(result.finds)} |")
    for result in results:
        lines += [f"\n{result.name} failed:\n{words}" for words in result.broken]
        lines += [f"\n{find.name} in Base64: {base64.b64encode(find.read_bytes()).decode()}" for find in result.finds]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
