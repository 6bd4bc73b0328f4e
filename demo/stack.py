"""The whole system on one machine, without an image registry: what `just demo` and the tests start.

Redis, RabbitMQ, core, gateway, agents and, where the machine has none, a Docker engine run as processes of a
supervisord. All they keep is in one folder; they listen on 127.0.0.1 only.
"""

import hashlib
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from demo import engine, ready
from demo.ports import Ports
from demo.servers import Servers
from demo.supervision import POLL_SECONDS, ProcessStatus, Program, Supervisor
from tls import certs

REPOSITORY = Path(__file__).resolve().parent.parent
READY_SECONDS = 60
CRASH_GRACE_SECONDS = 20  # what processes of a killed supervisord get to end
LONGEST_FOLDER = 60  # characters; a socket's path may have 107, and the engine makes some 40 below its folder
LOG_LINES = 15
# With the allocator's own thresholds, megabytes that come and go cost twice the CPU time.
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": "67108864", "MALLOC_MMAP_THRESHOLD_": "67108864"}

# Programs of one stage start together, when the stage before is ready.
_BELOW, _SERVERS, _CORE, _FRONT = range(4)


class NotReadyError(Exception):
    """A process didn't become ready; the message ends with the last lines of its log."""


class Stack:
    """One stack in one folder.

    `settings` go into the environment of core, gateway and agents, `own_settings` (by name) into that of one of them.
    Of several `cores` the n-th is named core-n and listens on 127.0.0.n. `docker_host` None means: the machine's engine
    if one answers, else a private one; with `own_engine` a private one wherever it can be started. `certificates` None
    means: made in the folder. A `daemon` stack stays when the process that called `up` ends; another one ends with the
    thread that called it, so call from the main thread. `only` names the programs to start when not all are wanted.
    `rabbitmq_settings` are of its application, as Erlang has them. `servers` take the place of one Redis and one
    RabbitMQ.
    """

    def __init__(
        self,
        folder: Path,
        ports: Ports,
        *,
        cores: int = 1,
        agents: int = 1,
        settings: Mapping[str, str] | None = None,
        own_settings: Mapping[str, Mapping[str, str]] | None = None,
        docker_host: str | None = None,
        own_engine: bool = False,
        certificates: Path | None = None,
        daemon: bool = False,
        only: Sequence[str] | None = None,
        rabbitmq_settings: Mapping[str, int] | None = None,
        servers: Servers | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.ports = ports
        self.certificates = certs.Certificates(certificates or self.folder / "certs")
        self.token_file = self.folder / "core.token"
        self._cores = cores
        self._agents = agents
        self._settings = dict(settings or {})
        self._own_settings = dict(own_settings or {})
        self._docker_host = docker_host
        self._own_engine = own_engine
        self._only = only
        self.servers = servers or Servers(ports, dict(rabbitmq_settings or {}))
        # Tells this stack's agents from another's on the same engine: an agent removes what carries its name.
        self._id = hashlib.sha256(str(self.folder).encode()).hexdigest()[:8]
        self._runtime = self._short_folder()
        self._engine = engine.PrivateEngine(self.folder, self._runtime)
        self._supervisor = Supervisor(self.folder, self._runtime, daemon=daemon)

    @property
    def gateway_url(self) -> str:
        return f"https://localhost:{self.ports.gateway}"

    @property
    def core_url(self) -> str:
        return f"http://127.0.0.1:{self.ports.core}"

    def metrics_url(self, name: str) -> str:
        """Of a gateway or an agent whose own settings have a METRICS_PORT."""
        return f"http://127.0.0.1:{self._own_settings[name]['METRICS_PORT']}/metrics"

    @property
    def redis_url(self) -> str:
        return self.servers.redis_url

    @property
    def rabbitmq_url(self) -> str:
        return self.servers.rabbitmq_url

    @property
    def work_dirs(self) -> set[Path]:
        """Where the agents keep their files."""
        return {self._work_dir(name) for name in self._agent_names}

    @property
    def docker_host(self) -> str:
        """The engine that the agents use."""
        if self._docker_host is None:
            self._docker_host = self._find_engine()
        return self._docker_host

    def up(self) -> None:
        """Start what doesn't run, and wait until all of it is ready. If that fails, nothing that it started stays.

        Raises NotReadyError; engine.NoEngineError; certs and supervision errors.
        """
        programs = self._programs()
        if self._supervisor.answers() and self._supervisor.config.read_text() != self._supervisor.render(programs):
            self.down()  # it runs from an older definition
        launched = not self._supervisor.answers()
        try:
            if launched:
                self._wait_for_ports()
                self._supervisor.launch(programs)
            for stage in sorted({program.stage for program in programs}):
                self._start([program for program in programs if program.stage == stage])
                if stage == _SERVERS:
                    self.servers.join()
        except BaseException:
            if launched:
                self.down()
            raise

    def down(self) -> None:
        """Stop what `up` started, and only that; its ports are free afterwards. The data stays."""
        self._supervisor.shutdown()

    def delete(self) -> None:
        """Delete all data of a stack that is down."""
        for folder in (self._runtime, self.folder):
            if folder.exists():
                engine.unmount_below(folder)
                shutil.rmtree(folder)

    def is_up(self) -> bool:
        return self._supervisor.answers()

    def status(self) -> list[ProcessStatus]:
        return self._supervisor.status() if self.is_up() else []

    def pid(self, name: str) -> int:
        """The process of `name`; LookupError when it doesn't run."""
        for process in self.status():
            if process.name == name and process.pid is not None:
                return process.pid
        raise LookupError(f"{name} doesn't run")

    def log(self, name: str) -> Path:
        return self._supervisor.log(name)

    def logs(self) -> list[Path]:
        return self._supervisor.program_logs()

    def start(self, name: str) -> None:
        """Start one process and wait until it is ready."""
        [program] = [program for program in self._programs() if program.name == name]
        self._start([program])

    def stop(self, name: str) -> None:
        """SIGTERM, and SIGKILL when it takes too long; it stays stopped until `start`."""
        self._supervisor.stop(name)

    def restart(self, name: str) -> None:
        self.stop(name)
        self.start(name)

    def _programs(self) -> list[Program]:
        self._prepare()
        programs = [
            *self.servers.programs(self.folder, below=_BELOW, stage=_SERVERS),
            *(self._core(number) for number in range(1, self._cores + 1)),
            self._gateway(),
            *(self._agent(name) for name in self._agent_names),
        ]
        if self._only is not None:
            programs = [program for program in programs if program.name in self._only]
        has_agents = any(program.name.startswith("agent-") for program in programs)
        if has_agents and self.docker_host == self._engine.docker_host:
            programs += self._engine.programs(stage=_BELOW)
        return programs

    @property
    def _agent_names(self) -> list[str]:
        return [f"agent-{number}" for number in range(1, self._agents + 1)]

    def _core(self, number: int) -> Program:
        host = f"127.0.0.{number}"
        environment = {
            "CORE_HOST": host,
            "CORE_PORT": str(self.ports.core),
            "REDIS_URL": self.redis_url,
            "RABBITMQ_URL": self.rabbitmq_url,
        }
        probe = partial(ready.is_healthy, self.ports.core, host=host)
        name = "core" if number == 1 else f"core-{number}"
        return self._service(name, "core", environment, stage=_CORE, stop_seconds=35, is_ready=probe)

    def _gateway(self) -> Program:
        environment = {
            "GATEWAY_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.ports.gateway),
            "CORE_URL": self.core_url,
            "TLS_CERT_FILE": str(self.certificates.cert),
            "TLS_KEY_FILE": str(self.certificates.key),
        }
        probe = partial(ready.is_healthy, self.ports.gateway, ca_cert=self.certificates.ca_cert)
        return self._service("gateway", "gateway", environment, stage=_FRONT, stop_seconds=35, is_ready=probe)

    def _work_dir(self, agent: str) -> Path:
        """One for all agents without one of their own, as on a host: they share the models."""
        return Path(self._own_settings.get(agent, {}).get("WORK_DIR", self.folder / "work"))

    def _agent(self, name: str) -> Program:
        environment = {
            "CORE_URL": self.core_url,
            "RABBITMQ_URL": self.rabbitmq_url,
            "AGENT_NAME": f"{name}.{self._id}",
            "WORK_DIR": str(self._work_dir(name)),
            "DOCKER_HOST": self.docker_host,
            "CPU_SLOTS": "1",
            "DRAIN_SECONDS": "10",
        }
        return self._service(name, "gpu_agent", environment, stage=_FRONT, stop_seconds=60)

    def _service(
        self,
        name: str,
        package: str,
        environment: Mapping[str, str],
        *,
        stage: int,
        stop_seconds: int,
        is_ready: Callable[[], bool] | None = None,
    ) -> Program:
        common = {"CORE_TOKEN_FILE": str(self.token_file), "PYTHONUNBUFFERED": "1", **ALLOCATOR}
        return Program(
            name=name,
            command=(sys.executable, "-m", package),
            environment={**environment, **common, **self._settings, **self._own_settings.get(name, {})},
            directory=REPOSITORY,
            stage=stage,
            stop_seconds=stop_seconds,
            is_ready=is_ready,
        )

    def _prepare(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # the tasks' data is nobody else's
        self._runtime.mkdir(mode=0o700, exist_ok=True)
        if self._runtime.stat().st_uid != os.geteuid():
            raise PermissionError(f"{self._runtime} belongs to somebody else")
        certs.ensure(self.certificates.folder, "localhost")
        with suppress(FileExistsError):
            descriptor = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe() + "\n")

    def _short_folder(self) -> Path:
        """Where sockets go: in the folder, or in a private temporary one when the folder's path is too long."""
        if len(str(self.folder)) <= LONGEST_FOLDER:
            return self.folder / "run"
        return Path(tempfile.gettempdir()) / f"inference-server-{self._id}"

    def _find_engine(self) -> str:
        if self._engine.answers() or (self._own_engine and engine.can_start_private_one()):
            return self._engine.docker_host
        if found := engine.machine_engine():
            return found
        if engine.can_start_private_one():
            return self._engine.docker_host
        raise engine.NoEngineError(
            "No Docker engine answers. Start one, or let this user reach it (group docker, or DOCKER_HOST)."
        )

    def _wait_for_ports(self) -> None:
        """After a crash the last processes may still be on their way out; else a taken port is somebody else's."""
        patience = 0
        if self._supervisor.died_hard():
            self._supervisor.shutdown()
            patience = CRASH_GRACE_SECONDS
        deadline = time.monotonic() + patience
        while taken := [*self.ports.taken(), *self.servers.ports_taken()]:
            if time.monotonic() > deadline:
                raise NotReadyError(f"ports {taken} are in use by processes that aren't this stack's")
            time.sleep(POLL_SECONDS)

    def _start(self, programs: Sequence[Program]) -> None:
        """Start those that don't run, then wait for each."""
        states = {process.name: process.state for process in self.status()}
        for program in programs:
            if states[program.name] not in ("RUNNING", "STARTING", "BACKOFF"):
                self._supervisor.start(program.name)
        deadline = time.monotonic() + READY_SECONDS
        for program in programs:
            while not self._is_ready(program):
                if time.monotonic() > deadline or self._state(program.name) == "FATAL":
                    raise NotReadyError(self._complaint(program.name))
                time.sleep(POLL_SECONDS)

    def _is_ready(self, program: Program) -> bool:
        return program.is_ready() if program.is_ready else self._state(program.name) == "RUNNING"

    def _state(self, name: str) -> str:
        return next(process.state for process in self.status() if process.name == name)

    def _complaint(self, name: str) -> str:
        log = self.log(name)
        lines = log.read_text(errors="replace").splitlines()[-LOG_LINES:] if log.exists() else []
        quoted = "\n".join(f"  {line}" for line in lines)
        return f"{name} isn't ready ({self._state(name)}); the end of {log}:\n{quoted}"
