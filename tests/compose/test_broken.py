"""`just doctor` on set-ups that are broken for real: it names what is wrong, and what it says to type cures it."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from demo.stack import REPOSITORY
from deploy.doctor.docker import judge_engine
from deploy.doctor.site import Said
from tests.compose.conftest import Site
from tests.compose.operating import Finding, broken, doctor, follow, run, write_env
from tests.waiting import eventually
from tls.certs import Certificates

pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def fresh(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Another clone beside the one that runs: prepared, and not started."""
    fresh = Site(site.host, tmp_path_factory.mktemp("fresh") / "clone")
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(fresh.folder)], check=True)
    fresh.deploy("init", "localhost")
    fresh.set(WORK_DIR="/run/fresh", HTTPS_PORT="8443", OPERATOR_PORT="8000")
    write_env(fresh, "COMPOSE_PROJECT_NAME=fresh")
    return fresh


def _expire(site: Site) -> None:
    """The certificate as its authority would have issued it two years ago."""
    files = Certificates(site.folder / "tls" / "certs")
    old = x509.load_pem_x509_certificate(files.cert.read_bytes())
    authority = serialization.load_pem_private_key(files.ca_key.read_bytes(), password=None)
    assert isinstance(authority, ec.EllipticCurvePrivateKey)
    builder = x509.CertificateBuilder(old.issuer, old.subject, old.public_key(), old.serial_number)
    builder = builder.not_valid_before(datetime.now(UTC) - timedelta(days=730))
    builder = builder.not_valid_after(datetime.now(UTC) - timedelta(days=2))
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    files.cert.write_bytes(builder.sign(authority, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))


def _mix_up_keys(site: Site) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path = Certificates(site.folder / "tls" / "certs").key
    path.write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))


def _shut_key(site: Site) -> None:
    Certificates(site.folder / "tls" / "certs").key.chmod(0o600)


def _open_secrets(site: Site) -> None:
    (site.folder / "secrets").chmod(0o755)


def _lose_secret(site: Site) -> None:
    (site.folder / "secrets" / "rabbitmq_password").unlink()


def _ask_for_too_much_memory(site: Site) -> None:
    write_env(site, "REDIS_MAXMEMORY=900gb")


def _lose_setting(site: Site) -> None:
    file = site.folder / ".env"
    file.write_text(file.read_text().replace("TAG=", "TAGS="))


@pytest.mark.parametrize(
    ("break_it", "check", "words"),
    [
        (_expire, "certificate", "expired on"),
        (_mix_up_keys, "certificate", "isn't the key of server.crt"),
        (_shut_key, "certificate", "can't be read by the gateway"),
        (_open_secrets, "secrets", "open to other users"),
        (_lose_secret, "secrets", "rabbitmq_password is missing"),
        (_ask_for_too_much_memory, "memory", "REDIS_MAXMEMORY is 921600 MiB, the host has"),
        (_lose_setting, "settings", "TAG isn't set"),
    ],
)
def test_before_it_starts(fresh: Site, break_it: Callable[[Site], None], check: str, words: str) -> None:
    """One thing is broken, one thing is named, and is well when what was said is done; starting it is left out."""
    break_it(fresh)
    found = [finding for finding in broken(doctor(fresh)) if not finding["seen"].startswith("Compose refuses")]
    assert [finding["check"] for finding in found] == [check]
    assert words in found[0]["seen"]
    follow(fresh, found[0]["fix"].partition("; then")[0])
    assert broken(doctor(fresh)) == []


@pytest.fixture
def stranger() -> Iterator[int]:
    """A process that listens at 8443."""
    script = "import socket; s = socket.create_server(('', 8443)); print(flush=True); s.accept()"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_a_port_that_is_taken(fresh: Site, stranger: int) -> None:
    """By which process."""
    [found] = broken(doctor(fresh))
    assert found["check"] == "ports"
    assert f"HTTPS_PORT 8443: taken by {Path(sys.executable).name}, pid {stranger}" in found["seen"]
    follow(fresh, found["fix"])
    assert broken(doctor(fresh)) == []


def test_a_port_that_a_container_has(fresh: Site) -> None:
    fresh.set(HTTPS_PORT="443")
    [found] = broken(doctor(fresh))
    assert "HTTPS_PORT 443: taken by the container inference-server-gateway-1" in found["seen"]


def test_a_disk_that_is_full(fresh: Site, tmp_path: Path) -> None:
    """With less room than an agent needs to take tasks."""
    fresh.set(WORK_DIR=str(tmp_path))
    mounted = run(fresh, "mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(tmp_path))
    assert mounted.returncode == 0, mounted.stderr
    try:
        [found] = broken(doctor(fresh))
    finally:
        unmounted = run(fresh, "umount", str(tmp_path))
    assert unmounted.returncode == 0, unmounted.stderr
    assert found["check"] == "disk"
    assert "64 MiB free; with less than 1024" in found["seen"]
    assert broken(doctor(fresh)) == []


def test_without_an_engine(fresh: Site, tmp_path: Path) -> None:
    """All that needs none is looked at all the same."""
    found = doctor(fresh, f"DOCKER_HOST=unix://{tmp_path}/docker.sock")
    [engine] = broken(found)
    assert "Cannot connect to the Docker daemon" in engine["seen"]
    assert "systemctl start docker" in engine["fix"]
    assert {"settings", "certificate", "ports", "disk", "memory"} <= {finding["check"] for finding in found}


def test_without_the_right_to_use_the_engine(fresh: Site) -> None:
    said = run(fresh, "setpriv", "--reuid=65534", "--clear-groups", "docker", "version", "--format", "{{json .}}")
    finding = judge_engine(Said(said.returncode, said.stdout, said.stderr.strip()), user="alice")
    assert (finding.level, finding.seen) == ("broken", "alice may not use the Docker engine")
    assert "usermod -aG docker alice" in finding.fix


def test_while_it_runs(site: Site) -> None:
    """A service that somebody stopped, one that died, one that can't start: each with its last words, and all of them
    back when what was said is done.
    """
    eventually(lambda: broken(doctor(site)) == [], within_seconds=60)
    write_env(site, "CPU_SLOTS=0")
    site.compose("up", "--detach", "gpu_agent")
    site.compose("stop", "gateway")
    site.compose("kill", "rabbitmq")
    eventually(lambda: _of(doctor(site), "services", "gpu_agent restarts"), within_seconds=60)
    found = doctor(site)
    assert _of(found, "settings", "CPU_SLOTS=0 in .env: Input should be greater than or equal to 1")
    assert _of(found, "services", "gateway is exited")
    assert _of(found, "services", "rabbitmq is exited (exit code 137)")
    assert _of(found, "answers", "takes tasks, but rabbitmq is away")
    write_env(site, "CPU_SLOTS=1")
    [stopped] = _of(found, "services", "gateway is exited")
    follow(site, stopped["fix"])
    eventually(lambda: broken(doctor(site)) == [], within_seconds=60)  # core hears of its agent a moment later


def _of(found: list[Finding], check: str, words: str) -> list[Finding]:
    return [finding for finding in found if finding["check"] == check and words in finding["seen"]]
