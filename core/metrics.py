"""What core counts, for Prometheus: each process its own figures."""

from collections.abc import Iterable
from typing import Final

import structlog
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, Counter, Gauge, generate_latest

from core.contract.agent import Agent

log = structlog.get_logger()

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
_REGISTRY: Final = CollectorRegistry()

REPAIRS: Final = Counter(
    "inference_server_repairs",
    "What the sweep put right after a crash or an outage, or removed when its time was over",
    ["kind"],
    registry=_REGISTRY,
)
UPLOADS_REFUSED: Final = Counter(
    "inference_server_uploads_refused", "Uploads that found no room in Redis", registry=_REGISTRY
)
STORE_UP: Final = Gauge("inference_server_store_up", "Whether Redis answers", registry=_REGISTRY)
STORE_USED: Final = Gauge("inference_server_store_used_bytes", "Memory that Redis uses", registry=_REGISTRY)
STORE_LIMIT: Final = Gauge(
    "inference_server_store_limit_bytes", "Redis's maxmemory, or its host's memory without one", registry=_REGISTRY
)
STORE_RESERVE: Final = Gauge(
    "inference_server_store_reserve_bytes", "Of the limit, what new uploads may not use", registry=_REGISTRY
)
UNREPLICATED: Final = Counter(
    "inference_server_store_unreplicated",
    "Writes that no replica has, because a shard or master had none",
    registry=_REGISTRY,
)

AGENTS: Final = Gauge("inference_server_agents", "Agents that are there", registry=_REGISTRY)
GPUS: Final = Gauge("inference_server_gpus", "GPUs of the agents that are there", registry=_REGISTRY)
GPUS_UNWELL: Final = Gauge("inference_server_gpus_unwell", "Those of them that get no tasks", registry=_REGISTRY)


def repaired(kind: str, **about: str) -> None:
    """Each thing that is put right is logged and counted, under the same name."""
    log.info("sweep.repaired", kind=kind, **about)
    REPAIRS.labels(kind).inc()


def note_agents(agents: Iterable[Agent]) -> None:
    there = [agent for agent in agents if agent.is_there]
    AGENTS.set(len(there))
    GPUS.set(sum(len(agent.gpus) for agent in there))
    GPUS_UNWELL.set(sum(gpu.problem is not None for agent in there for gpu in agent.gpus))


def exposition() -> bytes:
    """Prometheus's text format."""
    return generate_latest(_REGISTRY)
