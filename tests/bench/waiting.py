"""A thousand clients that wait for a task each: what they cost while nothing happens, and how soon they hear of an end.

The control is as many connections to a hello-world whose answers wait as long. Where the gateway doesn't hold an
answer back, its clients ask every five seconds.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench.controls.hello import Hello
from tests.bench.processes import TICK_SECONDS, Processes
from tests.bench.rig import WAIT_SECONDS, Client, Rig, small_zip
from tests.bench.scale import Scale
from tests.bench.table import Row, at_most
from tests.bench.waiting_clients import Order, WaitingClients

IDLE_SECONDS = 5.0
BETWEEN_ENDS_SECONDS = 0.05
NEXT_TO_NOTHING = at_most(0.1, of_figure=True)
MILLI, KIB_PER_MIB = 1000, 1024


@dataclass
class Idle:
    """What waiting costs, a value for each round."""

    cpu: list[dict[str, float]] = field(default_factory=list)
    """Seconds of CPU in a second."""
    memory_kib: list[dict[str, float]] = field(default_factory=list)
    """Of a client."""

    def measure(self, processes: Processes, before_mib: dict[str, float], clients: int, seconds: float) -> None:
        used = processes.cpu_seconds()
        time.sleep(seconds)
        self.cpu.append({name: (after - used[name]) / seconds for name, after in processes.cpu_seconds().items()})
        held = processes.resident_mib()
        self.memory_kib.append({name: KIB_PER_MIB * (held[name] - before_mib[name]) / clients for name in held})

    def median(self, values: Sequence[dict[str, float]]) -> dict[str, float]:
        return {name: statistics.median(value[name] for value in values) for name in values[0]}


def rows(rig: Rig, scale: Scale) -> list[Row]:
    seconds = min(IDLE_SECONDS, scale.idle_seconds)
    ca_cert = str(rig.stack.certificates.ca_cert)
    ours, control, delays = Idle(), Idle(), list[float]()
    rig.without_agent()
    uids = posted(rig, scale.waiting)
    processes = rig.processes()
    for _ in range(scale.rounds):
        with Hello.up(rig.stack, rig.folder, workers=processes.workers("gateway")) as hello:
            before = hello.processes.resident_mib()
            paths = [f"/wait?seconds={WAIT_SECONDS}"] * scale.waiting
            with WaitingClients(Order(hello.port, ca_cert, paths)):
                control.measure(hello.processes, before, scale.waiting, seconds)
        before = processes.resident_mib()
        paths = [f"/api/tasks/{uid}?wait={WAIT_SECONDS}" for uid in uids]
        with WaitingClients(Order(rig.stack.ports.gateway, ca_cert, paths)) as clients:
            ours.measure(processes, before, scale.waiting, seconds)
            ended, uids = uids[: scale.ended], uids[scale.ended :]
            delays.append(p99(end_each(rig, clients, ended)))
        uids += posted(rig, len(ended))
    name = f"{scale.waiting} waiting clients"
    return [
        Row(
            f"{name}: CPU time of gateway and core",
            "s/s",
            [used["gateway"] + used["core"] for used in ours.cpu],
            [max(used["hello"], TICK_SECONDS) for used in control.cpu],
            limit=NEXT_TO_NOTHING,
            cpu=ours.median(ours.cpu),
            control_cpu=control.median(control.cpu),
            cpu_unit="s/s",
        ),
        Row(
            f"{name}: memory of each in gateway and core",
            "KiB",
            [held["gateway"] + held["core"] for held in ours.memory_kib],
            [sum(held.values()) for held in control.memory_kib],
            memory={name: f"{held:.1f} KiB" for name, held in ours.median(ours.memory_kib).items()},
        ),
        Row(f"{name}: from a task's end to its answer, p99", "ms", [MILLI * delay for delay in delays]),
    ]


def posted(rig: Rig, count: int) -> list[str]:
    with Client.public(rig.stack) as client:
        return [client.post(small_zip()) for _ in range(count)]


def end_each(rig: Rig, clients: WaitingClients, uids: Sequence[str]) -> list[float]:
    """Cancels the tasks one after the other: the seconds from each call to its client's answer."""
    delays = []
    with Client.private(rig.stack) as core:
        for uid in uids:
            asked = time.monotonic()
            core.call("POST", f"/api/tasks/{uid}/cancel")
            end = clients.next_end()
            assert uid in end.path, f"{uid} was ended, and {end} came"
            delays.append(end.at - asked)
            time.sleep(BETWEEN_ENDS_SECONDS)
    return delays


def p99(values: Sequence[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]
