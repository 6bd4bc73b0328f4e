"""`python -m tests.bench NAME`: medians and ranges; costs as ratios to a control of the same run, interleaved."""

import argparse
import sys

from tests.bench import overhead, recovery

BENCHES = {"overhead": overhead.run, "recovery": recovery.run}


def main() -> int:
    parser = argparse.ArgumentParser(prog="just bench", description=__doc__)
    parser.add_argument("name", choices=sorted(BENCHES), help="what to measure")
    parser.add_argument("--rounds", type=int, default=20, help="how often each is measured (default: 20)")
    arguments = parser.parse_args()
    return BENCHES[arguments.name](arguments.rounds)


if __name__ == "__main__":
    sys.exit(main())
