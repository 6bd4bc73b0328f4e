"""A Redis Cluster of three shards with a replica each, and a RabbitMQ cluster of three nodes, on this machine."""

import json
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

from redis import Redis
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisError
from redis.retry import Retry

from demo import servers
from demo.ports import Ports, free_ports, is_free
from demo.servers import Servers
from demo.supervision import Program
from tests.waiting import eventually

SHARDS, NODES, BROKERS = 3, 6, 3
REDIS = tuple(f"redis-{number}" for number in range(1, NODES + 1))
RABBITMQ = tuple(f"rabbitmq-{number}" for number in range(1, BROKERS + 1))
NODE_TIMEOUT_MS = 2000
JOIN_SECONDS = 60

DEFINITIONS = servers.DEFINITIONS | {"vhosts": [{"name": "/", "metadata": {"default_queue_type": "quorum"}}]}
"""What is declared plainly is a quorum queue."""


class Clusters(Servers):
    """Nodes that are killed stay away until somebody starts them: supervisord would bring them back unmissed."""

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports, {})
        free = (port for port in free_ports(2 * (NODES + BROKERS + len(astuple(ports)))) if port not in astuple(ports))
        self._redis_ports = {name: next(free) for name in REDIS}
        self._bus_ports = {name: next(free) for name in REDIS}
        self._rabbitmq_ports = {name: next(free) for name in RABBITMQ}
        self._dist_ports = {name: next(free) for name in RABBITMQ}
        self._cookie = secrets.token_hex(16)

    @property
    def redis_url(self) -> str:
        return f"redis+cluster://{','.join(f'127.0.0.1:{port}' for port in self._redis_ports.values())}"

    @property
    def rabbitmq_url(self) -> str:
        return ",".join(f"amqp://guest:guest@127.0.0.1:{port}/" for port in self._rabbitmq_ports.values())

    def ports_taken(self) -> list[int]:
        ours = (self._redis_ports, self._bus_ports, self._rabbitmq_ports, self._dist_ports)
        return [port for ports in ours for port in ports.values() if not is_free(port)]

    def programs(self, folder: Path, *, below: int, stage: int) -> list[Program]:
        return [
            servers.epmd(folder, self._ports.epmd, stage=below),
            *(self._redis(folder / name, name, stage) for name in REDIS),
            *(self._rabbitmq(folder / name, name, stage) for name in RABBITMQ),
        ]

    def join(self) -> None:
        """Makes a cluster of the nodes, once, and waits until each shard has its replica. RabbitMQ's do so alone."""
        if not (infos := self._cluster_infos()):
            return
        if all(int(info["cluster_known_nodes"]) == 1 for info in infos.values()):
            nodes = [f"127.0.0.1:{port}" for port in self._redis_ports.values()]
            command = ["redis-cli", "--cluster", "create", *nodes, "--cluster-replicas", "1", "--cluster-yes"]
            subprocess.run(command, check=True, capture_output=True, timeout=JOIN_SECONDS)
        eventually(self.is_whole, within_seconds=JOIN_SECONDS)

    def is_whole(self) -> bool:
        """Each node answers, and each shard has a primary with a replica that follows it."""
        agreed = [info["cluster_state"] == "ok" for info in self._cluster_infos().values()]
        return agreed == [True] * NODES and len(self.primaries()) == SHARDS

    def primaries(self) -> list[str]:
        """Names of those that have a replica that follows."""
        found = {name: _asked(port, "INFO", "replication") for name, port in self._redis_ports.items()}
        return [name for name, info in found.items() if info.get("slave0", {}).get("state") == "online"]

    def owners(self) -> dict[range, str]:
        """Who has which slots, as a node sees it that answers."""
        seen = next(slots for port in self._redis_ports.values() if (slots := _asked(port, "CLUSTER", "SLOTS")))
        return {range(first, last + 1): self._name_of(port) for first, last, (_, port, *_), *_ in seen}

    def primary_of(self, key: str) -> str:
        return next(name for slots, name in self.owners().items() if key_slot(key.encode()) in slots)

    def replicas_of(self, key: str) -> list[str]:
        with self.client(self.primary_of(key)) as primary:
            _, _, replicas = primary.execute_command("ROLE")
        return [self._name_of(int(port)) for _, port, _ in replicas]

    def broker_at(self, port: int) -> str:
        return next(name for name, known in self._rabbitmq_ports.items() if known == port)

    def port(self, name: str) -> int:
        return self._redis_ports[name]

    def client(self, name: str) -> Redis:
        return _client(self.port(name))

    def _name_of(self, port: int) -> str:
        return next(name for name, known in self._redis_ports.items() if known == port)

    def _cluster_infos(self) -> dict[str, Mapping[str, Any]]:
        """Of those that answer."""
        found = {name: _asked(port, "CLUSTER INFO") for name, port in self._redis_ports.items()}
        return {name: info for name, info in found.items() if info}

    def _redis(self, data: Path, name: str, stage: int) -> Program:
        options = {
            "cluster-enabled": "yes",
            "cluster-port": self._bus_ports[name],
            "cluster-node-timeout": NODE_TIMEOUT_MS,
            "repl-diskless-sync-delay": 0,
        }
        flat = [word for option, value in options.items() for word in (f"--{option}", str(value))]
        return servers.redis(data, self._redis_ports[name], *flat, name=name, stage=stage, restarts=False)

    def _rabbitmq(self, home: Path, name: str, stage: int) -> Program:
        home.mkdir(parents=True, exist_ok=True)
        definitions = home / "definitions.json"
        definitions.write_text(json.dumps(DEFINITIONS))
        cookie = home / ".erlang.cookie"
        if not cookie.exists():
            cookie.write_text(self._cookie)
            cookie.chmod(0o400)
        lines = [f"load_definitions = {definitions}", "cluster_formation.peer_discovery_backend = classic_config"]
        lines += [
            f"cluster_formation.classic_config.nodes.{number} = {other}@localhost"
            for number, other in enumerate(RABBITMQ, 1)
        ]
        return servers.rabbitmq(
            home,
            f"{name}@localhost",
            self._rabbitmq_ports[name],
            self._dist_ports[name],
            self._ports.epmd,
            *lines,
            settings={},
            name=name,
            stage=stage,
            restarts=False,
        )


def _client(port: int) -> Redis:
    return Redis(port=port, socket_timeout=1, retry=Retry(NoBackoff(), 0))


def _asked(port: int, *command: str) -> Any:
    """Its answer, empty if it has none."""
    try:
        with _client(port) as redis:
            return redis.execute_command(*command)
    except RedisError:
        return {}
