"""What supervisord keeps, ends with it, and what it is told arrives unchanged."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo.supervision import Program, Supervisor, SupervisorError

SLEEPER = ("sleep", "1000")


def program(folder: Path, *command: str, **environment: str) -> Program:
    return Program("it", command or SLEEPER, environment, folder, stage=0, stop_seconds=5)


def eventually(condition: Callable[[], bool], *, within_seconds: float = 15) -> None:
    deadline = time.monotonic() + within_seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path, tmp_path, daemon=False)
    yield supervisor
    supervisor.shutdown()
    assert supervisor.processes_left() == []


@pytest.mark.parametrize("value", ["", "100%", "%(here)s", "a,b=c", '{"a": 1}', "it's", "a;b#c", "häuser"])
def test_environment_arrives_unchanged(supervisor: Supervisor, tmp_path: Path, value: str) -> None:
    seen = tmp_path / "seen"
    write = f"import os, pathlib; pathlib.Path({str(seen)!r}).write_text(os.environ['VALUE'] + '.')"
    supervisor.launch([program(tmp_path, sys.executable, "-c", write, VALUE=value)])
    supervisor.start("it")
    eventually(lambda: seen.exists() and seen.read_text() == f"{value}.")


@pytest.mark.parametrize("value", ["two\nlines", "a ; b", "a # b", "\"'"])
def test_what_the_configuration_cannot_carry_is_refused(supervisor: Supervisor, tmp_path: Path, value: str) -> None:
    with pytest.raises(ValueError, match="can't carry"):
        supervisor.render([program(tmp_path, VALUE=value)])


@pytest.fixture
def killed(supervisor: Supervisor, tmp_path: Path) -> Supervisor:
    """A supervisord that was killed while its program runs."""
    supervisor.launch([program(tmp_path)])
    supervisor.start("it")
    [child] = [process.pid for process in supervisor.status()]
    eventually(lambda: Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"sleep"))
    [daemon] = [pid for pid in supervisor.processes_left() if pid != child]
    os.kill(daemon, signal.SIGKILL)
    return supervisor


def test_programs_end_when_supervisord_is_killed(killed: Supervisor) -> None:
    eventually(lambda: not killed.processes_left())
    assert killed.died_hard()


def test_what_a_killed_supervisord_left_is_put_right(killed: Supervisor, tmp_path: Path) -> None:
    killed.shutdown()
    assert not killed.died_hard()
    killed.launch([program(tmp_path)])
    assert killed.answers()


def test_nothing_outlives_a_killed_test_run(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path, tmp_path, daemon=False)
    script = f"""
import time
from pathlib import Path
from demo.supervision import Program, Supervisor
folder = Path({str(tmp_path)!r})
supervisor = Supervisor(folder, folder, daemon=False)
supervisor.launch([Program("it", {SLEEPER!r}, {{}}, folder, stage=0, stop_seconds=5)])
supervisor.start("it")
time.sleep(1000)
"""
    run = subprocess.Popen([sys.executable, "-c", script])
    eventually(lambda: supervisor.answers() and supervisor.status()[0].pid is not None)
    run.kill()
    run.wait()
    eventually(lambda: not supervisor.processes_left())


def test_a_daemon_outlives_who_started_it_until_shutdown(tmp_path: Path) -> None:
    Supervisor(tmp_path, tmp_path, daemon=True).launch([program(tmp_path)])
    another = Supervisor(tmp_path, tmp_path, daemon=True)
    another.start("it")
    assert another.status()[0].pid is not None
    another.shutdown()
    assert not another.answers()
    assert another.processes_left() == []


def test_an_unknown_program_is_an_error_of_ours(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.launch([program(tmp_path)])
    with pytest.raises(SupervisorError, match="BAD_NAME"):
        supervisor.start("another")
