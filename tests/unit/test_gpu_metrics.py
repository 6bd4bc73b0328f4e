"""GPUs as Prometheus sees them."""

from gpu_agent.gpus import Gpu
from gpu_agent.metrics import FIGURES, note_gpus
from gpu_agent.nvml import Reading

PREFIX = "inference_server_gpu_"
LARGE, SMALL = Gpu("GPU-1", "H200", 143_771), Gpu("GPU-2", "L4", 23_034)


def of(gpu: Gpu, name: str) -> float | None:
    return FIGURES.get_sample_value(PREFIX + name, {"gpu": gpu.uuid, "name": gpu.name})


def test_what_nvml_says_is_told() -> None:
    note_gpus([LARGE], {"GPU-1": Reading(143_771, 1138, busy_percent=25)}, {})
    assert of(LARGE, "well") == 1
    assert of(LARGE, "utilization_ratio") == 0.25
    assert of(LARGE, "memory_bytes") == 143_771 * 2**20
    assert of(LARGE, "memory_used_bytes") == 1138 * 2**20


def test_what_nobody_knows_is_not_told() -> None:
    """Where the driver's library isn't visible, or says nothing any more: an old figure would be a lie."""
    note_gpus([LARGE], {"GPU-1": Reading(143_771, 1138, busy_percent=25)}, {})
    note_gpus([LARGE, SMALL], {}, {"GPU-2": "the driver asks for a reset of the GPU"})
    assert (of(LARGE, "well"), of(SMALL, "well")) == (1, 0)
    for name in ("utilization_ratio", "memory_bytes", "memory_used_bytes"):
        assert of(LARGE, name) is None
