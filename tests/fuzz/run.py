"""Fuzzing processes beside each other on one target, which share a corpus, and what came of them."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.fuzz.targets import TARGETS

INPUT_SECONDS: Final = 5
MEMORY_MB: Final = 1024
"""An input that takes more is a find."""

LATE_SECONDS: Final = 180
"""After its time a process that hasn't ended hangs."""

ROOT: Final = Path(__file__).parents[2]
SHARED_MEMORY: Final = Path("/dev/shm")

_EXECUTED: Final = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_COVERAGE: Final = re.compile(r"\bcov: (\d+)")


@dataclass(frozen=True)
class Plan:
    """Bounds are each process's; without any it fuzzes until it finds something."""

    folder: Path
    """A corpus for each target, from which it goes on, and `finds`."""
    seconds: int | None = None
    runs: int | None = None
    jobs: int = 1
    seed: int | None = None


@dataclass(frozen=True)
class Result:
    name: str
    executions: int
    seconds: float
    coverage: int
    """Branches of the Python code that reads, as the process counts them that saw most."""
    corpus: int
    """Inputs that each reached what no other did."""
    finds: list[Path]
    """This and earlier runs'."""
    broken: list[str]
    """How the logs end of processes that failed, by a find or for another reason."""

    @property
    def is_good(self) -> bool:
        return not self.finds and not self.broken


def fuzz(name: str, plan: Plan) -> Result:
    corpus, finds = plan.folder / name, plan.folder / "finds"
    for folder in (corpus, finds):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(TARGETS[name].seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    began = time.monotonic()
    with _place() as place:
        processes = [_start(name, plan, number, place) for number in range(plan.jobs)]
        try:
            codes = [_end(process, plan) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        said = [(place / str(number)).read_text(errors="replace") for number in range(plan.jobs)]
    return Result(
        name,
        executions=sum(int(count) for words in said for count in _EXECUTED.findall(words)),
        seconds=time.monotonic() - began,
        coverage=max((int(count) for words in said for count in _COVERAGE.findall(words)), default=0),
        corpus=len(list(corpus.iterdir())),
        finds=sorted(finds.glob(f"{name}-*")),
        broken=[words[-2000:] for code, words in zip(codes, said, strict=True) if code],
    )


@contextmanager
def _place() -> Iterator[Path]:
    """Where the processes write what goes with them: in memory, where they can."""
    parent = SHARED_MEMORY if os.access(SHARED_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=parent) as place:
        yield Path(place)


def _start(name: str, plan: Plan, number: int, place: Path) -> "subprocess.Popen[bytes]":
    """All of them read each other's corpus as it grows."""
    target = TARGETS[name]
    words = place / "words"
    words.write_text("".join(map(_quoted, target.words)))
    options = {
        "max_len": target.longest,
        "timeout": INPUT_SECONDS,
        "rss_limit_mb": MEMORY_MB,
        "print_final_stats": 1,
        "artifact_prefix": f"{plan.folder / 'finds' / name}-",
    }
    options |= {"dict": words} if target.words else {}
    options |= {"max_total_time": plan.seconds} if plan.seconds is not None else {}
    options |= {"runs": plan.runs} if plan.runs is not None else {}
    options |= {"seed": plan.seed + number} if plan.seed is not None else {}
    said = [f"-{option}={value}" for option, value in options.items()]
    with (place / str(number)).open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.process", name, *said, plan.folder / name],
            cwd=ROOT,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(path or str(ROOT) for path in sys.path),
                "TMPDIR": str(place),
            },
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _quoted(word: bytes) -> str:
    """As libFuzzer's dictionaries have it."""
    escaped = "".join(f"\\x{byte:02x}" for byte in word)
    return f'"{escaped}"\n'


def _end(process: "subprocess.Popen[bytes]", plan: Plan) -> int | None:
    """Its exit code; None when it had to be stopped."""
    try:
        return process.wait(None if plan.seconds is None else plan.seconds + LATE_SECONDS)
    except subprocess.TimeoutExpired:
        return None
