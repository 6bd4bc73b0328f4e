"""What Prometheus reads: figures that move by what happens, and nothing else."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import cast

import requests
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

from demo.ports import free_ports
from demo.stack import REPOSITORY, Stack
from tests.e2e.api import Api
from tests.e2e.conftest import AGENTS, INPUT, ModelMaker
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

    def moved(name: str, act: Callable[[], object], **labels: str) -> float:
        before = of(scraped(stack, "gateway"), name, **labels)
        act()
        return of(scraped(stack, "gateway"), name, **labels) - before

    uid, count = "u" * 43, "http_request_duration_seconds_count"
    polls = {"method": "GET", "route": "/api/tasks/<uid>", "status": "554"}
    assert moved(count, lambda: api.get(f"/api/tasks/{uid}"), **polls) == 1
    assert moved(count, lambda: api.get("/nothing/at/all"), method="any", route="unmatched", status="404") == 1
    waits = {"method": "GET", "route": "/api/tasks/<uid>?wait", "status": "554"}
    assert moved(count, lambda: api.get(f"/api/tasks/{uid}?wait=1"), **waits) == 1
    body = bytes(100_000)
    assert moved("http_received_bytes_total", lambda: api.call("POST", "/api/tasks/", data=body)) == len(body)
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


@contextmanager
def gateway(stack: Stack, *, workers: int) -> Iterator[tuple[str, str, int]]:
    """Another one, with so many processes: where it serves, where its figures are, and the pid of their parent."""
    port, metrics_port = free_ports(2)
    environment = {
        "GATEWAY_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "GATEWAY_WORKERS": str(workers),
        "GATEWAY_NAME": "another",
        "METRICS_PORT": str(metrics_port),
        "CORE_URL": stack.core_url,
        "CORE_TOKEN_FILE": str(stack.token_file),
        "TLS_CERT_FILE": str(stack.certificates.cert),
        "TLS_KEY_FILE": str(stack.certificates.key),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway"], cwd=REPOSITORY, env=os.environ | environment, stdout=subprocess.DEVNULL
    )
    try:
        yield f"https://localhost:{port}", f"http://127.0.0.1:{metrics_port}/metrics", process.pid
    finally:
        process.terminate()
        process.wait(30)


def workers(parent: int) -> set[int]:
    return {int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()}


def test_the_figures_of_several_processes_are_one_sum(stack: Stack) -> None:
    """Whichever of them answers Prometheus, and whichever answered the clients, be it one that has died since."""
    asked = 30
    with gateway(stack, workers=3) as (url, metrics, parent):

        def answers() -> bool:
            try:
                return requests.get(f"{url}/healthz", verify=str(stack.certificates.ca_cert), timeout=5).ok
            except requests.ConnectionError:
                return False

        eventually(answers)

        def count() -> float:
            figures = figures_of(requests.get(metrics, timeout=5).text)
            return of(figures, "http_request_duration_seconds_count", route="/healthz", status="200")

        before = count()
        for _ in range(asked):  # each on a connection of its own, so that the kernel spreads them
            assert answers()
        assert {count() - before for _ in range(6)} == {asked}
        killed, *_ = children = workers(parent)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: len(workers(parent) - {killed}) == len(children))
        assert count() - before == asked
