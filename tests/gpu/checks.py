"""The checks, in the order in which they run. Each says what it claims, and what was seen."""

import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from demo.image import docker
from tests.gpu import cuda
from tests.gpu.lab import DATA, Lab, Seen, expected_sum
from tests.gpu.report import Report
from tests.waiting import eventually

GPU_AGENT, CPU_AGENT = "agent-1", "agent-2"
HOG_GIGABYTES = 20
BUSY_SECONDS = 4.0
PATIENCE_SECONDS = 6.0
"""How long a task that must wait is watched."""


def run(lab: Lab, report: Report, *, rounds: int) -> None:
    lab.register("cuda")
    lab.register("no-gpu", use_gpu="false")
    report.say(f"## {len(lab.gpus)} GPU{'s' if len(lab.gpus) > 1 else ''}")
    with report.section("The machine"):
        _machine(lab, report)
    with report.section("A task on each GPU at once"):
        _each_gpu(lab, report)
    with report.section("Several GPUs for one task, and memory"):
        _needs(lab, report)
    with report.section("A model without a GPU"):
        _no_gpu(lab, report)
    with report.section("An agent without GPUs"):
        _cpu_agent(lab, report)
    with report.section("Somebody else takes a GPU"):
        _foreign(lab, report)
    with report.section("What a task costs"):
        _cost(lab, report, rounds)


def _machine(lab: Lab, report: Report) -> None:
    host = lab.stack.docker_host
    driver = _said("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader").splitlines()
    report.say(f"- GPUs: {', '.join(f'{line} {uuid}' for line, uuid in zip(driver, lab.gpus, strict=True))}")
    report.say(f"- {platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    report.say(
        f"- Docker {docker(host, 'version', '--format', '{{.Server.Version}}').strip()},"
        f" {_said('redis-server', '--version').split(' sha=')[0]}, {_rabbitmq(lab)}"
    )
    report.say(f"- the engine offers: {lab.offer}")
    for agent in (GPU_AGENT, CPU_AGENT):
        started = [line for line in lab.stack.log(agent).read_text().splitlines() if "agent.started" in line]
        report.say(f"- {agent}: `{started[-1] if started else 'has not started'}`")


def _each_gpu(lab: Lab, report: Report) -> None:
    """As many tasks as there are GPUs, and once more as many."""
    uids = [lab.post("cuda", seconds=BUSY_SECONDS) for _ in lab.gpus]
    first = [lab.seen(uid) for uid in uids]
    report.check(
        "each container saw exactly one GPU, and it is the one that its attempt names",
        holds=all(_is_own(seen, 1) for seen in first),
        seen=_pairs(first),
    )
    report.check("all GPUs were used", holds={uuid for seen in first for uuid in seen.uuids} == set(lab.gpus))
    starts, ends = [seen.started for seen in first], [seen.ended for seen in first]
    report.check(
        "all containers computed at the same time",
        holds=max(starts) < min(ends),
        seen=f"the last began {max(starts) - min(starts):.2f} s after the first, which ran {ends[0] - starts[0]:.2f} s",
    )
    report.check(
        f"the sum over {len(DATA)} bytes is right in each",
        holds=all(seen.sums == (expected_sum(DATA),) for seen in first),
    )
    report.check(
        "the device nodes are the GPU's own and the driver's",
        holds=all(len([node for node in seen.nodes if node.removeprefix("nvidia").isdigit()]) == 1 for seen in first),
        seen=first[0].nodes,
    )
    attempt = first[0].attempt
    report.check("the attempt records the image", holds=attempt["image"] == lab.image, seen=attempt["image"])
    driver = _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").split()[0]
    report.check("the attempt records the driver", holds=attempt.get("driver") == driver, seen=attempt.get("driver"))
    again = [lab.seen(lab.post("cuda")) for _ in range(2 * len(lab.gpus))]
    report.check(
        f"{len(again)} tasks one after the other see one GPU each, too", holds=all(_is_own(s, 1) for s in again)
    )


def _needs(lab: Lab, report: Report) -> None:
    model = lab.register("two-gpus", gpu_count="2")
    if model.get("gpu_count") != 2:
        report.say("- this core takes no `gpu_count`: not checked")
        return
    if len(lab.gpus) < 2:
        uid = lab.post("two-gpus")
        report.check("a task for two GPUs waits", holds=lab.stays_pending(uid, PATIENCE_SECONDS), seen=_waits(lab, uid))
        lab.private.delete(uid)
    else:
        uids = [lab.post("two-gpus", seconds=BUSY_SECONDS) for _ in range(len(lab.gpus) // 2)]
        pairs = [lab.seen(uid) for uid in uids]
        report.check(
            "a task for two GPUs sees exactly two", holds=all(_is_own(seen, 2) for seen in pairs), seen=_pairs(pairs)
        )
        uuids = [uuid for seen in pairs for uuid in seen.uuids]
        report.check("no GPU is given to two of them", holds=len(set(uuids)) == len(uuids))
    memory = min(lab.gpus.values())
    lab.register("large", gpu_memory_mb=str(memory - 1024))
    seen = lab.seen(lab.post("large"))
    report.check(f"a task for {memory - 1024} MB runs", holds=_is_own(seen, 1))
    lab.register("too-large", gpu_memory_mb=str(memory + 1024))
    uid = lab.post("too-large")
    report.check(
        f"one for {memory + 1024} MB waits", holds=lab.stays_pending(uid, PATIENCE_SECONDS), seen=_waits(lab, uid)
    )
    lab.private.delete(uid)


def _no_gpu(lab: Lab, report: Report) -> None:
    seen = lab.seen(lab.post("no-gpu"))
    report.check("its container has no /dev/nvidia*", holds=seen.nodes == (), seen=seen.nodes)
    report.check("CUDA finds no GPU in it", holds=seen.uuids == (), seen=seen.cuda)


def _cpu_agent(lab: Lab, report: Report) -> None:
    lab.stack.stop(GPU_AGENT)
    try:
        waiting = lab.post("cuda")
        others = [lab.seen(lab.post("no-gpu")) for _ in range(5)]
        report.check(
            "tasks that need no GPU run", holds=all(seen.attempt["gpus"] == [] for seen in others), seen=len(others)
        )
        report.check("one that needs a GPU waits", holds=lab.stays_pending(waiting, PATIENCE_SECONDS))
        eventually(lambda: lab.task(waiting).get("waits_for"), within_seconds=60)
        report.check("its status says for what", holds=True, seen=_waits(lab, waiting))
    finally:
        lab.stack.start(GPU_AGENT)
    report.check("it runs when an agent with GPUs is back", holds=_is_own(lab.seen(waiting), 1))
    names = {attempt["agent"].split(".")[0] for attempt in lab.task(waiting)["attempts"]}
    report.check("no other agent has tried it", holds=names == {GPU_AGENT}, seen=names)


def _foreign(lab: Lab, report: Report) -> None:
    victim = next(iter(lab.gpus))
    with _hog(lab, victim):
        eventually(lambda: lab.said(GPU_AGENT, "gpu.drained", gpu=victim), within_seconds=60)
        report.check("the agent says so", holds=True, seen=_drained(lab))
        health = next(path for folder in lab.stack.work_dirs for path in folder.glob(f"{GPU_AGENT}*.health"))
        eventually(lambda: victim in health.read_text())
        report.check("its health says so", holds=True)
        eventually(lambda: "MB of its memory" in lab.private.get("/api/agents/").text)
        report.check("core's list of agents says so", holds=True)
        if len(lab.gpus) > 1:
            tasks = [lab.seen(lab.post("cuda")) for _ in range(2 * len(lab.gpus))]
            report.check(
                "no task gets that GPU, and the others run",
                holds=all(_is_own(seen, 1) and victim not in seen.uuids for seen in tasks),
                seen=len(tasks),
            )
        else:
            waiting = lab.post("cuda")
            report.check(
                "no task gets that GPU", holds=lab.stays_pending(waiting, PATIENCE_SECONDS), seen=_waits(lab, waiting)
            )
    eventually(lambda: lab.said(GPU_AGENT, "gpu.back", gpu=victim), within_seconds=60)
    uids = [lab.post("cuda", seconds=BUSY_SECONDS) for _ in lab.gpus]
    back = [lab.seen(uid) for uid in uids]
    report.check("it works again once they are gone", holds=any(victim in seen.uuids for seen in back))


def _cost(lab: Lab, report: Report, rounds: int) -> None:
    """POST until the output is there, against `docker run` by hand; interleaved, the first of each unmeasured."""
    uuid = next(iter(lab.gpus))
    for name in ("input", "output"):
        (lab.folder / name).mkdir(exist_ok=True)
    (lab.folder / "input" / "data").write_bytes(DATA)
    (lab.folder / "input" / "seconds").write_text("0")
    bare, ours = [], []
    for number in range(rounds + 1):
        pair = lab.bare(uuid, lab.folder), _turnaround(lab)
        if number:
            bare.append(pair[0])
            ours.append(pair[1])
    for name, seconds in (("docker run", bare), ("POST to output", ours)):
        report.say(f"- {name}: median {statistics.median(seconds):.3f} s, {min(seconds):.3f} to {max(seconds):.3f} s")
    report.say(f"- ratio of the medians over {rounds} rounds: {statistics.median(ours) / statistics.median(bare):.2f}")


def _turnaround(lab: Lab) -> float:
    started = time.perf_counter()
    uid = lab.post("cuda")
    answer = lab.public.wait(uid)
    assert answer.status_code == 200, answer.text
    return time.perf_counter() - started


@contextmanager
def _hog(lab: Lab, uuid: str) -> Iterator[None]:
    """A process of this host that takes memory of a GPU until the context ends."""
    program = cuda.compiled("hog", lab.folder)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": uuid}
    with subprocess.Popen(
        [str(program), str(HOG_GIGABYTES)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as hog:
        assert hog.stdin
        assert hog.stdout
        try:
            assert hog.stdout.readline() == b"taken\n"
            yield
        finally:
            hog.stdin.close()


def _is_own(seen: Seen, count: int) -> bool:
    return len(set(seen.uuids)) == count and set(seen.uuids) == set(seen.attempt["gpus"])


def _pairs(tasks: Sequence[Seen]) -> str:
    return "; ".join(f"saw {', '.join(seen.uuids)}, recorded {', '.join(seen.attempt['gpus'])}" for seen in tasks)


def _waits(lab: Lab, uid: str) -> str:
    return f"waits_for: {lab.task(uid).get('waits_for')}"


def _drained(lab: Lab) -> str:
    lines = lab.stack.log(GPU_AGENT).read_text().splitlines()
    return next(line for line in reversed(lines) if "gpu.drained" in line)


def _rabbitmq(lab: Lab) -> str:
    """The broker's name and version, as it says them when it starts."""
    found = re.search(r"RabbitMQ [\d.]+", lab.stack.log("rabbitmq").read_text())
    return found[0] if found else "RabbitMQ"


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
