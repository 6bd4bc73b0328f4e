"""The system under check, and the few things that the checks do with it."""

import json
import subprocess
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from demo.image import docker
from demo.stack import Stack
from gpu_agent.devices import Offer
from gpu_agent.settings import GpuDevices
from tests.e2e.api import Api
from tests.gpu import cuda
from tests.zips import files_of, zip_of

TAG = "gpu-check/model:1"
DATA = bytes(range(256)) * 256
TASK_SECONDS = 60.0


@dataclass(frozen=True)
class Seen:
    """What a container saw, and what core says of the attempt."""

    uuids: tuple[str, ...]
    names: tuple[str, ...]
    sums: tuple[int, ...]
    nodes: tuple[str, ...]
    cuda: str
    started: float
    ended: float
    attempt: dict[str, Any] = field(repr=False)


class Lab:
    """`folder` is for programs; the stack is up."""

    def __init__(self, stack: Stack, folder: Path) -> None:
        self.stack = stack
        self.folder = folder
        self.public = Api.public(stack.gateway_url, stack.certificates.ca_cert)
        self.private = Api.private(stack.core_url, stack.token_file.read_text().strip())
        self.image = cuda.image(stack.docker_host, TAG, cuda.compiled("model", folder))

    @cached_property
    def gpus(self) -> dict[str, int]:
        """By nvidia-smi, which is nobody's of ours: UUID → MB."""
        query = ["nvidia-smi", "--query-gpu=uuid,memory.total", "--format=csv,noheader,nounits"]
        lines = subprocess.run(query, check=True, capture_output=True, text=True).stdout.splitlines()
        return {uuid.strip(): int(memory) for uuid, memory in (line.split(",") for line in lines if line.strip())}

    def register(self, name: str, **parameters: str) -> dict[str, Any]:
        """A model of the CUDA image, which uses a GPU unless told otherwise."""
        answer = self.private.call(
            "POST", "/api/models/", params={"human_readable_id": name, "container_tag": TAG, **parameters}
        )
        assert answer.status_code == 200, answer.text
        model: dict[str, Any] = answer.json()
        return model

    def post(self, model: str, *, seconds: float = 0, data: bytes = DATA) -> str:
        return self.public.post(model, zip_of({"data": data, "seconds": str(seconds).encode()}))

    def seen(self, uid: str) -> Seen:
        """Waits for the task's end, which has to be a good one."""
        status = self.public.wait_for_end(uid, within_seconds=TASK_SECONDS)
        task = self.task(uid)
        assert status == 200, [attempt["failure"] for attempt in task["attempts"]] + self.complaints(uid)
        seen = json.loads(files_of(self.public.get(f"/api/tasks/{uid}").content)["seen.json"])
        return Seen(
            uuids=tuple(gpu["uuid"] for gpu in seen["gpus"]),
            names=tuple(gpu["name"] for gpu in seen["gpus"]),
            sums=tuple(int(gpu["sum"]) for gpu in seen["gpus"]),
            nodes=tuple(sorted(seen["nodes"])),
            cuda=seen["cuda"],
            started=seen["started"],
            ended=seen["ended"],
            attempt=task["attempts"][-1],
        )

    def task(self, uid: str) -> dict[str, Any]:
        """As core knows it."""
        task: dict[str, Any] = self.private.get(f"/api/tasks/{uid}").json()
        return task

    def complaints(self, uid: str) -> list[str]:
        """What logs say of a task that failed."""
        lines = (line for log in self.stack.logs() for line in log.read_text(errors="replace").splitlines())
        return [line for line in lines if uid in line and '"error":' in line]

    def stays_pending(self, uid: str, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.task(uid)["status"] != -1:
                return False
            time.sleep(0.2)
        return True

    def said(self, agent: str, event: str, **keys: str) -> int:
        """How often the agent has logged it."""
        lines = (line for line in self.stack.log(agent).read_text().splitlines() if line.startswith("{"))
        return sum(
            entry.get("event") == event and keys.items() <= entry.items()
            for entry in (json.loads(line) for line in lines)
        )

    @cached_property
    def offer(self) -> Offer:
        return Offer.of(json.loads(docker(self.stack.docker_host, "info", "--format", "{{json .}}")))

    def bare(self, uuid: str, folder: Path) -> float:
        """The seconds of a `docker run` by hand, with the same input."""
        is_cdi = self.offer.way([uuid]) is GpuDevices.CDI
        gpu = ["--device", f"nvidia.com/gpu={uuid}"] if is_cdi else ["--gpus", f'"device={uuid}"']
        mounts = ["-v", f"{folder}/input:/input:ro", "-v", f"{folder}/output:/output"]
        started = time.perf_counter()
        docker(self.stack.docker_host, "run", "--rm", "--network", "none", *gpu, *mounts, TAG)
        return time.perf_counter() - started


def expected_sum(data: bytes) -> int:
    """What the kernel computes (model.cu)."""
    total = 0
    for index, byte in enumerate(data):
        x = byte + index
        for _ in range(8):
            x = (x * 6364136223846793005 + 1442695040888963407) % 2**64
        total += x
    return total % 2**64
