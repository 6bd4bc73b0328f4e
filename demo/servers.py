"""Redis and RabbitMQ as processes of this machine that keep everything in folders of their own."""

import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from demo import ready
from demo.ports import Ports
from demo.supervision import Program

RABBITMQ_NODE = "rabbit@localhost"
# Distributions put a wrapper on PATH that changes to their own user and folder; this is the script behind it.
RABBITMQ_SCRIPT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


def redis(folder: Path, ports: Ports, *, stage: int) -> Program:
    data = folder / "redis"
    data.mkdir(parents=True, exist_ok=True)
    half_of_memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    command = (
        "redis-server",
        *("--bind", "127.0.0.1"),
        *("--port", str(ports.redis)),
        *("--dir", str(data)),
        *("--appendonly", "yes"),
        *("--appendfsync", "everysec"),
        *("--save", ""),
        *("--maxmemory", str(half_of_memory)),
        *("--maxmemory-policy", "noeviction"),
    )
    return Program("redis", command, {}, data, stage, 30, partial(ready.redis_answers, ports.redis))


def epmd(folder: Path, ports: Ports, *, stage: int) -> Program:
    """Erlang's port mapper. RabbitMQ would start a daemon of its own, which stays when RabbitMQ is gone."""
    command = ("epmd", "-port", str(ports.epmd), "-address", "127.0.0.1")
    return Program("epmd", command, {}, folder, stage, 5, partial(ready.listens, ports.epmd))


def rabbitmq(folder: Path, ports: Ports, settings: Mapping[str, int], *, stage: int) -> Program:
    home = folder / "rabbitmq"
    home.mkdir(parents=True, exist_ok=True)
    config = home / "rabbitmq.conf"
    config.write_text(
        f"listeners.tcp.1 = 127.0.0.1:{ports.rabbitmq}\n"
        "log.file = false\n"
        "log.console = true\n"
        "log.console.level = warning\n"
        "log.console.use_colors = off\n"
    )
    plugins = home / "enabled_plugins"
    plugins.write_text("[].\n")
    environment = {
        "HOME": str(home),  # Erlang's cookie is there
        "RABBITMQ_NODENAME": RABBITMQ_NODE,
        "RABBITMQ_DIST_PORT": str(ports.rabbitmq_dist),
        "RABBITMQ_CONFIG_FILE": str(config),
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",  # the machine's broker's settings aren't for this one
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        # Threads that wait sleep at once: spinning would take the models' time.
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}"
        " +sbwt none +sbwtdcpu none +sbwtdio none"
        + "".join(f" -rabbit {name} {value}" for name, value in settings.items()),
        "ERL_EPMD_PORT": str(ports.epmd),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_FLAGS": "-start_epmd false",
        # The script becomes the server instead of waiting for it, so signals reach the server itself.
        "RUNNING_UNDER_SYSTEMD": "true",
    }
    script = str(RABBITMQ_SCRIPT) if RABBITMQ_SCRIPT.exists() else shutil.which("rabbitmq-server") or "rabbitmq-server"
    return Program("rabbitmq", (script,), environment, home, stage, 30, partial(ready.rabbitmq_answers, ports.rabbitmq))
