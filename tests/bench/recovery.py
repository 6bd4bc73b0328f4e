"""How long a task waits for another agent when its own dies: from kill -9 to the start of the next container.

That is a lease, less the time since its last renewal, and what sweep, claim and start take. Several agents are killed
a round, each at a random moment between two renewals. Their tasks share core, broker and engine, and none waits for
another: there is an idle agent for each.
"""

import os
import random
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

from core.settings import Settings
from demo.image import docker
from demo.ports import Ports
from demo.stack import Stack
from gpu_agent.attempt import RENEWALS_PER_LEASE
from tests.bench.scale import Scale
from tests.bench.table import Row, at_most
from tests.e2e.api import Api
from tests.images import Images
from tests.waiting import eventually
from tests.zips import zip_of

LEASE_SECONDS: float = Settings.model_fields["lease_seconds"].default
LIMIT_SECONDS = LEASE_SECONDS + 5
KILLED_AT_ONCE = 5
WAIT_SECONDS = 4 * LEASE_SECONDS


def rows(scale: Scale) -> list[Row]:
    """On a stack of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        stack = Stack(Path(folder) / "stack", Ports.free(), agents=2 * KILLED_AT_ONCE, own_engine=True)
        stack.up()
        images = Images(stack.docker_host)
        try:
            seconds = _measure(stack, images.running("sleep 1000"), kills=scale.rounds * KILLED_AT_ONCE)
        finally:
            images.remove()
            stack.down()
            stack.delete()
    return [
        Row(f"kill -9 to the next container, LEASE_SECONDS={LEASE_SECONDS:g}", "s", seconds),
        Row(f"the worst of {len(seconds)}", "s", [max(seconds)], limit=at_most(LIMIT_SECONDS, of_figure=True)),
    ]


def _measure(stack: Stack, image: str, *, kills: int) -> list[float]:
    core = Api.private(stack.core_url, stack.token_file.read_text().strip())
    model = {"human_readable_id": "bench", "container_tag": image, "use_gpu": "false"}
    core.call("POST", "/api/models/", params=model).raise_for_status()
    seconds: list[float] = []
    with core.session, ThreadPoolExecutor(KILLED_AT_ONCE) as pool:
        while len(seconds) < kills:
            count = min(KILLED_AT_ONCE, kills - len(seconds))
            uids = [core.post("bench", zip_of({"scan.txt": b"0"})) for _ in range(count)]
            agents = [_agent_of(stack, core, uid, 1) for uid in uids]
            killed = list(pool.map(lambda agent: _kill(stack, agent), agents))
            for uid, at, dead in zip(uids, killed, agents, strict=True):
                assert _agent_of(stack, core, uid, 2) not in agents, f"{dead} runs again"
                seconds.append(_started(stack, uid, 2) - at)
            for uid in uids:
                core.delete(uid).raise_for_status()
            for agent in agents:
                stack.start(agent)
            eventually(lambda: not docker(stack.docker_host, "ps", "--all", "--quiet"))
    return seconds


def _agent_of(stack: Stack, core: Api, uid: str, attempt: int) -> str:
    """The name of the process that runs that attempt, once its container does."""

    def attempts() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = core.get(f"/api/tasks/{uid}").json()["attempts"]
        return found if len(found) == attempt else []

    name = str(eventually(attempts, within_seconds=WAIT_SECONDS)[-1]["agent"]).split(".")[0]
    eventually(lambda: docker(stack.docker_host, "ps", "--quiet", "--filter", f"name={uid}-{attempt}"))
    return name


def _kill(stack: Stack, agent: str) -> float:
    """When it was killed; it isn't started again."""
    time.sleep(random.uniform(0, LEASE_SECONDS / RENEWALS_PER_LEASE))
    pid = stack.pid(agent)
    os.kill(pid, signal.SIGSTOP)
    at = time.time()
    with ThreadPoolExecutor() as pool:
        stopping = pool.submit(stack.stop, agent)
        eventually(lambda: any(p.name == agent and p.state == "STOPPING" for p in stack.status()))
        os.kill(pid, signal.SIGKILL)
        stopping.result()
    return at


def _started(stack: Stack, uid: str, attempt: int) -> float:
    container = docker(stack.docker_host, "ps", "-aq", "--filter", f"name=inference-server-{uid}-{attempt}-").strip()
    started = docker(stack.docker_host, "inspect", "--format", "{{.State.StartedAt}}", container).strip()
    return datetime.fromisoformat(started).timestamp()
