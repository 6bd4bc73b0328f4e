"""What figures mean to the doctor, in words; the looking is tested on set-ups that are broken for real."""

import hashlib
import json
import socket
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deploy.compose import gateway_url, parse_env
from deploy.doctor import certificate, docker, host, ports, services, settings
from deploy.doctor.__main__ import CHECKS, Row, examine, shown
from deploy.doctor.finding import Finding, broken, ok, warning
from deploy.doctor.host import Disk, MiB
from deploy.doctor.ports import Process
from deploy.doctor.site import Container, Said, Site, size

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
GB = 2**30


def _version(api: str) -> Said:
    server = {"Version": "28.2.2", "ApiVersion": api, "Os": "linux", "KernelVersion": "6.12"}
    return Said(0, json.dumps({"Client": {}, "Server": server}))


def _container(status: str, health: str = "", *, restarts: int = 0) -> Finding:
    container = Container("id", "core", status, health, "", 1, restarts, frozenset())
    return services.judge_container("core", container, "no room")


def _taken(*, containers: list[str] | None = None, process: Process | None = None) -> Finding:
    return ports.judge("HTTPS_PORT", 443, is_ours=False, is_free=False, containers=containers or [], process=process)


def _redis(**figures: str) -> Finding:
    """The worst."""
    usual = {"redis_version": "8.2.1", "used_memory": "10485760", "maxmemory": "104857600", "aof_enabled": "1"}
    usual |= {"aof_last_write_status": "ok", "aof_last_bgrewrite_status": "ok"}
    return list(services.judge_redis(usual | figures))[-1]


def _only(findings: Iterable[Finding]) -> Finding:
    [finding] = findings
    return finding


@pytest.mark.parametrize(
    ("finding", "level", "words"),
    [
        (docker.judge_engine(_version("1.50"), user="alice"), "ok", "Docker 28.2.2, API 1.50"),
        (docker.judge_engine(_version("1.40"), user="alice"), "broken", "older than 20.10"),
        (docker.judge_engine(Said(127), user="alice"), "broken", "no docker command"),
        (docker.judge_engine(Said(124, error="no answer within 10 s"), user="alice"), "broken", "no answer within"),
        (docker.judge_compose(Said(1)), "broken", "v2 is missing"),
        (docker.judge_compose(Said(0, "2.3.4\n")), "broken", "older than"),
        (docker.judge_compose(Said(0, "v2.39.1\n")), "ok", "Docker Compose v2.39.1"),
        (next(docker.judge_info({"MemoryLimit": True, "PidsLimit": True})), "broken", "CpuCfsQuota"),
        (_only(docker.judge_isolation({"SecurityOptions": ["name=seccomp,profile=builtin"]})), "ok", "root without"),
        (_only(docker.judge_isolation({"SecurityOptions": ["name=seccomp,profile=x", "name=userns"]})), "ok", "nobody"),
        (next(docker.judge_isolation({"SecurityOptions": ["name=seccomp,profile=unconfined"]})), "broken", "seccomp"),
        (next(docker.judge_isolation({"SecurityOptions": None})), "broken", "filters no system calls"),
        (_only(docker.judge_driver(0, [], has_driver=False)), "ok", "none in this host"),
        (_only(docker.judge_driver(2, [], has_driver=False)), "broken", "2 NVIDIA GPUs in this host, and no driver"),
        (_only(docker.judge_driver(2, ["GPU-1"], has_driver=True)), "broken", "has 1 of the 2"),
        (_only(docker.judge_driver(1, ["GPU-????"], has_driver=True)), "warning", "before their first use"),
        (_only(docker.judge_driver(1, ["GPU-1"], has_driver=True)), "ok", "GPU-1"),
        (docker.judge_gpu_runtime({"Runtimes": {"runc": {}}}, []), "broken", "neither the nvidia runtime nor CDI"),
        (docker.judge_gpu_runtime({"Runtimes": {"nvidia": {}}}, []), "ok", "nvidia runtime"),
        (docker.judge_gpu_runtime({"CDISpecDirs": ["/etc/cdi"]}, ["nvidia.yaml"]), "ok", "by CDI"),
        (docker.judge_gpu_runtime({"DiscoveredDevices": [{"ID": "nvidia.com/gpu=0"}]}, []), "ok", "by CDI"),
        (_only(docker.judge_compose_file("a.yaml", has_driver=True)), "broken", "lacks deploy/gpu.yaml"),
        (_only(docker.judge_compose_file("a.yaml:deploy/gpu.yaml", has_driver=False)), "broken", "no NVIDIA driver"),
        (certificate.judge_dates(NOW - DAY, NOW + 90 * DAY, NOW, "fix"), "ok", "90 more days"),
        (certificate.judge_dates(NOW - DAY, NOW + 29 * DAY, NOW, "fix"), "warning", "29 more days"),
        (certificate.judge_dates(NOW - DAY, NOW - timedelta(hours=1), NOW, "fix"), "broken", "expired on 2026-03-01"),
        (certificate.judge_dates(NOW + DAY, NOW + 90 * DAY, NOW, "fix"), "broken", "isn't valid before 2026-03-02"),
        (services.judge_unreached("url", socket.gaierror("no answer")), "warning", "unknown on this host"),
        (services.judge_unreached("url", ConnectionRefusedError()), "broken", "doesn't answer"),
        (_taken(containers=["web-1"]), "broken", "taken by the container web-1"),
        (_taken(process=Process(12, "nginx", "nginx.service")), "broken", "taken by nginx, pid 12"),
        (_taken(), "broken", "another user's process"),
        (_container("running", "healthy"), "ok", "core runs, healthy"),
        (_container("running", "healthy", restarts=9), "warning", "after 9 restarts"),
        (_container("running", "starting"), "warning", "is starting"),
        (_container("running", "unhealthy"), "broken", 'is unhealthy; last words: "no room"'),
        (_container("restarting", restarts=7), "broken", "over and over, 7 times"),
        (_container("exited"), "broken", "is exited (exit code 1)"),
        (services.judge_ready("url", {"ready": True}), "ok", "url is ready"),
        (services.judge_ready("url", {"ready": True, "degraded": {"rabbitmq": "is away"}}), "warning", "rabbitmq is"),
        (services.judge_ready("url", {"ready": False, "missing": {"redis": "hangs"}}), "broken", "redis hangs"),
        (_redis(), "ok", "uses 10 of 100 MiB"),
        (_redis(used_memory="94371840"), "warning", "uses 90 of 100 MiB"),
        (_redis(maxmemory="0"), "broken", "has no limit"),
        (_redis(loading="1"), "warning", "loads its data"),
        (_redis(aof_enabled="0"), "broken", "keeps nothing"),
        (_redis(aof_last_write_status="err"), "broken", "can't write"),
        (_redis(aof_last_bgrewrite_status="err"), "warning", "couldn't rewrite"),
        (host.judge_disk("disk", Disk(100 * GB, 50 * GB, None), needed_mb=1024, fix=""), "ok", "50 % full"),
        (host.judge_disk("disk", Disk(100 * GB, 10 * GB, 9), needed_mb=1024, fix=""), "warning", "90 % full"),
        (host.judge_disk("disk", Disk(100 * GB, 10 * MiB, 9), needed_mb=1024, fix=""), "broken", "takes no tasks"),
        (host.judge_disk("disk", Disk(100 * GB, 50 * GB, 0), needed_mb=1024, fix=""), "broken", "no inodes"),
        (host.judge_redis_disk(Disk(100 * GB, 9 * GB, None), 4 * GB), "warning", "may take 10240"),
        (host.judge_memory(32 * GB, 20 * GB, 16 * GB, 24 * GB), "ok", "16384 MiB"),
        (host.judge_memory(32 * GB, 20 * GB, 32 * GB, 48 * GB), "broken", "REDIS_MAXMEMORY is 32768 MiB"),
        (host.judge_memory(32 * GB, 20 * GB, 16 * GB, 16 * GB), "broken", "Redis is killed"),
        (host.judge_memory(32 * GB, 20 * GB, 16 * GB, 17 * GB), "warning", "little room"),
        (host.judge_memory(32 * GB, 20 * GB, 20 * GB, 30 * GB), "warning", "the host has 32768 MiB"),
        (_only(host.judge_kernel_memory(overcommit="0", huge_pages="always [madvise]")), "warning", "overcommit"),
        (_only(host.judge_kernel_memory(overcommit="1", huge_pages="[always] never")), "warning", "huge pages"),
        (host.judge_clock(is_synchronised=False), "warning", "nothing keeps it right"),
        (_only(host.judge_apart(NOW, NOW + 60 * timedelta(seconds=1))), "broken", "60 s off"),
        (_only(settings.judge_names({"MAX_UPLOAD_GB": "1"}, frozenset({"MAX_UPLOAD_MB"}))), "warning", "no such"),
        (_only(settings.judge_missing({}, {"TAG": "1"})), "broken", "TAG isn't set"),
        (_only(settings.judge_values({"CPU_SLOTS": "0"})), "broken", "greater than or equal to 1"),
        (_only(settings.judge_values({"HTTPS_PORT": "https"})), "broken", "has to be a port"),
        (_only(settings.judge_values({"REDIS_MAXMEMORY": "much"})), "broken", "has to be a size"),
        (_only(settings.judge_values({"AGENT_NAME": "a b"})), "broken", "should match pattern"),
        (_only(settings.judge_values({"ALLOW_OPERATORS": "no"})), "broken", "should be '' or 'yes'"),
        (_only(settings.judge_openness({})), "warning", "whoever reaches the gateway may post tasks"),
        (_only(settings.judge_openness({"API_KEYS": "required", "ALLOW_PUBLIC_POST_MODEL": "No"})), "warning", "lets"),
        (_only(settings.judge_values({"HTTPS_PORT": "9", "OPERATOR_PORT": "9"})), "broken", "are the same"),
    ],
)  # fmt: skip
def test_judgements(finding: Finding, level: str, words: str) -> None:
    assert finding.level == level
    assert words in finding.seen
    assert bool(finding.fix) == (level != "ok") or not finding.fix


def test_a_swarm_is_judged_by_its_nodes_and_services() -> None:
    nodes = [
        {"Hostname": name, "Status": status, "Availability": "Active"}
        for name, status in (("a", "Ready"), ("b", "Down"))
    ]
    names = [{"Name": "core", "Replicas": "1/2"}, {"Name": "gateway", "Replicas": "1/1 (max 1 per node)"}]
    found = list(docker.judge_swarm(nodes, names))
    assert [finding.seen for finding in found] == ["the node b is Down", "core: 1 of 2 run"]
    assert _only(docker.judge_swarm(nodes[:1], names[1:])).level == "ok"


def test_agents_are_judged_by_what_core_heard() -> None:
    """Those that are gone, and those that are there and say that something is wrong."""
    seen = NOW.isoformat()
    there = {"name": "a", "host": "gpu-1", "is_there": True, "seen": seen, "slots": 2, "running": [], "problems": {}}
    gpu = {"uuid": "GPU-1", "problem": "fell off the bus"}
    assert _only(services.judge_agents([there])).level == "ok"
    assert _only(services.judge_agents([])).level == "broken"
    assert _only(services.judge_agents([there | {"gpus": [gpu]}])).seen == "the agent a: GPU-1: fell off the bus"
    assert [finding.level for finding in services.judge_agents([there | {"is_there": False}])] == ["broken", "warning"]


def test_queues_are_judged_by_what_waits() -> None:
    queues = [{"name": "unfinished_job_queue", "messages": 3}, {"name": "dead_letters", "messages": 2}]
    found = list(services.judge_rabbitmq({"rabbitmq_version": "4.1.0"}, queues))
    assert [finding.level for finding in found] == ["ok", "warning"]
    assert "3 in unfinished_job_queue" in found[0].seen
    assert _only(services.judge_rabbitmq({"alarms": ["memory"]}, [])).level == "broken"


def test_a_container_runs_what_stands_in_the_checkout(tmp_path: Path) -> None:
    """Or not: files that are others, missing, or too many."""
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "app.py").write_bytes(b"1")
    inside = {"core/app.py": hashlib.sha256(b"1").hexdigest()}
    assert list(services.judge_code("core", inside, tmp_path)) == []
    (tmp_path / "core" / "new.py").write_bytes(b"2")
    inside["core/old.py"] = inside["core/app.py"]
    assert "2 files differ" in _only(services.judge_code("core", inside, tmp_path)).seen


def test_the_last_trouble_is_quoted() -> None:
    """Not what came after it by chance; the end of a log without any."""
    assert services.last_trouble(["started", "ERROR no such file", "", "bye"]) == "ERROR no such file"
    assert services.last_trouble(["started", "bye", ""]) == "bye"
    assert services.last_trouble([]) == ""


def test_env_is_read_as_compose_does() -> None:
    text = "# A=0\nA=1\n B = two words # comment\nC='x # y'\nexport D=\nE=a=b"
    assert parse_env(text) == {"A": "1", "B": "two words", "C": "x # y", "D": "", "E": "a=b"}


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("models.example.org", 443, "https://models.example.org"),
        ("192.0.2.7", 8443, "https://192.0.2.7:8443"),
        ("2001:db8::7", 8443, "https://[2001:db8::7]:8443"),
    ],
)
def test_where_clients_reach_the_gateway(host: str, port: int, expected: str) -> None:
    assert gateway_url(host, port) == expected


@pytest.mark.parametrize(
    ("text", "bytes"), [("4gb", 4 * GB), ("512MB", 512 * MiB), ("7", 7), ("", None), ("4 x", None)]
)
def test_sizes(text: str, bytes: int | None) -> None:
    assert size(text) == bytes


def test_nothing_has_to_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No docker, no /proc, no set-up: each check says what it misses, and none keeps the others from theirs."""
    (tmp_path / ".env.example").write_text("DOMAIN=localhost\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    rows = examine(Site(tmp_path, proc=tmp_path, driver=tmp_path / "none", pci=tmp_path))
    found = {row.check: row.finding for row in rows}
    assert {"settings", "secrets", "certificate", "engine", "compose", "disk", "clock"} <= found.keys() <= CHECKS.keys()
    assert found["engine"].seen == "there is no docker command"
    assert "FileNotFoundError" in found["memory"].seen


def test_a_check_that_fails_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(_: Site) -> Iterator[Finding]:
        yield ok("so far so good")
        raise ZeroDivisionError

    monkeypatch.setattr("deploy.doctor.__main__.CHECKS", {"sums": failing})
    assert [row.finding.level for row in examine(Site(tmp_path))] == ["ok", "broken"]


def test_the_worst_comes_last() -> None:
    rows = [Row("a", broken("down", "`up`")), Row("b", ok("well")), Row("c", warning("slow", "wait"))]
    assert list(shown(rows, coloured=False)) == [
        "ok       b              well",
        "warning  c              slow",
        "                        → wait",
        "broken   a              down",
        "                        → `up`",
        "",
        "broken: 1, warnings: 1, ok: 1",
    ]
