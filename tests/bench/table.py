"""What a bench hands back, and how it is shown: a Markdown table for people, JSON for scripts."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HEAD = ("figure", "ours", "control", "ratio", "limit", "CPU, ours", "CPU, control", "memory")


@dataclass(frozen=True)
class Limit:
    """`at_most` or `at_least` for the median ratio to the control, or for the figure's own median."""

    value: float
    is_upper: bool
    is_of_figure: bool

    def holds(self, value: float) -> bool:
        return value <= self.value if self.is_upper else value >= self.value

    def __str__(self) -> str:
        return f"{'figure' if self.is_of_figure else 'ratio'} {'≤' if self.is_upper else '≥'} {self.value:g}"


def at_most(value: float, *, of_figure: bool = False) -> Limit:
    return Limit(value, is_upper=True, is_of_figure=of_figure)


def at_least(value: float, *, of_figure: bool = False) -> Limit:
    return Limit(value, is_upper=False, is_of_figure=of_figure)


@dataclass(frozen=True)
class Row:
    """One figure: a value of ours for each round, and the control's of the same round."""

    name: str
    unit: str
    ours: Sequence[float]
    control: Sequence[float] = ()
    limit: Limit | None = None
    at: str = ""
    """The size at which it was measured, where that is what varies."""
    cpu: Mapping[str, float] = field(default_factory=dict)
    """Process → `cpu_unit`, over all rounds."""
    control_cpu: Mapping[str, float] = field(default_factory=dict)
    cpu_unit: str = ""
    memory: Mapping[str, str] = field(default_factory=dict)
    """Process → in words."""

    @property
    def ratios(self) -> list[float]:
        """Round by round: what disturbs this machine for a while disturbs both."""
        return [ours / control for ours, control in zip(self.ours, self.control, strict=True)] if self.control else []

    @property
    def ratio(self) -> float | None:
        return statistics.median(self.ratios) if self.ratios else None

    @property
    def holds(self) -> bool:
        if self.limit is None:
            return True
        value = statistics.median(self.ours) if self.limit.is_of_figure else self.ratio
        return value is not None and self.limit.holds(value)


def as_text(rows: Sequence[Row]) -> str:
    lines = [HEAD, ("---",) * len(HEAD), *(_cells(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def as_json(rows: Sequence[Row]) -> list[dict[str, Any]]:
    return [
        {
            "name": row.name,
            "at": row.at,
            "unit": row.unit,
            "ours": list(row.ours),
            "control": list(row.control),
            "ratio": row.ratio,
            "limit": str(row.limit) if row.limit else None,
            "holds": row.holds,
            "cpu": dict(row.cpu),
            "control_cpu": dict(row.control_cpu),
            "cpu_unit": row.cpu_unit,
            "memory": dict(row.memory),
        }
        for row in rows
    ]


def _cells(row: Row) -> Iterator[str]:
    yield f"{row.name}, {row.at}" if row.at else row.name
    yield f"{_range(row.ours)} {row.unit}"
    yield _range(row.control)
    yield _range(row.ratios)
    yield f"{row.limit}: {'holds' if row.holds else '**broken**'}" if row.limit else ""
    yield _costs(row.cpu, row.cpu_unit)
    yield _costs(row.control_cpu, row.cpu_unit)
    yield ", ".join(f"{process} {words}" for process, words in row.memory.items())


def _range(values: Sequence[float]) -> str:
    """The median, and the range in brackets where there is one."""
    if not values:
        return ""
    middle = _number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({_number(min(values))}–{_number(max(values))})"


def _costs(costs: Mapping[str, float], unit: str) -> str:
    if not costs:
        return ""
    parts = ", ".join(f"{process} {_number(cost)}" for process, cost in costs.items())
    total = f" = {_number(sum(costs.values()))}" if len(costs) > 1 else ""
    return f"{parts}{total} {unit}"


def _number(value: float) -> str:
    """Three digits that count."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.{2 if abs(value) >= 1 else 3}f}"
