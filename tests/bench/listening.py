"""A thousand listeners to the events of a task each, through one gateway and one core: what they cost while their tasks
wait, and how soon they hear of an end.

While a task waits, its position is looked at every few seconds, and a heartbeat is sent: that is what the CPU time goes
to. The control is as many connections to a hello-world that are silent as long.
"""

from tests.bench.controls.hello import Hello
from tests.bench.processes import TICK_SECONDS
from tests.bench.rig import WAIT_SECONDS, Rig
from tests.bench.scale import Scale
from tests.bench.table import Row
from tests.bench.waiting import MILLI, NEXT_TO_NOTHING, Idle, end_each, p99, posted
from tests.bench.waiting_clients import Order, WaitingClients


def rows(rig: Rig, scale: Scale) -> list[Row]:
    ca_cert = str(rig.stack.certificates.ca_cert)
    ours, control, delays = Idle(), Idle(), list[float]()
    rig.without_agent()
    uids = posted(rig, scale.waiting)
    before = rig.refresh()
    processes = rig.processes()
    for _ in range(scale.rounds):
        with Hello.up(rig.stack, rig.folder, workers=processes.workers("gateway")) as hello:
            fresh = hello.processes.resident_mib()
            paths = [f"/wait?seconds={WAIT_SECONDS}"] * scale.waiting
            with WaitingClients(Order(hello.port, ca_cert, paths)):
                control.measure(hello.processes, fresh, scale.waiting, min(WAIT_SECONDS / 2, scale.listening_seconds))
        paths = [f"/api/tasks/{uid}/events" for uid in uids]
        with WaitingClients(Order(rig.stack.ports.gateway, ca_cert, paths, are_endless=True)) as clients:
            ours.measure(processes, before, scale.waiting, scale.listening_seconds)
            ended, uids = uids[: scale.ended], uids[scale.ended :]
            delays.append(p99(end_each(rig, clients, ended)))
        uids += posted(rig, len(ended))
    name = f"{scale.waiting} listeners"
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
        Row(f"{name}: from a task's end to its event, p99", "ms", [MILLI * delay for delay in delays]),
    ]
