"""An engine that can't give a GPU. That it gives one, and the right one, tests/gpu shows on machines that have some."""

from pathlib import Path

import pytest

from demo.stack import Stack
from gpu_agent.settings import GpuDevices
from tests.e2e.agents import own_agent
from tests.e2e.api import Api
from tests.e2e.conftest import COPY, INPUT, ModelMaker

GPU = "GPU-4d7a1b2c-0000-1111-2222-333344445555"


@pytest.mark.parametrize("way", [GpuDevices.NVIDIA, GpuDevices.CDI])
def test_a_task_that_gets_no_gpu_says_so(
    way: GpuDevices, api: Api, stack: Stack, model: ModelMaker, tmp_path: Path
) -> None:
    """Whichever way it was asked for, it isn't the model's fault."""
    name = model(COPY, use_gpu="true", max_attempts="1")
    with own_agent(stack, tmp_path, f"gpu-{way}", GPU_UUID=GPU, GPU_DEVICES=way) as agent:
        assert api.failure(name, INPUT)["reason"] == "gpu_unavailable"
    assert f'could not select device driver \\"{way}\\"' in agent.log.read_text()
