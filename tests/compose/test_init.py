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


def test_nothing_that_is_there_is_replaced(clone: Path) -> None:
    """The second time everything is kept."""
    assert _deploy(clone, "init", "models.example.org").returncode == 0
    made = _made(clone)
    again = _deploy(clone, "init", "models.example.org")
    assert "made" not in again.stdout
    assert _made(clone) == made
    assert "DOMAIN=models.example.org\n" in made[".env"].decode()


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


@pytest.mark.parametrize("lack", ["just init", "Docker is missing"])
def test_what_is_missing_is_named(clone: Path, lack: str) -> None:
    """With what to do about it, and without a traceback."""
    if lack != "just init":
        _deploy(clone, "init", "localhost")
    done = _deploy(clone, "up", PATH="/nowhere")
    assert done.returncode == 1
    assert lack in done.stderr
    assert "Traceback" not in done.stderr
