"""Redis and RabbitMQ as processes of this machine that keep everything in folders of their own."""

import json
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from demo import ready
from demo.ports import Ports
from demo.supervision import Program

RABBITMQ_NODE = "rabbit@localhost"
# Distributions put a wrapper on PATH that changes to their own user and folder; this is the script behind it.
RABBITMQ_SCRIPT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")

DEAD_LETTERS = "dead_letters"
DEFINITIONS: dict[str, list[dict[str, Any]]] = {
    "users": [{"name": "guest", "password": "guest", "tags": ["administrator"]}],
    "vhosts": [{"name": "/"}],
    "permissions": [{"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"}],
    "queues": [{"name": DEAD_LETTERS, "vhost": "/", "durable": True, "auto_delete": False, "arguments": {}}],
    "policies": [
        {
            "name": "unfinished",
            "vhost": "/",
            "apply-to": "queues",
            "pattern": r"^unfinished_job_queue(\..+)?$",
            "definition": {"dead-letter-exchange": "", "dead-letter-routing-key": DEAD_LETTERS},
        },
        {
            "name": "dead-letters",
            "vhost": "/",
            "apply-to": "queues",
            "pattern": f"^{DEAD_LETTERS}$",
            "definition": {"max-length": 100_000, "overflow": "drop-head", "message-ttl": 2_592_000_000},
        },
    ],
}
"""As in deploy/rabbitmq-definitions.json, what no agent can read is kept."""


class Servers:
    """One Redis and one RabbitMQ."""

    def __init__(self, ports: Ports, rabbitmq_settings: Mapping[str, int]) -> None:
        self._ports = ports
        self._rabbitmq_settings = rabbitmq_settings

    @property
    def redis_url(self) -> str:
        return f"redis://127.0.0.1:{self._ports.redis}/0"

    @property
    def rabbitmq_url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self._ports.rabbitmq}/"

    def ports_taken(self) -> list[int]:
        """By others, beside those of `Ports`."""
        return []

    def programs(self, folder: Path, *, below: int, stage: int) -> list[Program]:
        ports = self._ports
        definitions = folder / "rabbitmq-definitions.json"
        definitions.write_text(json.dumps(DEFINITIONS))
        return [
            epmd(folder, ports.epmd, stage=below),
            redis(folder / "redis", ports.redis, stage=stage),
            rabbitmq(
                folder / "rabbitmq",
                RABBITMQ_NODE,
                ports.rabbitmq,
                ports.rabbitmq_dist,
                ports.epmd,
                f"load_definitions = {definitions}",
                settings=self._rabbitmq_settings,
                stage=stage,
            ),
        ]

    def join(self) -> None:
        """What they need once they answer."""


def redis(data: Path, port: int, *options: str, name: str = "redis", stage: int, restarts: bool = True) -> Program:
    data.mkdir(parents=True, exist_ok=True)
    half_of_memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    command = (
        "redis-server",
        *("--bind", "127.0.0.1"),
        *("--port", str(port)),
        *("--dir", str(data)),
        *("--appendonly", "yes"),
        *("--appendfsync", "everysec"),
        *("--auto-aof-rewrite-min-size", "2gb"),
        *("--save", ""),
        *("--maxmemory", str(half_of_memory)),
        *("--maxmemory-policy", "noeviction"),
        *options,
    )
    return Program(name, command, {}, data, stage, 30, partial(ready.redis_answers, port), restarts)


def epmd(folder: Path, port: int, *, stage: int) -> Program:
    """Erlang's port mapper. RabbitMQ would start a daemon of its own, which stays when RabbitMQ is gone."""
    command = ("epmd", "-port", str(port), "-address", "127.0.0.1")
    return Program("epmd", command, {}, folder, stage, 5, partial(ready.listens, port))


def rabbitmq(
    home: Path,
    node: str,
    port: int,
    dist_port: int,
    epmd_port: int,
    *lines: str,
    settings: Mapping[str, int],
    name: str = "rabbitmq",
    stage: int,
    restarts: bool = True,
) -> Program:
    """`lines` are more of its configuration; `settings` are of its application, as Erlang has them."""
    home.mkdir(parents=True, exist_ok=True)
    config = home / "rabbitmq.conf"
    own = (
        f"listeners.tcp.1 = 127.0.0.1:{port}",
        "log.file = false",
        "log.console = true",
        "log.console.level = warning",
        "log.console.use_colors = off",
    )
    config.write_text("".join(f"{line}\n" for line in (*own, *lines)))
    plugins = home / "enabled_plugins"
    plugins.write_text("[].\n")
    environment = {
        "HOME": str(home),  # Erlang's cookie is there
        "RABBITMQ_NODENAME": node,
        "RABBITMQ_DIST_PORT": str(dist_port),
        "RABBITMQ_CONFIG_FILE": str(config),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",  # the machine's broker's settings aren't for this one
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        # Threads that wait sleep at once: spinning would take the models' time.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}"
        " +sbwt none +sbwtdcpu none +sbwtdio none"
        + "".join(f" -rabbit {setting} {value}" for setting, value in settings.items()),
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_FLAGS": "-start_epmd false",
        # The script becomes the server instead of waiting for it, so signals reach the server itself.
        "RUNNING_UNDER_SYSTEMD": "true",
    }
    script = str(RABBITMQ_SCRIPT) if RABBITMQ_SCRIPT.exists() else shutil.which("rabbitmq-server") or "rabbitmq-server"
    return Program(name, (script,), environment, home, stage, 30, partial(ready.rabbitmq_answers, port), restarts)
