"""The system that is put under chaos: two cores, a gateway, three agents, and a proxy on each way between them."""

import subprocess
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from demo.ports import Ports
from demo.stack import Stack
from tests.clusters import Clusters
from tests.e2e.api import Api
from tests.images import Images
from tests.proxy import Proxies, Proxy
from tests.waiting import eventually

CORES = ("core", "core-2")
AGENTS = ("agent-1", "agent-2", "agent-3")
SLOTS = 2
"""Of an agent: most models sleep, and a probe should not have to wait for them."""

SMALL_DISK_AGENT = "agent-3"
SMALL_DISK_MB = 768
MIN_FREE_MB = 128
MODEL = "chaos"
SCRIPT = 'sleep "$(cat /input/seconds)"; cp -R /input/. /output/'
MAX_ATTEMPTS = 20
"""As many as a model may have, so that bad luck alone fails no task."""

RESTART_SECONDS = 60


@dataclass(frozen=True)
class System:
    """Everything that a fault may hit. `ending` is set when nothing should last any longer."""

    stack: Stack
    clusters: Clusters | None
    redis: Proxy
    rabbitmq: Proxy
    gateways_core: Proxy
    agents_core: Proxy
    small_disk: Path
    lease_seconds: float
    ending: threading.Event = field(default_factory=threading.Event)
    _held: dict[str, threading.Lock] = field(default_factory=lambda: defaultdict(threading.Lock))

    def alone(self, target: str) -> threading.Lock:
        """Faults of one target wait for each other; those of others may overlap."""
        return self._held[target]

    def last(self, seconds: float) -> None:
        """Returns early when the run ends."""
        self.ending.wait(seconds)

    def pid(self, name: str) -> int:
        """Of a process that may just be on its way back."""

        def found() -> int:
            try:
                return self.stack.pid(name)
            except LookupError:
                return 0

        return eventually(found, within_seconds=RESTART_SECONDS)

    @contextmanager
    def public(self) -> Iterator[Api]:
        api = Api.public(self.stack.gateway_url, self.stack.certificates.ca_cert)
        with api.session:
            yield api

    @contextmanager
    def private(self) -> Iterator[Api]:
        """Of a core, past the proxies."""
        api = Api.private(self.stack.core_url, self.stack.token_file.read_text().strip())
        with api.session:
            yield api


@contextmanager
def started(folder: Path, *, lease_seconds: float, on_clusters: bool = False) -> Iterator[System]:
    """Up, with the model registered. All of it is gone afterwards."""
    ports = Ports.free()
    clusters = Clusters(ports) if on_clusters else None
    small_disk = folder / "small-disk"
    with Proxies() as proxies:
        redis = proxies.to(("127.0.0.1", ports.redis))
        rabbitmq = proxies.to(("127.0.0.1", ports.rabbitmq))
        gateways_core, agents_core = (
            proxies.to(*((f"127.0.0.{number}", ports.core) for number in range(1, len(CORES) + 1))) for _ in range(2)
        )
        # Clusters tell their clients their own addresses, past any proxy.
        of_all = {} if clusters else {"RABBITMQ_URL": f"amqp://guest:guest@127.0.0.1:{rabbitmq.port}/"}
        of_core = {} if clusters else of_all | {"REDIS_URL": f"redis://127.0.0.1:{redis.port}/0"}
        of_core |= {"LEASE_SECONDS": str(lease_seconds)}
        of_agent = of_all | {"CORE_URL": f"http://127.0.0.1:{agents_core.port}", "CPU_SLOTS": str(SLOTS)}
        own_settings = dict.fromkeys(CORES, of_core) | dict.fromkeys(AGENTS, of_agent)
        own_settings["gateway"] = {"CORE_URL": f"http://127.0.0.1:{gateways_core.port}"}
        own_settings[SMALL_DISK_AGENT] = of_agent | {"WORK_DIR": str(small_disk), "MIN_FREE_MB": str(MIN_FREE_MB)}
        stack = Stack(
            folder,
            ports,
            cores=len(CORES),
            agents=len(AGENTS),
            own_settings=own_settings,
            own_engine=True,
            servers=clusters,
        )
        system = System(stack, clusters, redis, rabbitmq, gateways_core, agents_core, small_disk, lease_seconds)
        small_disk.mkdir(parents=True)
        _mount(small_disk)
        try:
            stack.up()
            _register_model(system)
            yield system
        finally:
            system.ending.set()
            stack.down()
            stack.delete()


def _mount(folder: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_MB}m", "chaos", str(folder)], check=True)


def _register_model(system: System) -> None:
    tag = Images(system.stack.docker_host).running(SCRIPT)
    parameters = {"human_readable_id": MODEL, "container_tag": tag, "use_gpu": "false", "memory_mb": "256"}
    parameters["max_attempts"] = str(MAX_ATTEMPTS)
    with system.private() as core:
        core.call("POST", "/api/models/", params=parameters).raise_for_status()
