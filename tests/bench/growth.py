"""Whether a task costs the same however many there are: a post, a poll, a claim, a page of the list, and core at rest.

The control is the same call with the fewest tasks. Nobody works at the queue meanwhile.
"""

import secrets
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from core.contract.http import ClaimRequest
from tests.bench.processes import TICK_SECONDS, Processes
from tests.bench.requests_per_second import POSTERS, post
from tests.bench.rig import Client, Rig, form, seconds, small_zip
from tests.bench.scale import Scale
from tests.bench.table import Row, at_most
from tests.bench.wrk import wrk

LATENCY = at_most(1.5)
AT_REST = at_most(0.1, of_figure=True)
"""Of a processor, for core."""

PAGE = 10
TINY_BYTES = 10
FEW = 500
"""So few are posted one by one, which hits the number; more by wrk, for a time."""

FINISHERS = 8
MILLI = 1000


@dataclass(frozen=True)
class Point:
    """What was measured with so many tasks."""

    at: str
    calls: Mapping[str, Sequence[float]]
    """Kind → its median in each round, in seconds."""
    at_rest: Mapping[str, float]
    """Process → seconds of CPU in a second."""


def rows(rig: Rig, scale: Scale) -> list[Row]:
    rig.without_agent()
    points = []
    queued = 0
    for size in scale.queued:
        queued += _queue(rig, size - queued)
        points.append(_measure(rig, scale, f"{size:,} queued"))
    rig.clear()
    _finish(rig, scale.finished)
    points.append(_measure(rig, scale, f"{scale.finished:,} finished"))
    return list(_rows(points))


def _rows(points: Sequence[Point]) -> Iterator[Row]:
    first = points[0]
    for kind, control in first.calls.items():
        for point in points:
            ours = [MILLI * value for value in point.calls[kind]]
            is_first = point is first
            yield Row(
                kind,
                "ms",
                ours,
                [] if is_first else [MILLI * value for value in control],
                limit=None if is_first else LATENCY,
                at=point.at,
            )
    for point in points:
        yield Row(
            "core at rest",
            "s/s",
            [point.at_rest["core"]],
            [max(first.at_rest["core"], TICK_SECONDS)] if point is not first else (),
            limit=AT_REST,
            at=point.at,
            cpu=point.at_rest,
            cpu_unit="s/s",
        )


def _measure(rig: Rig, scale: Scale, at: str) -> Point:
    """The tasks that it needs are its own, and gone at the end."""
    calls: dict[str, list[float]] = {"post": [], "poll": [], "list": [], "claim": []}
    with Client.public(rig.stack) as client, Client.private(rig.stack) as core:
        kinds: Mapping[str, Callable[[str], object]] = {
            "poll": lambda uid: client.call("GET", f"/api/tasks/{uid}"),
            "list": lambda _: core.call("GET", f"/api/tasks/?limit={PAGE}"),
            "claim": lambda uid: _claim(core, uid),
        }
        for _ in range(scale.rounds):
            uids: list[str] = []
            took = [_posted(client, uids) for _ in range(scale.calls)]
            calls["post"].append(statistics.median(took))
            for kind, call in kinds.items():
                calls[kind].append(statistics.median(seconds(partial(call, uid)) for uid in uids))
            for uid in uids:
                core.call("DELETE", f"/api/tasks/{uid}")
    return Point(at, calls, _at_rest(rig.processes(), scale.idle_seconds))


def _posted(client: Client, uids: list[str]) -> float:
    """One more; how long it took."""
    return seconds(lambda: uids.append(client.post(_tiny())))


def _claim(core: Client, uid: str) -> None:
    request = ClaimRequest(agent="bench", claim_id=secrets.token_hex(8))
    headers = {"Content-Type": "application/json"}
    status, body = core.call("POST", f"/api/tasks/{uid}/claim", request.model_dump_json().encode(), headers)
    assert status == 200, body


def _at_rest(processes: Processes, wall_seconds: float) -> dict[str, float]:
    used = processes.cpu_seconds()
    time.sleep(wall_seconds)
    return {name: (after - used[name]) / wall_seconds for name, after in processes.cpu_seconds().items()}


def _queue(rig: Rig, count: int) -> int:
    """Posts at least so many tasks; how many they were."""
    posted, rate = 0, 0.0
    while count - posted > FEW:
        wanted = int((count - posted) / rate) if rate else 1
        answered = wrk(post(rig, form(_tiny())), connections=POSTERS, seconds=max(1, wanted))
        assert not answered.not_ok, f"{answered.not_ok} posts weren't answered by 200"
        posted, rate = posted + answered.requests, answered.per_second
    with Client.public(rig.stack) as client:
        while posted < count:
            client.post(_tiny())
            posted += 1
    return posted


def _finish(rig: Rig, count: int) -> None:
    def finish(share: int) -> None:
        with Client.public(rig.stack) as client, Client.private(rig.stack) as core:
            for _ in range(share):
                core.finish(client.post(_tiny()), _tiny())

    with ThreadPoolExecutor(FINISHERS) as pool:
        shares = [count // FINISHERS + (number < count % FINISHERS) for number in range(FINISHERS)]
        list(pool.map(finish, shares))


def _tiny() -> bytes:
    return small_zip(TINY_BYTES)
