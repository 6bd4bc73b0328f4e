"""`python -m tests.gpu` checks the whole system on this machine's NVIDIA GPUs, with containers that compute on them.

It needs root, nvcc, redis-server, rabbitmq-server and a Docker engine that gives GPUs to containers; docs/gpus.md says
how a machine without network gets them. The exit code is 0 when every check passed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from demo import engine
from demo.ports import Ports
from demo.stack import Stack
from tests.gpu import checks
from tests.gpu.lab import Lab
from tests.gpu.report import Report


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument(
        "--report",
        type=Path,
        default=Path("gpus.md"),
        help="Markdown, appended to; the logs go beside it (default: gpus.md)",
    )
    parser.add_argument("--rounds", type=int, default=15, help="how often the cost of a task is measured (default: 15)")
    arguments = parser.parse_args()
    docker_host = engine.machine_engine()
    if docker_host is None:
        sys.exit("No Docker engine answers: start one, or set DOCKER_HOST")
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        stack = Stack(
            Path(folder) / "stack",
            Ports.free(),
            agents=2,
            own_settings={checks.CPU_AGENT: {"GPU_UUID": "none", "WORK_DIR": f"{folder}/cpu"}},
            docker_host=docker_host,
        )
        report = Report(arguments.report)
        try:
            stack.up()
            checks.run(Lab(stack, Path(folder)), report, rounds=arguments.rounds)
        finally:
            logs = (f"=== {log.name}\n{log.read_text(errors='replace')}" for log in stack.logs())
            arguments.report.with_suffix(".log").write_text("\n".join(logs))
            stack.down()
            stack.delete()
    return report.end()


if __name__ == "__main__":
    sys.exit(main())
