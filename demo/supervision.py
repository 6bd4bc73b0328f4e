"""supervisord, as the stack uses it: a generated configuration, its own socket, and nothing that outlives it.

Each program is started through `setpriv --pdeathsig TERM`: when supervisord dies, however hard, its programs are told
to end. What it runs carries a mark in its environment, so that the next start can wait for the last of them.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from supervisor.xmlrpc import SupervisorTransport  # type: ignore[import-untyped]

START_SECONDS = 10
STOP_SECONDS = 90
KILL_SECONDS = 10
POLL_SECONDS = 0.05
MARK = "INFERENCE_SERVER_STACK"
# Nothing else of the caller's shell gets in: a stray REDIS_URL or RABBITMQ_NODENAME would change what is started.
INHERITED = ("HOME", "USER", "LANG", "LC_ALL", "TZ", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


# A user's PATH may lack where distributions put servers.
SEARCH_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


class SupervisorError(Exception):
    """supervisord didn't start, or refused a call."""


@dataclass(frozen=True)
class Program:
    """One process to keep running."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]
    directory: Path
    stage: int  # the lowest starts first; on the way down the highest stops first
    stop_seconds: int  # between SIGTERM and SIGKILL
    is_ready: Callable[[], bool] | None = None  # one short try; None: when it has stayed up for a second
    restarts: bool = True  # when it ends by itself


@dataclass(frozen=True)
class ProcessStatus:
    name: str
    state: str  # supervisord's word: RUNNING, STARTING, STOPPED, BACKOFF, FATAL
    pid: int | None
    up_seconds: int


class Supervisor:
    """One supervisord with its configuration, log and pid file in `folder` and its socket in `runtime`.

    `runtime` is apart because a socket's path has to be short. As a daemon supervisord outlives the process that
    started it; otherwise it ends with it.
    """

    def __init__(self, folder: Path, runtime: Path, *, daemon: bool) -> None:
        self.config = folder / "supervisord.conf"
        self.logs = folder / "logs"
        self._mark = str(folder)
        self._pid_file = folder / "supervisord.pid"
        self._log = self.logs / "supervisord.log"
        self._socket = runtime / "supervisor.sock"
        self._daemon = daemon
        self._child: subprocess.Popen[bytes] | None = None

    def answers(self) -> bool:
        try:
            self._call("getState")
        except OSError:
            return False
        return True

    def launch(self, programs: Sequence[Program]) -> None:
        """Start supervisord; its programs wait for `start`."""
        self.logs.mkdir(parents=True, exist_ok=True)
        self.config.write_text(self.render(programs))
        self._socket.unlink(missing_ok=True)  # a killed supervisord's
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        environment = {**inherited, "PATH": SEARCH_PATH, MARK: self._mark}
        command = [sys.executable, "-m", "supervisor.supervisord", "--configuration", str(self.config)]
        if not self._daemon:
            command = ["setpriv", "--pdeathsig", "TERM", "--", *command, "--nodaemon", "--silent"]
        child = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )
        if self._daemon:
            child.wait(START_SECONDS)
        else:
            self._child = child
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if time.monotonic() > deadline or child.poll():
                raise SupervisorError(f"supervisord didn't start; its log is {self._log}")
            time.sleep(POLL_SECONDS)

    def shutdown(self) -> None:
        """Stop all programs in order and supervisord; return when nothing that it started is left."""
        try:
            self._call("shutdown")
        except OSError:
            # A supervisord that is gone can't stop what it had only just started, before setpriv took hold.
            self._signal_left(signal.SIGTERM)
        if not self._all_gone(within_seconds=STOP_SECONDS):
            self._signal_left(signal.SIGKILL)
            if not self._all_gone(within_seconds=KILL_SECONDS):
                raise SupervisorError(f"processes {self.processes_left()} survive SIGKILL")
        if self._child is not None:
            self._child.wait()
            self._child = None
        self._pid_file.unlink(missing_ok=True)

    def died_hard(self) -> bool:
        """Whether a supervisord of this folder is gone without having put things in order."""
        return self._pid_file.exists() and not self.answers()

    def processes_left(self) -> list[int]:
        """Processes of this folder's supervisord, itself included, whether or not it still lives.

        Not Redis, which writes its title over its environment: when supervisord is killed, the port shows it.
        """
        mark = f"{MARK}={self._mark}".encode()
        left = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # gone meanwhile, or another user's
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    left.append(int(folder.name))
        return left

    def _signal_left(self, signal_number: int) -> None:
        for pid in self.processes_left():
            with suppress(ProcessLookupError):
                os.kill(pid, signal_number)

    def _all_gone(self, *, within_seconds: float) -> bool:
        deadline = time.monotonic() + within_seconds
        while self.processes_left():
            if time.monotonic() > deadline:
                return False
            if self._child is not None:
                self._child.poll()  # reaps it
            time.sleep(POLL_SECONDS)
        return True

    def start(self, name: str) -> None:
        self._call("startProcess", name, False)

    def stop(self, name: str) -> None:
        """Stop the program and wait until it is gone."""
        self._call("stopProcess", name, True)

    def status(self) -> list[ProcessStatus]:
        infos = cast(list[dict[str, str | int]], self._call("getAllProcessInfo"))
        return [
            ProcessStatus(
                name=str(info["name"]),
                state=str(info["statename"]),
                pid=int(info["pid"]) or None,
                up_seconds=int(info["now"]) - int(info["start"]) if info["pid"] else 0,
            )
            for info in infos
        ]

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def program_logs(self) -> list[Path]:
        return sorted(path for path in self.logs.glob("*.log") if path != self._log)

    def render(self, programs: Sequence[Program]) -> str:
        return "\n".join([self._render_daemon(), *(self._render_program(program) for program in programs)])

    def _render_daemon(self) -> str:
        return f"""\
[supervisord]
logfile={_escaped(self._log)}
logfile_maxbytes=1MB
logfile_backups=1
pidfile={_escaped(self._pid_file)}
childlogdir={_escaped(self.logs)}
{"user=root" if os.geteuid() == 0 else ""}

[unix_http_server]
file={_escaped(self._socket)}
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
"""

    def _render_program(self, program: Program) -> str:
        command = ["setpriv", "--pdeathsig", "TERM", "--", *program.command]
        environment = ",".join(f"{name}={_quoted(value)}" for name, value in program.environment.items())
        return f"""\
[program:{program.name}]
command={_escaped(shlex.join(command))}
environment={environment}
directory={_escaped(program.directory)}
priority={program.stage}
autostart=false
autorestart={str(program.restarts).lower()}
startsecs=1
startretries=3
stopwaitsecs={program.stop_seconds}
stopasgroup=false
killasgroup=true
redirect_stderr=true
stdout_logfile={_escaped(self.log(program.name))}
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=1
"""

    def _call(self, method: str, *arguments: str | bool) -> object:
        transport = SupervisorTransport(serverurl=f"unix://{self._socket}")
        try:
            proxy = xmlrpc.client.ServerProxy("http://supervisor", transport=transport)
            return getattr(proxy.supervisor, method)(*arguments)
        except xmlrpc.client.Fault as fault:
            raise SupervisorError(f"{method}{arguments}: {fault.faultString}") from fault
        finally:
            transport.close()


def _escaped(value: object) -> str:
    """supervisord expands %, and takes what follows a blank and ; or # for a comment."""
    text = str(value)
    if any(forbidden in text for forbidden in ("\n", " ;", " #")):
        raise ValueError(f"supervisord's configuration can't carry {text!r}")
    return text.replace("%", "%%")


def _quoted(value: str) -> str:
    """A value of `environment=`, whose quotes know no escapes."""
    quote = "'" if '"' in value else '"'
    if quote in value:
        raise ValueError(f"supervisord's configuration can't carry {value!r}")
    return f"{quote}{_escaped(value)}{quote}"
