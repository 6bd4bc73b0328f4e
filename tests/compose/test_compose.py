"""`docker compose up` from a fresh clone, and the main job through https://localhost:443."""

import json
import re
import secrets
import socket
import ssl
import sys
from collections.abc import Callable

import aiormq
import pytest
import requests

from core.contract import queues
from tests.compose.conftest import OURS, SERVICES, Site
from tests.compose.operating import doctor
from tests.e2e.api import Api
from tests.e2e.conftest import COPY, INPUT
from tests.images import Images
from tests.leaks import GPU_QUEUES, QUEUES
from tests.waiting import eventually
from tests.zips import files_of, zip_of

# The first one waits until base images are made, ours are built, and all of it is up.
pytestmark = pytest.mark.timeout(900)

OUTPUT = {**files_of(INPUT), "measurements/": b""}
SLOW = f"sleep 3; {COPY}"
FAILING = "echo the weights are missing; exit 3"


@pytest.fixture
def model(core: Api, images: Images) -> Callable[..., str]:
    """Registers a model that runs a shell script, on core, as an operator does."""

    def registered(script: str, **parameters: str) -> str:
        name = f"model-{secrets.token_hex(4)}"
        parameters |= {"human_readable_id": name, "container_tag": images.running(script), "use_gpu": "false"}
        answer = core.call("POST", "/api/models/", params=parameters)
        assert answer.status_code == 200, answer.text
        return name

    return registered


def test_everything_is_healthy(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    """`up --wait` returns when every health check has passed."""
    for service in SERVICES:
        assert site.inspect(service)["State"]["Health"]["Status"] == "healthy", service
    with capsys.disabled():
        print(f"\ncompose: {', '.join(f'{name} {seconds:.0f} s' for name, seconds in site.took_seconds.items())}")
        for service in OURS:
            [image] = json.loads(site.host.run("docker", "image", "inspect", site.inspect(service)["Image"]).stdout)
            layers = len(image["RootFS"]["Layers"])
            print(f"compose: the image of {service}: {image['Size'] / 1e6:.0f} MB in {layers} layers")


def test_the_files_are_valid(site: Site) -> None:
    """Also with what can stand beside it."""
    for beside in ("deploy/gpu.yaml", "deploy/monitoring.yaml", "deploy/redirect.yaml", "deploy/tls.yaml"):
        site.compose("--file", "docker-compose.yaml", "--file", beside, "config", "--quiet")


def test_main_job(api: Api, model: Callable[..., str]) -> None:
    """A zip comes back as the model leaves it, folders included, until it is deleted."""
    uid = api.post(model(f"{COPY}; mkdir /output/empty"), INPUT)
    assert _result(api, uid) == {**OUTPUT, "empty/": b""}
    assert api.delete(uid).status_code == 200
    assert api.get(f"/api/tasks/{uid}").status_code == 554


def test_a_model_that_fails(api: Api, model: Callable[..., str]) -> None:
    failure = api.failure(model(FAILING), INPUT)
    assert failure["reason"] == "exit_nonzero"
    assert failure["exit_code"] == 3
    assert "the weights are missing" in failure["message"]


def test_many_megabytes(api: Api, model: Callable[..., str]) -> None:
    """More than the memory of a read-only container's /tmp is asked for passes through."""
    content = secrets.token_bytes(1 << 20) * 64
    assert files_of(api.output(model(COPY), zip_of({"large": content})))["large"] == content


@pytest.mark.parametrize("service", SERVICES)
def test_a_restart_loses_nothing(site: Site, api: Api, model: Callable[..., str], service: str) -> None:
    """Neither what is done, nor what runs, nor what waits."""
    done = api.post(model(COPY), INPUT)
    assert api.wait_for_end(done) == 200
    slow = model(SLOW)
    unfinished = [api.post(slow, INPUT) for _ in range(2)]
    site.compose("restart", service)
    for uid in [*unfinished, done]:
        assert _result(api, uid) == OUTPUT


def test_a_killed_redis_keeps_what_it_has_answered(site: Site, api: Api, model: Callable[..., str]) -> None:
    """`docker compose up` brings it back with its data, whatever state the others are in."""
    done = api.post(model(COPY), INPUT)
    assert api.wait_for_end(done) == 200
    site.compose("kill", "redis")
    site.compose("up", "--detach", "--wait")
    assert _result(api, done) == OUTPUT
    assert files_of(api.output(model(COPY), INPUT)) == OUTPUT


def _result(api: Api, uid: str) -> dict[str, bytes]:
    """Patiently: a gateway that is restarted refuses connections, and one without core or Redis says 503."""

    def fetched() -> dict[str, bytes] | None:
        try:
            answer = api.get(f"/api/tasks/{uid}")
        except requests.ConnectionError:
            return None
        assert answer.status_code in (200, 551, 503), answer.text
        return files_of(answer.content) if answer.status_code == 200 else None

    return eventually(fetched, within_seconds=120) or {}


def test_the_operators_page(site: Site) -> None:
    """`just dashboard` says where it is, and which file has what opens it."""
    said = site.deploy("dashboard")
    [page] = re.findall(r"^http://\S+$", said, re.MULTILINE)
    [token] = re.findall(r"the token in (\S+)\.$", said, re.MULTILINE)
    answer = requests.get(page, auth=("operator", (site.folder / token).read_text().strip()), timeout=10)
    assert (answer.status_code, answer.headers["Content-Type"].split(";")[0]) == (200, "text/html")


async def test_queues_are_quorum_queues(site: Site) -> None:
    """A plain declaration, as version 1 has it, passes; what nobody can read goes to the dead letters."""
    address = site.inspect("rabbitmq")["NetworkSettings"]["Networks"]["inference-server_backend"]["IPAddress"]
    connection = await aiormq.connect(f"amqp://inference-server:{site.secret('rabbitmq_password')}@{address}/")
    channel = await connection.channel(publisher_confirms=True)
    await channel.queue_declare(queues.UNFINISHED, durable=True)
    await channel.basic_publish(b"no uid", routing_key=queues.UNFINISHED, mandatory=True)
    letter = None
    while letter is None or isinstance(letter.delivery, aiormq.spec.Basic.GetEmpty):
        letter = await channel.basic_get("dead_letters", no_ack=True)
    assert letter.body == b"no uid"
    await connection.close()
    listed = site.compose(
        *("exec", "--no-TTY", "--user", "rabbitmq", "rabbitmq"),
        *("rabbitmqctl", "--quiet", "list_queues", "--no-table-headers", "name", "type", "policy"),
    )
    assert sorted(line.split() for line in listed.splitlines()) == [
        ["dead_letters", "quorum", "dead-letters"],
        [queues.FINISHED, "quorum", "finished"],
        *([queue, "quorum", "unfinished"] for queue in sorted([*QUEUES, *GPU_QUEUES])),
    ]


def test_containers_have_no_more_than_they_need(site: Site) -> None:
    """No root where the Docker socket isn't needed, nothing to write to, and no secret in an environment."""
    passwords = [site.secret(name) for name in ("core_token", "redis_password", "rabbitmq_password")]
    for service in SERVICES:
        found = site.inspect(service)
        config, host = found["Config"], found["HostConfig"]
        assert not any(password in json.dumps(found) for password in passwords)
        assert host["SecurityOpt"] == ["no-new-privileges:true"]
        assert host["RestartPolicy"]["Name"] == "unless-stopped"
        assert host["LogConfig"]["Config"].keys() == {"max-size", "max-file"}
        if service in OURS:
            assert host["ReadonlyRootfs"]
            assert host["Init"]
            assert config["Labels"]["org.opencontainers.image.title"].startswith("InferenceServer")
        if service in ("core", "gateway"):
            assert config["User"].startswith("10001:")
            assert host["CapDrop"] == ["ALL"]
    assert set(site.inspect("gateway")["NetworkSettings"]["Networks"]) == {"inference-server_frontend"}
    read = ("exec", "--no-TTY", "gateway", "sh", "-c", "cat /certs/ca.key 2>&1 || true")
    assert "Permission denied" in site.compose(*read)


def test_images_know_no_time(site: Site) -> None:
    """So that the same files make the same layers; and nothing that builds stays."""
    for service in OURS:
        newer = ("find", "/app", "/opt", "-newermt", "2024-01-02")
        assert site.compose("exec", "--no-TTY", service, *newer) == ""
        assert site.compose("exec", "--no-TTY", service, "sh", "-c", "ls /opt/venv/bin | grep pip || true") == ""


def test_a_taken_port_is_named(site: Site) -> None:
    """Before anything is changed."""
    site.compose("stop", "gateway", "core")
    for port in (443, 7000):
        with socket.create_server(("", port)):
            refused = site.host.run(sys.executable, "-m", "deploy", "up", cwd=site.folder, env=site.environment)
        assert refused.returncode == 1
        assert f"Port {port} is taken by another process" in refused.stderr
    site.compose("up", "--detach", "--wait")


def test_a_new_certificate_is_served_at_once(site: Site) -> None:
    """By the gateway as it runs, which sees the folder that is mounted."""
    before = site.inspect("gateway")["State"]["StartedAt"]
    site.run(sys.executable, "-m", "tls.certs", "localhost")
    new = (site.folder / "tls" / "certs" / "server.crt").read_text()
    eventually(lambda: ssl.get_server_certificate(("localhost", 443)) == new)
    assert site.inspect("gateway")["State"]["StartedAt"] == before


def test_up_takes_what_has_changed(site: Site, api: Api) -> None:
    """A Redis configured anew. Compose replaces with it what depends on it, and nothing else."""
    before = {service: site.inspect(service)["Id"] for service in SERVICES}
    with (site.folder / "deploy" / "redis.conf").open("a") as configuration:
        configuration.write("hz 20\n")
    site.deploy("up")
    replaced = {name for name, found in before.items() if site.inspect(name)["Id"] != found}
    assert "redis" in replaced
    assert "rabbitmq" not in replaced
    assert api.get("/healthz").status_code == 200


def test_tls_inside(site: Site, request: pytest.FixtureRequest) -> None:
    """With deploy/tls.yaml nobody is spoken to in the clear, tasks run as ever, and the doctor finds his way. It stays
    so for the tests that follow.
    """
    site.set(COMPOSE_FILE="docker-compose.yaml:deploy/tls.yaml")
    assert "https://localhost:7000" in site.deploy("up")
    for service, port in (("redis", 6379), ("core", 7000)):
        asked = f"exec 3<>/dev/tcp/{service}/{port}; printf 'PING\\r\\n\\r\\n' >&3; head -c 5 <&3 || true"
        assert not {"+PONG", "-NOAU", "HTTP/"} & {site.compose("exec", "--no-TTY", "rabbitmq", "bash", "-c", asked)[:5]}
    with pytest.raises(requests.ConnectionError):
        requests.get("http://localhost:7000/healthz", timeout=10)
    core: Api = request.getfixturevalue("core")
    assert core.get("/readyz").json() == {"ready": True}
    model: Callable[..., str] = request.getfixturevalue("model")
    assert files_of(request.getfixturevalue("api").output(model(COPY), INPUT)) == OUTPUT
    running = {"services", "answers", "redis", "rabbitmq", "agents"}
    assert [found for found in doctor(site) if found["check"] in running and found["level"] == "broken"] == []
    assert "https://localhost:7000/dashboard" in site.deploy("dashboard")


def test_volumes_are_the_projects_own(site: Site) -> None:
    """Whatever .env calls the project."""
    asked = ("import deploy.compose as compose; print(compose.volume('redis'))",)
    named = ("env", "COMPOSE_PROJECT_NAME=other", sys.executable, "-c", *asked)
    assert site.run(*named).strip() == "other_redis"


def test_the_agent_looks_at_the_engines_disk(site: Site) -> None:
    """It lies on it itself."""
    assert '"folder": "/", "engine_keeps_images_in"' in site.compose("logs", "gpu_agent")


def test_nothing_broke_on_the_way(site: Site) -> None:
    """After all of the above."""
    told = site.compose("logs", "--no-color", *OURS)
    assert not re.findall(r"^.*Traceback(?:.*\n){1,15}", told, re.MULTILINE)


def test_resets(site: Site, api: Api, core: Api, model: Callable[..., str]) -> None:
    """Each deletes what it says, and keeps the rest."""
    name = model(COPY)
    uid = api.post(name, INPUT)
    assert api.wait_for_end(uid) == 200
    for password in ("redis_password", "rabbitmq_password"):  # a good moment to change them
        (site.folder / "secrets" / password).write_text(secrets.token_urlsafe())
    site.deploy("reset", "soft", "--yes")
    assert _result(api, uid) == OUTPUT
    assert files_of(api.output(name, INPUT)) == OUTPUT
    site.deploy("reset", "volumes", "--yes")
    assert api.get(f"/api/tasks/{uid}").status_code == 554
    assert core.get("/api/models/").json() == []
    site.deploy("reset", "all", "--yes")
    for kind in ("container ls --all", "volume ls", "image ls --filter reference=inference-server/*"):
        assert site.host.run("docker", *kind.split(), "--quiet").stdout == "", kind
    assert not (site.folder / ".env").exists()
    assert not (site.folder / "secrets").exists()
