"""What `just init` makes in a fresh clone, and what `just up` says when something is missing. No engine is needed."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from demo.stack import REPOSITORY

STRICT_UMASK = 0o077


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(tmp_path / "clone")], check=True)
    return tmp_path / "clone"


def _deploy(clone: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deploy", *arguments],
        cwd=clone,
        env={**os.environ, **environment},
        umask=STRICT_UMASK,
        capture_output=True,
        text=True,
    )


def _made(clone: Path) -> dict[str, bytes]:
    found = [clone / ".env", *(clone / "secrets").iterdir(), *(clone / "tls" / "certs").iterdir()]
    return {str(path.relative_to(clone)): path.read_bytes() for path in found}


def _digests(clone: Path) -> dict[str, str]:
    return {path.stem: path.read_text() for path in (clone / "secrets").glob("*.env")}


def test_nothing_that_is_there_is_replaced(clone: Path) -> None:
    """The second time everything is kept."""
    assert _deploy(clone, "init", "models.example.org").returncode == 0
    made = _made(clone)
    again = _deploy(clone, "init", "models.example.org")
    assert "made" not in again.stdout
    assert _made(clone) == made
    assert "DOMAIN=models.example.org\n" in made[".env"].decode()


def test_another_domain_changes_nothing(clone: Path) -> None:
    """What .env says counts; and what is no domain is refused before there is a .env."""
    refused = _deploy(clone, "init", "https://models.example.org:443")
    assert refused.returncode == 1
    assert "neither a host's name nor an IP address" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (clone / ".env").exists()
    assert _deploy(clone, "init", "models.example.org").returncode == 0
    made = _made(clone)
    assert "it says DOMAIN=models.example.org" in _deploy(clone, "init", "other.example.org").stdout
    assert _made(clone) == made


def test_what_a_service_read_is_known(clone: Path) -> None:
    """A service has another digest when a file of its own has changed, and none of the others has."""
    assert _deploy(clone, "init", "localhost").returncode == 0
    before = _digests(clone)
    with (clone / "deploy" / "redis.conf").open("a") as file:
        file.write("hz 20\n")
    assert _deploy(clone, "init", "localhost").returncode == 0
    assert {name for name, digest in _digests(clone).items() if digest != before[name]} == {"redis"}
    assert before.keys() == {"redis", "rabbitmq", "core", "gateway", "gpu_agent"}


def test_secrets_are_for_the_operator_and_the_containers(clone: Path) -> None:
    """Any user of a container may read what is mounted into it; on the host nobody else enters the folder."""
    for configuration in (clone / "deploy").glob("*.conf"):
        configuration.chmod(0o600)
    done = _deploy(clone, "init", "localhost")
    assert done.returncode == 0, done.stderr
    assert stat.S_IMODE((clone / "secrets").stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in (clone / "secrets").iterdir()} == {0o644}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (clone / "deploy").glob("*.conf")} == {0o644}
    certificates = clone / "tls" / "certs"
    assert f"CERTS_GROUP={certificates.stat().st_gid}\n" in (clone / ".env").read_text()
    assert stat.S_IMODE(certificates.stat().st_mode) == 0o755
    assert stat.S_IMODE((certificates / "server.key").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("command", "lack"), [("up", "just init"), ("up", "Docker is missing"), ("logs", "Docker is missing")]
)
def test_what_is_missing_is_named(clone: Path, command: str, lack: str) -> None:
    """With what to do about it, and without a traceback."""
    if lack != "just init":
        _deploy(clone, "init", "localhost")
    done = _deploy(clone, command, PATH="/nowhere")
    assert done.returncode == 1
    assert lack in done.stderr
    assert "Traceback" not in done.stderr
