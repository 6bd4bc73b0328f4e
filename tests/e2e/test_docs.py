"""What README and the guides tell people to type, typed: docs/README.md says which blocks."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from core.settings import Settings as Core
from demo import image
from demo.image import docker
from demo.stack import REPOSITORY, Stack
from gateway.settings import Settings as Gateway
from gpu_agent.settings import Settings as Agent
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT
from tests.zips import files_of

BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
BUILT = "registry.example.org/thresholds:1"


@pytest.fixture(scope="module")
def here(stack: Stack, core: Api, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone as the demo leaves it, but for the ports; its curl takes no error for an answer."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / ".run").mkdir()
    (folder / ".run" / "example.zip").write_bytes(INPUT)
    (folder / ".run" / "core.token").write_bytes(stack.token_file.read_bytes())
    (folder / "tls").mkdir()
    (folder / "tls" / "certs").symlink_to(stack.certificates.folder)
    (folder / "examples").symlink_to(REPOSITORY / "examples")
    (folder / ".curlrc").write_text("fail-with-body\n")
    parameters = {"human_readable_id": "passthrough", "container_tag": image.build(stack.docker_host)}
    core.call("POST", "/api/models/", params={**parameters, "use_gpu": "false"}).raise_for_status()
    return folder


def _typed(guide: str, here: Path, stack: Stack, *programs: Path, **variables: str) -> str:
    """Its blocks as one session, from top to bottom, which finds these programs first; what they said."""
    blocks = BLOCK.findall((REPOSITORY / guide).read_text())
    assert blocks, f"{guide} has nothing to run"
    script = "\n".join(f"python - <<'PYTHON'\n{text}PYTHON" if kind == "python" else text for kind, text in blocks)
    script = script.replace("https://localhost:8443", stack.gateway_url).replace(
        "http://localhost:7000", stack.core_url
    )
    environment = {
        "PATH": ":".join(map(str, (*programs, Path(sys.executable).parent, os.environ["PATH"]))),
        "CURL_HOME": str(here),
        "DOCKER_HOST": stack.docker_host,
        "DOCKER_BUILDKIT": "0",
        **variables,
    }
    done = subprocess.run(
        ["bash", "-euo", "pipefail"],
        input=script,
        cwd=here,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{guide}:\n{done.stdout}{done.stderr}"
    return done.stdout


def test_readme(stack: Stack, here: Path, client_bin: Path) -> None:
    """A newcomer has the result, from the client and from curl."""
    _typed("README.md", here, stack, client_bin)
    assert (here / "results" / "hello.txt").read_bytes() == files_of(INPUT)["hello.txt"]
    assert files_of((here / "result.zip").read_bytes())["hello.txt"] == files_of(INPUT)["hello.txt"]


def test_use(stack: Stack, here: Path) -> None:
    """With curl and from Python; what is posted twice is one task."""
    (here / "result.zip").unlink(missing_ok=True)
    said = _typed("docs/use.md", here, stack)
    assert "event: state" in said
    assert "copied 2 files" in said
    assert files_of((here / "result.zip").read_bytes())["hello.txt"] == files_of(INPUT)["hello.txt"]


def test_client(stack: Stack, here: Path, client_bin: Path) -> None:
    """Its Python, where nothing of ours is installed but it."""
    assert "result.zip" in _typed("client/README.md", here, stack, client_bin)


def test_models(stack: Stack, here: Path, python_image: str) -> None:
    """An example is built, tried on its own, registered and run."""
    try:
        said = _typed("docs/models.md", here, stack)
    finally:
        docker(stack.docker_host, "image", "rm", "--force", BUILT)
    assert '"outside": 1' in said
    assert "summary.json" in said


def test_operate(stack: Stack, here: Path, api: Api) -> None:
    """An operator sees a task's history."""
    said = _typed("docs/operate.md", here, stack, uid=api.post("passthrough", INPUT))
    assert '"attempts":[' in said


def test_settings_are_told() -> None:
    """Each setting of a service stands in the operator's table, and the table has no other."""
    table = (REPOSITORY / "docs" / "operate.md").read_text()
    settings = {name.upper() for kind in (Core, Gateway, Agent) for name in kind.model_fields}
    told = {
        name
        for row in re.findall(r"^\|[^|]*\|([^|]*)\|", table, re.MULTILINE)
        for name in re.findall(r"`([A-Z_]+)`", row)
    }
    assert told == settings
