"""Many requests: wrk, one thread of it, with connections that are kept alive and never pause."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("wrk.lua")
MICROSECONDS = 1e6
TIMEOUT_SECONDS = 10


class NoWrkError(Exception):
    """wrk isn't installed."""


@dataclass(frozen=True)
class Load:
    """What is sent. One of `paths` at random for each request."""

    url: str
    paths: Sequence[str]
    folder: Path
    """For a file of the paths, and one of the body."""
    method: str = "GET"
    body: bytes = b""
    content_type: str = ""


@dataclass(frozen=True)
class Answered:
    requests: int
    seconds: float
    p50_seconds: float
    p99_seconds: float
    not_ok: int
    """Answers with a status above 399."""

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def wrk(load: Load, *, connections: int, seconds: int) -> Answered:
    if shutil.which("wrk") is None:
        raise NoWrkError("wrk isn't installed; on Debian or Ubuntu: apt-get install wrk")
    paths = load.folder / "wrk.paths"
    paths.write_text("".join(f"{path}\n" for path in load.paths))
    arguments = [load.method, str(paths)]
    if load.body:
        body = load.folder / "wrk.body"
        body.write_bytes(load.body)
        arguments += [str(body), load.content_type]
    command = ["wrk", "--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
    command += ["--timeout", f"{TIMEOUT_SECONDS}s", "--latency", "--script", str(SCRIPT), load.url, "--", *arguments]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    [figures] = [line.split()[1:] for line in said.splitlines() if line.startswith("figures")]
    requests, duration, p50, p99, not_ok, broken = map(int, figures)
    assert requests, said
    assert not broken, said
    return Answered(requests, duration / MICROSECONDS, p50 / MICROSECONDS, p99 / MICROSECONDS, not_ok)
