"""One task at a time, from the post until its output is there, against the bare engine doing the same work.

The second control is what a user would type without us: `docker run --rm` with two named volumes.
"""

import subprocess
import uuid
from contextlib import closing

from tests.bench.controls.engine import BareEngine
from tests.bench.processes import Meter, this_process
from tests.bench.rig import COPY, NAME, Client, Rig, seconds, small_zip
from tests.bench.scale import Scale
from tests.bench.table import Row, at_most
from tests.zips import files_of

LIMIT = 1.15


def rows(rig: Rig, scale: Scale) -> list[Row]:
    rig.with_agent()
    with Client.public(rig.stack) as client, closing(BareEngine(rig.stack.docker_host, rig.folder / "bare")) as bare:
        return _rows(rig, scale, client, bare)


def _rows(rig: Rig, scale: Scale, client: Client, bare: BareEngine) -> list[Row]:
    zip = small_zip()
    [content] = files_of(zip).values()

    def on_bare_engine() -> None:
        assert bare.run(rig.image, NAME, content) == content

    def on_ours() -> None:
        assert files_of(client.output(client.post(zip))) == {NAME: content}

    for action in (on_bare_engine, on_ours):
        action()  # the first of each warms the caches
    ours, control = Meter(rig.processes()), Meter(this_process("caller"))
    our_seconds, engine_seconds, command_seconds = [], [], []
    for _ in range(scale.tasks):
        with control.running():
            engine_seconds.append(seconds(on_bare_engine))
        with ours.running():
            our_seconds.append(seconds(on_ours))
        command_seconds.append(_docker_run(rig.stack.docker_host, rig.image))
    return [
        Row(
            "turnaround of a task, to the bare engine",
            "s",
            our_seconds,
            engine_seconds,
            limit=at_most(LIMIT),
            cpu=ours.per(scale.tasks),
            control_cpu=control.per(scale.tasks),
            cpu_unit="s/task",
        ),
        Row("turnaround of a task, to `docker run --rm`", "s", our_seconds, command_seconds),
    ]


def _docker_run(docker_host: str, image: str) -> float:
    volumes = [f"bench-{uuid.uuid4().hex}" for _ in range(2)]
    docker = ["docker", "--host", docker_host]
    mounts = ["-v", f"{volumes[0]}:/input", "-v", f"{volumes[1]}:/output"]
    command = [*docker, "run", "--rm", "--network", "none", *mounts, image]
    command += ["/bin/sh", "-c", f"touch /input/{NAME}; {COPY}"]
    took = seconds(lambda: subprocess.run(command, check=True))
    subprocess.run([*docker, "volume", "rm", *volumes], check=True, capture_output=True)
    return took
