"""What is deleted is gone everywhere, and the logs say so."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.contract.task import Task
from demo.image import docker
from demo.stack import Stack
from gpu_agent.engine import AGENT, ATTEMPT, NAME, TASK
from tests.direct import keys_in, redis_at
from tests.e2e.agents import own_agent
from tests.e2e.api import Api
from tests.e2e.conftest import AGENTS, INPUT, ModelMaker
from tests.images import Images
from tests.waiting import eventually


def _said(log: Path, event: str, uid: str) -> list[Mapping[str, Any]]:
    """The lines with this event of that task."""
    lines = (json.loads(line) for line in log.read_text().splitlines() if f'"{event}"' in line)
    return [line for line in lines if line.get("task") == uid]


def test_nothing_of_a_deleted_task_is_anywhere(stack: Stack, api: Api, core: Api, model: ModelMaker) -> None:
    """Neither in Redis nor on the host that ran it; each says for itself when that is so."""
    uid = api.post(model("echo a line; cp -R /input/. /output/"), INPUT)
    assert api.wait(uid).status_code == 200
    task = Task.model_validate(core.get(f"/api/tasks/{uid}").json())
    [attempt] = eventually(lambda: [line for name in AGENTS for line in _said(stack.log(name), "attempt.erased", uid)])
    assert attempt["attempt"] == task.attempt
    assert api.delete(uid).status_code == 200
    assert task.output
    [erased] = eventually(lambda: _said(stack.log("core"), "task.erased", uid))
    assert (erased["zips"], erased["chunks"], erased["bytes"]) == (1, 1, task.output.size)
    assert erased["log_entries"] >= 1
    with redis_at(stack.redis_url) as redis:
        assert not [key for key in keys_in(redis) if uid in key or task.output.id in key]
    for kind in ("volume ls", "ps --all"):
        assert not docker(stack.docker_host, *kind.split(), "--quiet", "--filter", f"label={TASK}={uid}")


def test_a_running_task_that_is_deleted_leaves_nothing_on_its_host(stack: Stack, api: Api, model: ModelMaker) -> None:
    uid = api.post(model("echo begun > /output/f; sleep 600"), INPUT)
    eventually(lambda: docker(stack.docker_host, "ps", "--quiet", "--filter", f"label={TASK}={uid}"))
    assert api.delete(uid).status_code == 200
    eventually(lambda: [line for name in AGENTS for line in _said(stack.log(name), "attempt.erased", uid)])
    assert _said(stack.log("core"), "task.erased", uid)


def test_what_the_engine_does_not_let_go_of_is_named(stack: Stack, tmp_path: Path, images: Images) -> None:
    """Until it has gone; the agent that finds it need not be the one that left it."""
    labels = {AGENT: "leaving", TASK: "t" * 43, ATTEMPT: "1", NAME: "a-job"}
    flags = [word for name, value in labels.items() for word in ("--label", f"{name}={value}")]
    volume = docker(stack.docker_host, "volume", "create", *flags).strip()
    holder = docker(stack.docker_host, "create", "--volume", f"{volume}:/v", images.running("true")).strip()
    with own_agent(stack, tmp_path, "leaving") as agent:
        remains, *_ = eventually(lambda: _said(agent.log, "attempt.remains", labels[TASK]))
        assert remains["what"] == [volume]
    docker(stack.docker_host, "rm", holder)
    with own_agent(stack, tmp_path, "leaving") as agent:
        eventually(lambda: _said(agent.log, "attempt.erased", labels[TASK]))
    assert volume not in docker(stack.docker_host, "volume", "ls", "--quiet").split()
