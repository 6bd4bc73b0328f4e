"""Secrets are nowhere but where they belong: not in processes, containers, images, logs or answers."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from demo.image import docker
from demo.ports import free_ports
from demo.stack import REPOSITORY, Stack
from gpu_agent.engine import TASK
from tests.e2e.api import Api
from tests.e2e.conftest import AGENTS, INPUT, ModelMaker
from tests.waiting import eventually

WEBHOOK_SECRET = secrets.token_urlsafe(32)

Places = Iterator[tuple[str, str]]


@pytest.fixture
def known(stack: Stack) -> dict[str, str]:
    """What nobody may find, by name."""
    key = stack.certificates.key.read_text().splitlines()[2]
    cookies = {cookie.parent.name: cookie.read_text().strip() for cookie in stack.folder.glob("*/.erlang.cookie")}
    return {"core's token": stack.token_file.read_text().strip(), "webhook": WEBHOOK_SECRET, "TLS key": key, **cookies}


def _processes() -> Places:
    """All of this machine that may be looked at: whoever has a secret of the stack is one of the stack's."""
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            with suppress(OSError):
                yield str(process / name), (process / name).read_text(errors="replace")


def _logs(stack: Stack) -> Places:
    for log in stack.logs():
        yield str(log), log.read_text(errors="replace")


def _container(stack: Stack, uid: str) -> Places:
    """A task's container as its engine shows it, its image with all layers, and its volumes."""

    def asked(*command: str) -> str:
        return docker(stack.docker_host, *command).strip()

    container = eventually(lambda: asked("ps", "--quiet", "--filter", f"label={TASK}={uid}"))
    image = asked("inspect", "--format", "{{.Image}}", container)
    volumes = asked("volume", "ls", "--quiet", "--filter", f"label={TASK}={uid}").split()
    for command in (
        ("inspect", container),
        ("logs", container),
        ("exec", container, "cat", "/proc/self/environ"),
        ("inspect", image),
        ("history", "--no-trunc", image),
        ("volume", "inspect", *volumes),
    ):
        yield f"docker {command[0]}", asked(*command)


def _answers(stack: Stack, api: Api, core: Api, uid: str) -> Places:
    """Of what is there, of what goes wrong, and of who isn't let in."""
    stranger = Api.private(stack.core_url, "")
    for by in (api, core, stranger):
        for method, path in (
            ("GET", f"/api/tasks/{uid}"),
            ("GET", f"/api/tasks/{uid}/status"),
            ("GET", f"/api/tasks/outputs/{uid}"),
            ("GET", "/api/tasks/"),
            ("POST", "/api/tasks/"),
            ("POST", "/api/tasks/?model_human_readable_id=x&webhook=nowhere&priority=x"),
            ("PUT", "/api/tasks/"),
            ("PATCH", "/api/uploads/x"),
            ("GET", "/api/models/"),
            ("GET", "/api/agents/"),
            ("GET", "/api/gateways/"),
            ("GET", "/api/audit/"),
            ("GET", "/api/overview"),
            ("GET", "/dashboard"),
            ("GET", "/metrics"),
            ("GET", "/openapi.json"),
            ("GET", "/readyz"),
            ("GET", "/nowhere"),
        ):
            answer = by.call(method, path, headers={"Webhook-Secret": WEBHOOK_SECRET})
            yield f"{method} {by.url}{path}", f"{answer.headers} {answer.text}"
    for name in ("gateway", *AGENTS):
        yield f"metrics of {name}", requests.get(stack.metrics_url(name), timeout=30).text


def test_nothing_tells_a_secret(stack: Stack, api: Api, core: Api, model: ModelMaker, known: dict[str, str]) -> None:
    """While a task runs whose end is to be told."""
    params = {"model_human_readable_id": model("sleep 600"), "webhook": "http://127.0.0.1:1/"}
    posted = api.call("POST", "/api/tasks/", params=params, headers={"Webhook-Secret": WEBHOOK_SECRET}, zip=INPUT)
    uid = posted.json()
    container = [*_container(stack, uid)]
    answers = [*_answers(stack, api, core, uid)]
    processes = [*_processes()]
    for found, sign in ((container, uid), (answers, uid), (processes, str(stack.token_file))):
        assert any(sign in text for _, text in found), "it would see no secret either"
    places = [*container, *answers, *processes, *_logs(stack)]
    assert not [f"{name} in {place}" for place, text in places for name, secret in known.items() if secret in text]


def test_the_stacks_folder_is_its_owners(stack: Stack) -> None:
    """Whoever else has an account on the machine reads none of it."""
    assert stack.folder.stat().st_mode & 0o077 == 0
    assert stack.token_file.stat().st_mode & 0o077 == 0


def test_a_core_that_is_refused_keeps_its_passwords_to_itself(stack: Stack, tmp_path: Path) -> None:
    """They come from files, and are in none of its words about Redis and RabbitMQ."""
    files = {name: tmp_path / name for name in ("CORE_TOKEN_FILE", "REDIS_PASSWORD_FILE", "RABBITMQ_PASSWORD_FILE")}
    for file in files.values():
        file.write_text(secrets.token_urlsafe())
    [port] = free_ports(1)
    environment = {
        "CORE_HOST": "127.0.0.1",
        "CORE_PORT": str(port),
        "REDIS_URL": stack.redis_url,
        "RABBITMQ_URL": stack.rabbitmq_url.replace("guest:guest@", "guest@"),
        **{name: str(file) for name, file in files.items()},
    }
    log = tmp_path / "core.log"
    api = Api.private(f"http://127.0.0.1:{port}", files["CORE_TOKEN_FILE"].read_text())
    with log.open("w") as output:
        command = [sys.executable, "-m", "core"]
        process = subprocess.Popen(command, env=os.environ | environment, cwd=REPOSITORY, stdout=output, stderr=output)
    try:
        eventually(lambda: "broker" in log.read_text() and "store" in log.read_text())
        answers = [api.get(path).text for path in ("/readyz", "/metrics", "/api/models/", "/api/overview")]
        told = [*answers, *(text for place, text in _processes() if f"/{process.pid}/" in place)]
    finally:
        process.terminate()
        process.wait(30)
    told.append(log.read_text())
    assert not [name for name, file in files.items() for text in told if file.read_text() in text]


@pytest.mark.parametrize("service", ["core", "gateway", "gpu_agent"])
def test_a_service_that_is_set_wrongly_quotes_no_secret(service: str) -> None:
    """It ends with what is wrong."""
    secret = secrets.token_urlsafe()
    wrong = {"CORE_PORT": "x", "GATEWAY_PORT": "x", "CPU_SLOTS": "x"}
    environment = {"PATH": os.environ["PATH"], "CORE_TOKEN": secret, "RABBITMQ_PASSWORD": secret, **wrong}
    command = [sys.executable, "-m", service]
    ended = subprocess.run(command, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert ended.returncode
    assert "Error" in ended.stderr
    assert secret not in ended.stdout + ended.stderr
