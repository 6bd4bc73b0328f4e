"""The suite's parts run; what they measure of so little says nothing."""

import json
import shutil
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from tests.bench import plot, table
from tests.bench.__main__ import BENCHES
from tests.bench.rig import Rig
from tests.bench.scale import LITTLE
from tests.lacking import cannot_run, needs_root


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    needs_root("start a Docker engine of its own")
    if shutil.which("wrk") is None:
        cannot_run("not installed: wrk")
    with Rig.up() as rig:
        yield rig


@pytest.mark.parametrize("name", BENCHES)
def test_measures(rig: Rig, name: str) -> None:
    """Each figure of a bench is there, with its control's where it has one, for people, scripts and the plot."""
    rows = BENCHES[name](rig, LITTLE)
    assert all(row.ours and min(row.ours) >= 0 for row in rows)
    assert all(len(row.control) in (0, len(row.ours)) for row in rows)
    assert len(table.as_text(rows).splitlines()) == len(rows) + 2
    assert len(json.loads(json.dumps(table.as_json(rows)))) == len(rows)
    if sized := [row for row in rows if row.at]:
        ElementTree.fromstring(plot.as_svg(sized))
