"""One run: load and faults, then rest, then the judge."""

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from demo.stack import NotReadyError
from demo.supervision import SupervisorError
from tests.chaos import judge
from tests.chaos.faults import Fault, Kind, scheduled
from tests.chaos.judge import Verdict
from tests.chaos.load import DONE, Client, Order, Story, orders
from tests.chaos.system import System, started

CLIENTS = 48
STRIKERS = 48
PROBE_BYTES = 100
REST_SECONDS = 180.0
"""From the last fault on: the longest that a task may take to get over what happened to it."""


@dataclass(frozen=True)
class Plan:
    """What a run is made of. Faults start every `every_seconds`, and may overlap."""

    tasks: int
    minutes: float
    seed: int
    kinds: Sequence[Kind]
    every_seconds: float
    lease_seconds: float
    on_clusters: bool = False

    @property
    def seconds(self) -> float:
        return self.minutes * 60


@dataclass
class Strike:
    """A fault as it went. `recovery_seconds`: from the fault's end until a task posted then had succeeded."""

    kind: str
    target: str
    at_seconds: float
    ended_seconds: float | None = None
    recovery_seconds: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Result:
    plan: Plan
    strikes: list[Strike]
    verdict: Verdict
    load_seconds: float
    seconds: float

    @property
    def is_good(self) -> bool:
        """No defect, and every fault could be made."""
        return self.verdict.is_good and not any(strike.error for strike in self.strikes)


def run(folder: Path, plan: Plan, *, logs: Path | None = None) -> Result:
    """Starts the system in `folder`, and leaves nothing of it; `logs` is where its logs are copied to."""
    with started(folder, lease_seconds=plan.lease_seconds, on_clusters=plan.on_clusters) as system:
        try:
            return _Run(system, plan).result()
        finally:
            if logs:
                shutil.copytree(system.stack.folder / "logs", logs, dirs_exist_ok=True)


class _Run:
    def __init__(self, system: System, plan: Plan) -> None:
        self._system = system
        self._plan = plan
        self._clients: list[Client] = []
        self._strikes: list[Strike] = []
        self._started = time.monotonic()

    def result(self) -> Result:
        plan = self._plan
        with ThreadPoolExecutor(CLIENTS) as clients, ThreadPoolExecutor(STRIKERS) as strikers:
            try:
                load = orders(plan.tasks, seconds=plan.seconds, seed=plan.seed)
                following = [clients.submit(self._follow, order) for order in load]
                striking = self._strike_on_time(strikers)
                load_seconds = self._rest(following, striking)
            finally:
                self._system.ending.set()
        for future in [*following, *striking]:
            future.result()  # raises what went wrong in its thread
        _say("judging")
        verdict = judge.judged(self._system, self._clients)
        return Result(plan, self._strikes, verdict, load_seconds, self._now())

    def _now(self) -> float:
        return time.monotonic() - self._started

    def _strike_on_time(self, strikers: ThreadPoolExecutor) -> list[Future[Story]]:
        plan = self._plan
        count = round(plan.seconds / plan.every_seconds)
        striking = []
        for number, fault in enumerate(scheduled(plan.kinds, count=count, spacing=plan.every_seconds, seed=plan.seed)):
            self._system.last(fault.at_seconds - self._now())
            striking.append(strikers.submit(self._strike, fault, f"{plan.seed}-probe-{number}"))
        return striking

    def _strike(self, fault: Fault, probe: str) -> Story:
        """The probe's."""
        with self._system.alone(fault.target):
            strike = Strike(fault.kind.name, fault.target, self._now())
            self._strikes.append(strike)
            _say(f"{strike.at_seconds:6.1f} s  {strike.kind} ({strike.target})")
            try:
                fault.kind.strike(self._system, fault.target)
            except (AssertionError, SupervisorError, NotReadyError, OSError) as error:
                strike.error = repr(error)
            strike.ended_seconds = self._now()
        story = self._follow(Order(probe, strike.ended_seconds, content_bytes=PROBE_BYTES, run_seconds=0))
        if story.end and story.end.status == DONE:
            strike.recovery_seconds = self._now() - strike.ended_seconds
        return story

    def _follow(self, order: Order) -> Story:
        client = Client(self._system, self._now, order)
        self._clients.append(client)
        self._system.last(order.at_seconds - self._now())
        return client.follow()

    def _rest(self, following: Sequence[Future[Story]], striking: Sequence[Future[Story]]) -> float:
        """Waits for the ends of all tasks, for as long as they may take after the last fault."""
        _say("the last fault has begun")
        done, open_ = wait([*following, *striking], timeout=REST_SECONDS)
        _say(f"{len(done)} tasks ended, {len(open_)} haven't")
        return self._now()


def _say(what: str) -> None:
    print(what, flush=True)
