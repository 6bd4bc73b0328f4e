"""What core counts, for Prometheus: each process its own figures."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from core.contract.agent import Agent
from core.contract.overview import Overview
from core.contract.task import Failure, State, Task
from core.exposition import TASK_BUCKETS, phases

log = structlog.get_logger()

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

TASKS_POSTED: Final = Counter("inference_server_tasks_posted", "Tasks that were taken", ["model"], registry=_REGISTRY)
TASKS_ENDED: Final = Counter(
    "inference_server_tasks_ended",
    "Tasks that ended, by state and, of those that failed, by reason",
    ["model", "state", "reason"],
    registry=_REGISTRY,
)
ATTEMPTS_FAILED: Final = Counter(
    "inference_server_attempts_failed",
    "Attempts that failed, whether their tasks were tried again or not",
    ["model", "reason"],
    registry=_REGISTRY,
)
LEASES_EXPIRED: Final = Counter(
    "inference_server_leases_expired", "Attempts whose agent was taken for dead", registry=_REGISTRY
)
WEBHOOKS: Final = Counter(
    "inference_server_webhooks",
    "Tries to tell clients' servers of an end: sent; failed, to be tried again; or given up",
    ["outcome"],
    registry=_REGISTRY,
)
PHASES: Final = phases(_REGISTRY)
DURATIONS: Final = Histogram(
    "inference_server_task_duration_seconds",
    "From a task's post to its end",
    ["model", "state"],
    buckets=TASK_BUCKETS,
    registry=_REGISTRY,
)

# The same at every core, so that dashboards take the max() of them, and never a sum.
_AT_EACH: Final = "; every core says the same: take max()"
AGENTS: Final = Gauge("inference_server_agents", f"Agents that are there{_AT_EACH}", registry=_REGISTRY)
AGENTS_TROUBLED: Final = Gauge(
    "inference_server_agents_troubled",
    f"Those of them that say what keeps them from tasks{_AT_EACH}",
    registry=_REGISTRY,
)
GPUS: Final = Gauge("inference_server_gpus", f"GPUs of the agents that are there{_AT_EACH}", registry=_REGISTRY)
GPUS_UNWELL: Final = Gauge(
    "inference_server_gpus_unwell", f"Those of them that get no tasks{_AT_EACH}", registry=_REGISTRY
)
TASKS_RUNNING: Final = Gauge(
    "inference_server_tasks_running",
    f"Attempts that run on the agents that are there, as they said in the last seconds{_AT_EACH}",
    registry=_REGISTRY,
)
TASKS_WAITING: Final = Gauge("inference_server_tasks_waiting", f"Tasks that are pending{_AT_EACH}", registry=_REGISTRY)
OLDEST_WAITING: Final = Gauge(
    "inference_server_tasks_waiting_oldest_seconds",
    f"How long the first of them has waited{_AT_EACH}",
    registry=_REGISTRY,
)
BROKER_UP: Final = Gauge("inference_server_broker_up", "Whether RabbitMQ answers", registry=_REGISTRY)
QUEUE_MESSAGES: Final = Gauge(
    "inference_server_queue_messages", f"Messages that nobody has taken yet{_AT_EACH}", ["queue"], registry=_REGISTRY
)
QUEUE_CONSUMERS: Final = Gauge(
    "inference_server_queue_consumers", f"Slots that listen now{_AT_EACH}", ["queue"], registry=_REGISTRY
)


def repaired(kind: str, **about: str) -> None:
    """Each thing that is put right is logged and counted, under the same name."""
    log.info("sweep.repaired", kind=kind, **about)
    REPAIRS.labels(kind).inc()


def note_agents(agents: Iterable[Agent]) -> None:
    there = [agent for agent in agents if agent.is_there]
    AGENTS.set(len(there))
    AGENTS_TROUBLED.set(sum(bool(agent.problems) for agent in there))
    TASKS_RUNNING.set(sum(len(agent.running) for agent in there))
    GPUS.set(sum(len(agent.gpus) for agent in there))
    GPUS_UNWELL.set(sum(gpu.problem is not None for agent in there for gpu in agent.gpus))


def note_overview(overview: Overview) -> None:
    """What isn't known now is NaN, or isn't there."""
    TASKS_WAITING.set(math.nan if overview.waiting is None else overview.waiting)
    OLDEST_WAITING.set(math.nan if overview.oldest_seconds is None else overview.oldest_seconds)
    BROKER_UP.set(overview.queues is not None)
    QUEUE_MESSAGES.clear()
    QUEUE_CONSUMERS.clear()
    for name, queue in (overview.queues or {}).items():
        QUEUE_MESSAGES.labels(name).set(queue.messages)
        QUEUE_CONSUMERS.labels(name).set(queue.consumers)


def note_claim(task: Task) -> None:
    if task.attempt == 1 and task.datetime_dispatched:
        waited = task.datetime_dispatched - task.datetime_created
        PHASES.labels("queued", task.model_human_readable_id).observe(waited.total_seconds())


def note_end(task: Task, failure: Failure | None = None) -> None:
    """Of the task as it was before. Version 1's consumers end a task twice: by its status, and by its output."""
    if task.state.is_terminal:
        return
    model = task.model_human_readable_id
    state = State.FAILED if failure else State.FINISHED
    TASKS_ENDED.labels(model, state, failure.reason if failure else "").inc()
    DURATIONS.labels(model, state).observe((datetime.now(UTC) - task.datetime_created).total_seconds())


def exposition(*others: CollectorRegistry) -> bytes:
    """Prometheus's text format, of what stands here and in others."""
    return b"".join(map(generate_latest, (_REGISTRY, *others)))
