"""`python -m tests.chaos`: exit code 0 when nothing was lost, wrong, doubled, stuck, failed or left behind."""

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from demo import engine
from tests.chaos import report
from tests.chaos.faults import KINDS, KINDS_ON_CLUSTERS
from tests.chaos.run import Plan, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="just chaos", description=__doc__)
    parser.add_argument("--tasks", type=int, default=150, help="how many (default: 150)")
    parser.add_argument("--minutes", type=float, default=4, help="over which they are posted (default: 4)")
    parser.add_argument("--seed", type=int, default=1, help="of the load and of the schedule of faults (default: 1)")
    parser.add_argument("--every", type=float, default=10, help="seconds from one fault to the next (default: 10)")
    parser.add_argument("--lease", type=float, default=20, help="LEASE_SECONDS (default: 20)")
    parser.add_argument("--clusters", action="store_true", help="on a Redis Cluster and a RabbitMQ cluster")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the whole result, with each task's history")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="where the logs of the processes are copied")
    asked = parser.parse_args()
    if not engine.can_start_private_one():
        parser.error("it kills the Docker engine, so it needs one of its own, which only root can start")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: nothing that was started stays
    kinds = KINDS_ON_CLUSTERS if asked.clusters else KINDS
    plan = Plan(asked.tasks, asked.minutes, asked.seed, kinds, asked.every, asked.lease, on_clusters=asked.clusters)
    try:
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            result = run(Path(folder) / "stack", plan, logs=asked.logs)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    print(report.as_text(result))
    if asked.json:
        asked.json.write_text(json.dumps(report.as_json(result), indent=1))
    return int(not result.is_good)


if __name__ == "__main__":
    sys.exit(main())
