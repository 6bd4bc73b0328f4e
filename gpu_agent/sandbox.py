"""What a model's container may do on its host: reckon. More, only an operator can register (core's `Limits`)."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from core.contract.model import Model

MiB: Final = 2**20
HOSTNAME: Final = "model"
"""As inside, so of every container: neither the host's name nor the engine's id of it is a model's business."""

LOG_FILE_SIZE: Final = "16m"
CPU_SHARES: Final = 512
"""Half of what anything else on the host has: where processors are scarce, a model gives way to the services."""

TMP_MB: Final = 1024
"""Of a model whose root can't be written, unless it asks for another size."""


def config(model: Model, *, memory_bytes: int) -> dict[str, Any]:
    """The part of the engine's ContainerCreate that bounds a container. User namespaces and the filter of system calls
    are the engine's, masked paths and devices its defaults, and the image says as which user it runs.
    """
    host: dict[str, Any] = {
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "IpcMode": "private",
        "Init": True,
        "ReadonlyRootfs": model.read_only,
        "Tmpfs": _tmp(model),
        "PidsLimit": model.pids,
        "Memory": memory_bytes,
        "MemorySwap": memory_bytes,
        "NanoCpus": int((model.cpus or 0) * 1e9),
        "CpuShares": CPU_SHARES,
        "ShmSize": model.shm_mb * MiB,
        "Ulimits": [_ulimit("core", 0), _ulimit("fsize", largest_file_mb(model) * MiB)],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": LOG_FILE_SIZE, "max-file": "1"}},
    }
    return {"Hostname": HOSTNAME, "HostConfig": host | _network(model)}


def largest_file_mb(model: Model) -> int:
    """A file that is open and has no name any more is seen by nobody, so the kernel bounds each. One that has a name
    may get just too large: then it is seen, and the user told by how much.
    """
    return max(model.disk_mb, model.output_mb, model.shm_mb, _tmp_mb(model)) + 1


def _ulimit(name: str, most: int) -> dict[str, Any]:
    return {"Name": name, "Soft": most, "Hard": most}


def _network(model: Model) -> dict[str, Any]:
    """Without one, the host's name servers aren't told either: the engine would copy its resolv.conf."""
    if model.network:
        return {"NetworkMode": "bridge"}
    return {"NetworkMode": "none", "Dns": ["127.0.0.1"], "DnsSearch": ["."]}


def _tmp(model: Model) -> dict[str, str]:
    """In memory, and counted as the container's. Compilers of GPU kernels run what they wrote there, so it's no
    `noexec`, which /output isn't either.
    """
    megabytes = _tmp_mb(model)
    return {"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={megabytes}m"} if megabytes else {}  # noqa: S108 - a container's


def _tmp_mb(model: Model) -> int:
    """0: it isn't in memory."""
    return model.tmp_mb or (TMP_MB if model.read_only else 0)


def filters_calls(info: Mapping[str, Any]) -> bool:
    """Whether the engine, by its /info, keeps the kernel's more dangerous system calls from containers."""
    options = info.get("SecurityOptions") or ()
    return any(option.startswith("name=seccomp") and "unconfined" not in option for option in options)


def lacks(info: Mapping[str, Any]) -> Iterator[str]:
    """What the engine, by its /info, can't bound or keep from containers, in words."""
    if not filters_calls(info):
        yield "it filters no system calls (seccomp)"
    for name, what in _BOUNDS.items():
        if not info.get(name):
            yield f"it doesn't bound {what}"


_BOUNDS: Final = {"MemoryLimit": "memory", "SwapLimit": "swap", "PidsLimit": "processes", "CpuCfsQuota": "processors"}
"""By their names in the engine's /info."""
