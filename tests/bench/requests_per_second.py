"""Polls and posts: how many a second, how late the slowest are, against a hello-world on the same server.

The control answers a constant; a poll of ours goes from gateway to core to Redis and back, and a post of ours ends
with a task that is stored, committed and rung.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.bench.controls.hello import Hello
from tests.bench.processes import Meter
from tests.bench.rig import FORM, MODEL, Client, Rig, form, small_zip
from tests.bench.scale import Scale
from tests.bench.table import Limit, Row, at_least
from tests.bench.wrk import Answered, Load, wrk

POLLERS, POSTERS = 32, 16
POLLS = at_least(0.6)
POSTS = at_least(600, of_figure=True)
MILLI = 1000


@dataclass
class Runs:
    """What one kind of load found, a value for each round."""

    meter: Meter
    connections: int
    seconds: int
    answered: list[Answered] = field(default_factory=list)

    def run(self, load: Load) -> None:
        with self.meter.running():
            self.answered.append(wrk(load, connections=self.connections, seconds=self.seconds))

    def each(self, figure: Callable[[Answered], float]) -> list[float]:
        return [figure(answered) for answered in self.answered]

    @property
    def cpu_ms(self) -> dict[str, float]:
        """For each request."""
        requests = sum(answered.requests for answered in self.answered)
        return {name: MILLI * used for name, used in self.meter.per(requests).items()}


def polls(rig: Rig, scale: Scale) -> list[Row]:
    rig.without_agent()
    system = rig.processes()
    with Hello.up(rig.stack, rig.folder, workers=system.workers("gateway")) as hello:
        with Client.public(rig.stack) as client:
            pending_uids = [client.post(small_zip()) for _ in range(scale.polled)]
        finished_uids = [rig.finished(small_zip(100)) for _ in range(scale.polled)]
        control, pending, finished = (
            Runs(Meter(processes), POLLERS, scale.load_seconds) for processes in (hello.processes, system, system)
        )
        for _ in range(scale.rounds):
            control.run(Load(f"https://localhost:{hello.port}", ["/"], rig.folder))
            pending.run(_poll(rig, pending_uids))
            finished.run(_poll(rig, finished_uids))
    assert all(answered.not_ok == answered.requests for answered in pending.answered), "a poll wasn't answered by 551"
    assert not any(answered.not_ok for answered in finished.answered), "a poll wasn't answered by 200"
    return [
        *_rows(f"polls of pending tasks, {POLLERS} connections", pending, control, POLLS),
        *_rows(f"polls of finished tasks with a small zip, {POLLERS} connections", finished, control, None),
    ]


def posts(rig: Rig, scale: Scale) -> list[Row]:
    body = form(small_zip())
    rig.without_agent()
    system = rig.processes()
    with Hello.up(rig.stack, rig.folder, workers=system.workers("gateway")) as hello:
        control, ours = (Runs(Meter(processes), POSTERS, scale.load_seconds) for processes in (hello.processes, system))
        for _ in range(scale.rounds):
            control.run(Load(f"https://localhost:{hello.port}", ["/"], rig.folder, "POST", body, FORM))
            ours.run(post(rig, body))
            rig.clear()
    assert not any(answered.not_ok for answered in ours.answered), "a post wasn't answered by 200"
    return list(_rows(f"posts of 10 KB zips, {POSTERS} connections", ours, control, POSTS))


def post(rig: Rig, body: bytes) -> Load:
    paths = [f"/api/tasks/?model_human_readable_id={MODEL}"]
    return Load(rig.stack.gateway_url, paths, rig.folder, "POST", body, FORM)


def _poll(rig: Rig, uids: Sequence[str]) -> Load:
    return Load(rig.stack.gateway_url, [f"/api/tasks/{uid}" for uid in uids], rig.folder)


def _rows(name: str, ours: Runs, control: Runs, limit: Limit | None) -> list[Row]:
    rate = Row(
        name,
        "/s",
        ours.each(lambda answered: answered.per_second),
        control.each(lambda answered: answered.per_second),
        limit=limit,
        cpu=ours.cpu_ms,
        control_cpu=control.cpu_ms,
        cpu_unit="ms/request",
    )
    latencies = [
        Row(
            f"{name}: {quantile}",
            "ms",
            [MILLI * value for value in ours.each(figure)],
            [MILLI * value for value in control.each(figure)],
        )
        for quantile, figure in (
            ("p50", lambda answered: answered.p50_seconds),
            ("p99", lambda answered: answered.p99_seconds),
        )
    ]
    return [rate, *latencies]
