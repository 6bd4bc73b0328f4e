"""A run's result as tables for people (Markdown) and as JSON."""

import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from tests.chaos.run import Result, Strike

EVIDENCE_LINES = 5


def as_text(result: Result) -> str:
    return "\n".join([*_head(result), "", *_outcomes(result), "", *_faults(result.strikes), "", *_bound(result)])


def as_json(result: Result) -> dict[str, Any]:
    plan, verdict = result.plan, result.verdict
    return {
        "seed": plan.seed,
        "tasks": plan.tasks,
        "minutes": plan.minutes,
        "on_clusters": plan.on_clusters,
        "every_seconds": plan.every_seconds,
        "lease_seconds": plan.lease_seconds,
        "seconds": round(result.seconds, 1),
        "is_good": result.is_good,
        "accepted": verdict.accepted,
        "finished": verdict.finished,
        "withdrawn": verdict.withdrawn,
        "nobodys": verdict.nobodys,
        "second_tries": verdict.second_tries,
        "failures": verdict.failures,
        "errors": verdict.errors,
        "defects": verdict.defects,
        "faults": [asdict(strike) for strike in result.strikes],
        "stories": [asdict(story) for story in verdict.stories],
    }


def _head(result: Result) -> Iterator[str]:
    plan = result.plan
    yield f"Seed {plan.seed}: {plan.tasks} tasks in {plan.minutes:g} minutes, {len(result.strikes)} faults with a probe"
    yield f"each; all had ended after {result.load_seconds:.0f} s, judged after {result.seconds:.0f} s."


def _outcomes(result: Result) -> Iterator[str]:
    verdict = result.verdict
    rows: list[tuple[str, object]] = [
        ("accepted", verdict.accepted),
        ("finished", verdict.finished),
        ("withdrawn by their client", verdict.withdrawn),
        ("made by posts without an answer", verdict.nobodys),
        ("attempts beyond a task's first", verdict.second_tries),
        ("failed, by reason", _counted(verdict.failures)),
        ("logged as errors", _counted(verdict.errors)),
    ]
    rows += [(f"**{name}**", len(lines)) for name, lines in verdict.defects.items()]
    yield from _table(("tasks", ""), rows)
    for name, lines in verdict.defects.items():
        yield from (f"\n{name}: {line}" for line in lines[:EVIDENCE_LINES])


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "none"


def _faults(strikes: Sequence[Strike]) -> Iterator[str]:
    rows = []
    for kind in sorted({strike.kind for strike in strikes}):
        ours = [strike for strike in strikes if strike.kind == kind]
        took = [strike.recovery_seconds for strike in ours if strike.recovery_seconds is not None]
        rows.append((kind, len(ours), f"{statistics.median(took):.1f}" if took else "", f"{max(took, default=0):.1f}"))
    yield from _table(("fault", "times", "recovery, median s", "worst s"), rows)
    for strike in strikes:
        if strike.error:
            yield f"\n{strike.kind} ({strike.target}) at {strike.at_seconds:.0f} s: {strike.error}"


def _bound(result: Result) -> Iterator[str]:
    accepted = result.verdict.accepted
    if result.is_good:
        yield f"0 of {accepted} accepted tasks went wrong: with 95 % confidence fewer than {3 / accepted:.2%} do (3/N)."
    else:
        yield "There are defects: see above."


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(str(cell) for cell in row)} |" for row in rows)
