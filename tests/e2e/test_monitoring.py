"""What ships for Prometheus and Grafana asks only for what there is."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from demo.stack import REPOSITORY, Stack
from tests.e2e.api import Api

MONITORING = REPOSITORY / "deploy" / "monitoring"
RULES = (MONITORING / "alerts.yaml").read_text()
DASHBOARD = json.loads((MONITORING / "grafana" / "dashboard.json").read_text())
GUIDE = (REPOSITORY / "docs" / "monitoring.md").read_text()

NAME = re.compile(r"inference_server_\w+")
TYPE = re.compile(r"^# TYPE (\w+) (\w+)$", re.MULTILINE)
SELECTOR = re.compile(r"(inference_server_\w+){([^}]*)}")
LABEL = re.compile(r'(\w+)(?:=|!=|=~|!~)"')
OF_HISTOGRAMS = ("_bucket", "_count", "_sum")
OF_PROMETHEUS = {"job", "instance", "le"}
OF_PROCESSES = ("process_", "python_")


def expressions() -> Iterator[str]:
    yield from re.findall(r"^ +expr: (.*)$", RULES, re.MULTILINE)
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    for variable in DASHBOARD["templating"]["list"]:
        yield variable["query"]["query"]


@pytest.fixture(scope="module")
def scrapes(stack: Stack, core: Api) -> str:
    """Of each service of the running stack."""
    others = [requests.get(stack.metrics_url(name), timeout=10).text for name in ("gateway", "agent-1")]
    return "\n".join([core.get("/metrics").text, *others])


@pytest.fixture(scope="module")
def kinds(scrapes: str) -> dict[str, str]:
    """The metrics that are scraped, and what each is."""
    return dict(TYPE.findall(scrapes))


def test_all_that_is_asked_for_is_scraped(kinds: dict[str, str]) -> None:
    there = {name + end for name, kind in kinds.items() for end in (OF_HISTOGRAMS if kind == "histogram" else ("",))}
    asked = {name for expression in expressions() for name in NAME.findall(expression)}
    assert len(asked) > 30
    assert asked <= there


def test_expressions_are_whole() -> None:
    """As far as can be told without Prometheus: brackets and quotes end, labels are compared with strings."""
    for expression in expressions():
        for begin, end in ("()", "[]", "{}"):
            assert expression.count(begin) == expression.count(end), expression
        assert expression.count('"') % 2 == 0, expression
        for _, selector in SELECTOR.findall(expression):
            assert re.fullmatch(r'\w+(=|!=|=~|!~)"[^"]*"(,\w+(=|!=|=~|!~)"[^"]*")*', selector), expression


def test_labels_are_those_of_the_metric(scrapes: str) -> None:
    """As far as the stack has such a series yet."""
    for expression in expressions():
        for name, selector in SELECTOR.findall(expression):
            for series in re.findall(rf"^{name}{{(.*)}} ", scrapes, re.MULTILINE):
                assert set(LABEL.findall(selector)) - OF_PROMETHEUS <= set(LABEL.findall(series)), expression


def test_each_metric_stands_in_the_guide(kinds: dict[str, str]) -> None:
    """And the guide has no other."""
    rows = GUIDE.split("## What there is")[1]
    told = {name for row in re.findall(r"^\| (`[^|]*) \|", rows, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    there = {name.removeprefix("inference_server_") for name in kinds if not name.startswith(OF_PROCESSES)}
    assert told == there


def test_each_alert_stands_in_the_guide() -> None:
    """With what to do, and the guide has no other."""
    alerts: list[Any] = re.findall(r"- alert: (\w+)$", RULES, re.MULTILINE)
    rows = GUIDE.split("## What wakes you")[1].split("##")[0]
    told = [name for row in re.findall(r"^\| (`[^|]*) \|", rows, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert sorted(told) == sorted(alerts)


def test_panels_know_where_to_ask() -> None:
    """Each has the data source that is provisioned, and a place of its own."""
    asking = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in asking} == {"prometheus"}
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]}
    assert len(places) == len(DASHBOARD["panels"])
