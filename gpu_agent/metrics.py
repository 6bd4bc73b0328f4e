"""What an agent counts, for Prometheus."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from core.exposition import phases
from gpu_agent.gpus import Gpu
from gpu_agent.nvml import Reading

MiB: Final = 2**20

FIGURES: Final = CollectorRegistry()
PHASES: Final = phases(FIGURES)
RENEWALS: Final = Counter(
    "inference_server_lease_renewals",
    "Renewals of leases: renewed; refused, so that the attempt has lost its task; or unanswered",
    ["outcome"],
    registry=FIGURES,
)
UNREADABLE: Final = Counter(
    "inference_server_messages_unreadable",
    "Messages that can't be a task's, and went to the dead letters",
    registry=FIGURES,
)
SLOTS: Final = Gauge("inference_server_slots", "Tasks that the agent can run at once", registry=FIGURES)
SLOTS_BUSY: Final = Gauge("inference_server_slots_busy", "Slots that have a task", registry=FIGURES)
PROBLEMS: Final = Gauge(
    "inference_server_agent_problems", "Of how many kinds what keeps the agent from tasks is", registry=FIGURES
)

_OF_GPU: Final = ["gpu", "name"]
GPU_WELL: Final = Gauge("inference_server_gpu_well", "Whether the GPU may get tasks", _OF_GPU, registry=FIGURES)
GPU_UTILIZATION: Final = Gauge(
    "inference_server_gpu_utilization_ratio",
    "Share of the last moment in which something ran on the GPU, as NVML says",
    _OF_GPU,
    registry=FIGURES,
)
GPU_MEMORY: Final = Gauge("inference_server_gpu_memory_bytes", "Of the GPU, all", _OF_GPU, registry=FIGURES)
GPU_MEMORY_USED: Final = Gauge(
    "inference_server_gpu_memory_used_bytes", "Of that, what processes have", _OF_GPU, registry=FIGURES
)


def note_slots(count: int, busy: Callable[[], int]) -> None:
    """`busy` is asked at each scrape."""
    SLOTS.set(count)
    SLOTS_BUSY.set_function(busy)


def note_gpus(gpus: Iterable[Gpu], readings: Mapping[str, Reading], problems: Mapping[str, str]) -> None:
    """What nobody knows of a GPU isn't said."""
    for gauge in (GPU_WELL, GPU_UTILIZATION, GPU_MEMORY, GPU_MEMORY_USED):
        gauge.clear()
    for gpu in gpus:
        labels, reading = (gpu.uuid, gpu.name), readings.get(gpu.uuid, Reading())
        GPU_WELL.labels(*labels).set(gpu.uuid not in problems)
        if reading.busy_percent is not None:
            GPU_UTILIZATION.labels(*labels).set(reading.busy_percent / 100)
        if reading.memory_mb is not None and reading.taken_mb is not None:
            GPU_MEMORY.labels(*labels).set(reading.memory_mb * MiB)
            GPU_MEMORY_USED.labels(*labels).set(reading.taken_mb * MiB)
