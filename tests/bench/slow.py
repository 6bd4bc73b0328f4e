"""What others feel of a thousand slow clients that are held open: the same polls with them and without, in turns."""

import random
import time

from tests.bench.processes import Processes
from tests.bench.rig import MODEL, Client, Rig, small_zip
from tests.bench.scale import Scale
from tests.bench.slow_clients import Order, SlowClients
from tests.bench.table import Row, at_most
from tests.bench.wrk import Answered, Load, wrk
from tests.waiting import eventually
from tests.zips import zip_of

POLLERS = 8
OUTPUT_BYTES = 8 * 2**20
MILLI, KIB_PER_MIB = 1000, 1024
LOOK_SECONDS, SETTLE_SECONDS = 1.0, 120.0
QUIET = 0.5
"""Seconds of CPU in a second, of all processes."""

AT_MOST_DOUBLE = at_most(2)


def rows(rig: Rig, scale: Scale) -> list[Row]:
    rig.without_agent()
    finished = rig.finished(zip_of({"large.bin": random.Random(7).randbytes(OUTPUT_BYTES)}))
    with Client.public(rig.stack) as client:
        polled = [client.post(small_zip()) for _ in range(scale.polled)]
    load = Load(rig.stack.gateway_url, [f"/api/tasks/{uid}" for uid in polled], rig.folder)
    order = Order(
        rig.stack.ports.gateway,
        str(rig.stack.certificates.ca_cert),
        scale.slow,
        MODEL,
        finished,
        seconds=scale.coming_seconds,
    )
    processes = rig.processes()
    beside, alone = list[Answered](), list[Answered]()
    held, idle_cpu = list[dict[str, float]](), list[dict[str, float]]()
    for _ in range(scale.rounds):
        _settle(processes)
        alone.append(wrk(load, connections=POLLERS, seconds=scale.load_seconds))
        before = processes.resident_mib()
        with SlowClients(order):
            _settle(processes)
            after = processes.resident_mib()
            held.append({name: KIB_PER_MIB * (after[name] - before[name]) / scale.slow for name in after})
            used, began = processes.cpu_seconds(), time.monotonic()
            time.sleep(min(scale.idle_seconds, scale.load_seconds))
            seconds = time.monotonic() - began
            idle_cpu.append({name: (now - used[name]) / seconds for name, now in processes.cpu_seconds().items()})
            beside.append(wrk(load, connections=POLLERS, seconds=scale.load_seconds))
    name = f"{POLLERS} connections that poll beside {scale.slow} slow clients"
    return [
        Row(
            f"{name}: p99",
            "ms",
            [MILLI * answered.p99_seconds for answered in beside],
            [MILLI * answered.p99_seconds for answered in alone],
            limit=AT_MOST_DOUBLE,
        ),
        Row(f"{name}: polls", "/s", [a.per_second for a in beside], [a.per_second for a in alone]),
        Row(
            f"{scale.slow} slow clients: memory of each in gateway and core",
            "KiB",
            [found["gateway"] + found["core"] for found in held],
            memory={part: f"{held[-1][part]:.1f} KiB" for part in held[-1]},
        ),
        Row(
            f"{scale.slow} slow clients: CPU time of gateway and core",
            "s/s",
            [used["gateway"] + used["core"] for used in idle_cpu],
        ),
    ]


def _settle(processes: Processes) -> None:
    """A thousand that come or go at once are another attack: what is measured is that they are there."""

    def is_quiet() -> bool:
        used = sum(processes.cpu_seconds().values())
        time.sleep(LOOK_SECONDS)
        return sum(processes.cpu_seconds().values()) - used < QUIET * LOOK_SECONDS

    eventually(is_quiet, within_seconds=SETTLE_SECONDS)
