"""Which way a container gets its GPUs, by what engines answer to /info."""

from collections.abc import Mapping
from typing import Any

import pytest

from gpu_agent import devices
from gpu_agent.devices import Offer
from gpu_agent.settings import GpuDevices

GPU, OTHER = "GPU-4d7a1b2c-0000-1111-2222-333344445555", "GPU-00aa11bb-9999-8888-7777-666655554444"
RUNC: Mapping[str, Any] = {"io.containerd.runc.v2": {"path": "runc"}, "runc": {"path": "runc"}}
TOOLKIT = {**RUNC, "nvidia": {"path": "nvidia-container-runtime"}}
OLD = {"Runtimes": RUNC}  # 20.10
SPEC_DIRS = ["/etc/cdi", "/var/run/cdi"]


def _listed(*names: str) -> list[dict[str, str]]:
    return [{"Source": "cdi", "ID": f"nvidia.com/gpu={name}"} for name in names]


@pytest.mark.parametrize(
    ("info", "way"),
    [
        (OLD, GpuDevices.NVIDIA),
        ({"Runtimes": TOOLKIT}, GpuDevices.NVIDIA),
        ({"Runtimes": RUNC, "CDISpecDirs": None}, GpuDevices.NVIDIA),
        ({"Runtimes": RUNC, "CDISpecDirs": SPEC_DIRS}, GpuDevices.CDI),
        ({"Runtimes": TOOLKIT, "CDISpecDirs": SPEC_DIRS}, GpuDevices.NVIDIA),
        ({"Runtimes": TOOLKIT, "CDISpecDirs": SPEC_DIRS, "DiscoveredDevices": _listed("0", "all")}, GpuDevices.NVIDIA),
        (
            {"Runtimes": TOOLKIT, "CDISpecDirs": SPEC_DIRS, "DiscoveredDevices": _listed("0", GPU, OTHER, "all")},
            GpuDevices.CDI,
        ),
    ],
)
def test_cdi_is_taken_where_it_is_known_to_work(info: Mapping[str, Any], way: GpuDevices) -> None:
    """And the toolkit's hook everywhere else; an engine that only reads CDI files has said so on purpose."""
    assert Offer.of(info).way([GPU]) is way


def test_an_engines_gpus_are_known_by_uuid() -> None:
    """Not by number, nor all of them at once."""
    offer = Offer.of(
        {"Runtimes": RUNC, "DiscoveredDevices": [*_listed("0", "all", OTHER, GPU), {"ID": "other.com/x=1"}]}
    )
    assert offer.uuids == (OTHER, GPU)


@pytest.mark.parametrize(
    ("way", "request_"),
    [
        (GpuDevices.NVIDIA, {"Driver": "nvidia", "DeviceIDs": [GPU, OTHER], "Capabilities": [["gpu"]]}),
        (GpuDevices.CDI, {"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={GPU}", f"nvidia.com/gpu={OTHER}"]}),
    ],
)
def test_all_gpus_are_asked_for_at_once(way: GpuDevices, request_: dict[str, Any]) -> None:
    """By UUID."""
    assert devices.requests(way, [GPU, OTHER]) == [request_]
