"""A queue on one slot: how long the slot stands empty between two containers, and how soon the queue is done.

The controls are the bare engine's start call, and its rate at the same work one after the other.
"""

import statistics
import threading
import time
from itertools import islice, pairwise

from tests.bench.controls.engine import BareEngine
from tests.bench.processes import Meter, this_process
from tests.bench.rig import NAME, SECONDS, SLOW_MODEL, Client, Rig, seconds, small_zip
from tests.bench.scale import Scale
from tests.bench.table import Row, at_least, at_most
from tests.zips import files_of, zip_of

GAP_LIMIT = 1.2
RATE_LIMIT = 0.9


def rows(rig: Rig, scale: Scale) -> list[Row]:
    rig.with_agent()
    bare = BareEngine(rig.stack.docker_host, rig.folder / "bare")
    ours, control = Meter(rig.processes()), Meter(this_process("caller"))
    gaps, starts, our_rates, bare_rates = [], [], [], []
    for _ in range(scale.rounds):
        with control.running():
            bare_rates.append(_bare_rate(bare, rig.image, scale.tasks))
        starts.append(statistics.median(bare.start_seconds[-scale.tasks :]))
        with ours.running():
            events = _drained(rig, bare, scale)
        ends = [at for kind, at in events if kind == "die"]
        our_rates.append(scale.tasks / (ends[-1] - ends[0]))
        gaps.append(
            statistics.median(at - ended for (kind, ended), (next_kind, at) in pairwise(events) if kind == "die")
        )
    bare.close()
    tasks = scale.rounds * scale.tasks
    return [
        Row("gap between two containers, to the bare start", "s", gaps, starts, limit=at_most(GAP_LIMIT)),
        Row(
            "drain of queued tasks, to the bare engine",
            "tasks/s",
            our_rates,
            bare_rates,
            limit=at_least(RATE_LIMIT),
            cpu=ours.per(tasks),
            control_cpu=control.per(tasks),
            cpu_unit="s/task",
        ),
    ]


def _bare_rate(bare: BareEngine, image: str, tasks: int) -> float:
    [content] = files_of(small_zip()).values()

    def work() -> None:
        for _ in range(tasks):
            bare.run(image, NAME, content)

    return tasks / seconds(work)


def _drained(rig: Rig, bare: BareEngine, scale: Scale) -> list[tuple[str, float]]:
    """The engine's events of a slow task and of those that were queued behind it meanwhile."""
    events: list[tuple[str, float]] = []
    with Client.public(rig.stack) as client, bare.events("start", "die") as stream:
        listener = threading.Thread(target=lambda: events.extend(islice(stream, 2 * (scale.tasks + 1))))
        listener.start()
        first = zip_of({NAME: b"0", SECONDS: str(scale.queueing_seconds).encode()})
        uids = [client.post(first, model=SLOW_MODEL)]
        uids += [client.post(small_zip()) for _ in range(scale.tasks)]
        queued_at = time.time()
        listener.join()
        for uid in uids:
            client.output(uid)
    events.sort(key=lambda event: event[1])
    assert queued_at < events[1][1], "the first task ended before the others were queued"
    return events
