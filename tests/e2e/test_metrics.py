"""What Prometheus reads: figures that move by what happens, and nothing else."""

import os
import signal
import socket
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import cast

import requests
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.conftest import AGENTS, INPUT, ModelMaker
from tests.e2e.gateways import gateway
from tests.waiting import eventually

Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]
SERVICE = "inference_server_"


def figures_of(text: str) -> Figures:
    return {
        (sample.name.removeprefix(SERVICE), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(figures: Figures, name: str, **labels: str) -> float:
    """The sum of those with these labels, as Prometheus makes it."""
    return sum(value for (its, has), value in figures.items() if its == name and labels.items() <= dict(has).items())


def scraped(stack: Stack, name: str) -> Figures:
    answer = requests.get(stack.metrics_url(name), timeout=10)
    assert (answer.status_code, answer.headers["Content-Type"].split(";")[0]) == (200, "text/plain")
    return figures_of(answer.text)


def of_agents(stack: Stack, name: str, **labels: str) -> float:
    return sum(of(scraped(stack, agent), name, **labels) for agent in AGENTS)


def ended(core: Api, model: str) -> Figures:
    """Core's, when it has counted the end of a task, which its client hears of a moment sooner."""

    def figures() -> Figures | None:
        found = figures_of(core.get("/metrics").text)
        return found if of(found, "tasks_ended_total", model=model) else None

    return cast(Figures, eventually(figures))


def test_a_task_is_counted_once_at_each_station(stack: Stack, api: Api, core: Api, model: ModelMaker) -> None:
    """Core counts its post and its end, an agent the phases between, the gateway the calls and their bytes."""
    name = model("cp -R /input/. /output/")
    api.output(name, INPUT)
    figures = ended(core, name)
    assert of(figures, "tasks_posted_total", model=name) == 1
    assert of(figures, "tasks_ended_total", model=name) == 1
    assert of(figures, "tasks_ended_total", model=name, state="finished", reason="") == 1
    assert of(figures, "task_duration_seconds_count", model=name, state="finished") == 1
    assert of(figures, "task_phase_duration_seconds_count", model=name, phase="queued") == 1
    eventually(lambda: of_agents(stack, "task_phase_duration_seconds_count", model=name) == 3)
    for phase in ("ready", "running", "output"):
        assert of_agents(stack, "task_phase_duration_seconds_count", model=name, phase=phase) == 1, phase
    assert of_agents(stack, "slots") == 2


def test_a_failure_is_counted_by_its_reason(api: Api, core: Api, model: ModelMaker) -> None:
    name = model("exit 3")
    api.failure(name, INPUT)
    figures = ended(core, name)
    assert of(figures, "attempts_failed_total", model=name, reason="exit_nonzero") == 1
    assert of(figures, "tasks_ended_total", model=name, state="failed", reason="exit_nonzero") == 1
    assert of(figures, "tasks_ended_total", model=name) == 1


def test_what_runs_is_seen(stack: Stack, api: Api, model: ModelMaker) -> None:
    """A slot is busy as long as its task runs."""
    uid = api.post(model("sleep 1000"), INPUT)
    eventually(lambda: of_agents(stack, "slots_busy") == 1)
    assert api.delete(uid).status_code == 200
    eventually(lambda: of_agents(stack, "slots_busy") == 0)


def test_requests_are_counted_by_route(stack: Stack, api: Api) -> None:
    """By the rule and not by what the client writes: uids and unknown paths make no series of their own."""

    def moves(name: str, by: int, act: Callable[[], object], **labels: str) -> None:
        """Once the answer is out: a request is counted when it is over."""
        before = of(scraped(stack, "gateway"), name, **labels)
        act()
        after = eventually(lambda: (now := of(scraped(stack, "gateway"), name, **labels)) != before and now)
        assert after - before == by

    uid, count = "u" * 43, "http_request_duration_seconds_count"
    polls = {"method": "GET", "route": "/api/tasks/<uid>", "status": "554"}
    moves(count, 1, lambda: api.get(f"/api/tasks/{uid}"), **polls)
    moves(count, 1, lambda: api.get("/nothing/at/all"), method="any", route="unmatched", status="404")
    waits = {"method": "GET", "route": "/api/tasks/<uid>?wait", "status": "554"}
    moves(count, 1, lambda: api.get(f"/api/tasks/{uid}?wait=1"), **waits)
    body = bytes(100_000)
    moves("http_received_bytes_total", len(body), lambda: api.call("POST", "/api/tasks/", data=body))
    assert not any(uid in dict(labels).values() for _, labels in scraped(stack, "gateway"))


def test_the_gateway_tells_when_its_certificate_expires(stack: Stack, core: Api) -> None:
    """To Prometheus, and to operators at core."""
    expires = of(scraped(stack, "gateway"), "certificate_expiry_timestamp_seconds")
    name = socket.gethostname()
    [gateway] = eventually(lambda: [one for one in core.get("/api/gateways/").json() if one["name"] == name])
    assert gateway["is_there"]
    assert gateway["version"] == "2.0.0"
    end = x509.load_pem_x509_certificate(stack.certificates.cert.read_bytes()).not_valid_after_utc
    assert datetime.fromisoformat(gateway["certificate_expires"]) == end
    assert expires == end.timestamp()


def test_the_metrics_port_has_nothing_else(stack: Stack) -> None:
    url = stack.metrics_url("gateway").removesuffix("/metrics")
    assert requests.get(f"{url}/api/models/", timeout=10).status_code == 404


def workers(parent: int) -> set[int]:
    return {int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()}


def test_the_figures_of_several_processes_are_one_sum(stack: Stack, tmp_path: Path) -> None:
    """Whichever of them answers Prometheus, and whichever answered the clients, be it one that has died since."""
    asked = 30
    with gateway(stack, tmp_path, GATEWAY_WORKERS="3") as another:

        def count() -> float:
            figures = figures_of(requests.get(another.metrics_url, timeout=5).text)
            return of(figures, "http_request_duration_seconds_count", route="/", status="200")

        for _ in range(asked):
            assert another.get("/").ok
        eventually(lambda: count() == asked)
        assert {count() for _ in range(6)} == {asked}
        killed, *_ = children = workers(another.pid)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: len(workers(another.pid) - {killed}) == len(children))
        assert count() == asked
