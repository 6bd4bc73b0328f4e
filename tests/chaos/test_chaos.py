"""A minute of chaos. `just chaos` has more of it."""

from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.faults import KINDS
from tests.chaos.run import Plan, run
from tests.lacking import needs_root

SOME = {"agent killed", "core killed", "Redis killed", "queue purged", "RabbitMQ cut off", "agents refused by core 5 s"}


@pytest.mark.timeout(900)  # the judge waits long for what doesn't come
def test_nothing_is_lost_in_a_minute_of_chaos(tmp_path: Path) -> None:
    """Tasks end well, once, and leave nothing, while parts of the system are killed and cut off."""
    needs_root("start a Docker engine to be killed")
    kinds = [kind for kind in KINDS if kind.name in SOME]
    plan = Plan(tasks=25, minutes=0.5, seed=1, kinds=kinds, every_seconds=5, lease_seconds=5)
    result = run(tmp_path / "stack", plan)
    assert result.is_good, report.as_text(result)
    assert {strike.kind for strike in result.strikes} == SOME
