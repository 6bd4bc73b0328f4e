"""What the README tells a newcomer to type, typed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from core.settings import Settings as Core
from demo import image
from demo.stack import REPOSITORY, Stack
from gateway.settings import Settings as Gateway
from gpu_agent.settings import Settings as Agent
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT
from tests.zips import files_of

README = (REPOSITORY / "README.md").read_text()
CLIENT_README = (REPOSITORY / "client" / "README.md").read_text()


def _blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def here(stack: Stack, core: Api, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the demo leaves it, but for the ports."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / ".run").mkdir()
    (folder / ".run" / "example.zip").write_bytes(INPUT)
    (folder / ".run" / "core.token").write_bytes(stack.token_file.read_bytes())
    (folder / "tls").mkdir()
    (folder / "tls" / "certs").symlink_to(stack.certificates.folder)
    parameters = {"human_readable_id": "passthrough", "container_tag": image.build(stack.docker_host)}
    core.call("POST", "/api/models/", params={**parameters, "use_gpu": "false"}).raise_for_status()
    return folder


def _run(
    command: list[str], block: str, here: Path, stack: Stack, bin: Path = Path(sys.executable).parent
) -> subprocess.CompletedProcess[str]:
    block = block.replace("https://localhost:8443", stack.gateway_url).replace("http://localhost:7000", stack.core_url)
    environment = {"PATH": f"{bin}:/usr/local/bin:/usr/bin:/bin"}
    return subprocess.run(
        command, input=block, cwd=here, env=environment, capture_output=True, text=True, timeout=120, check=True
    )


def test_python(stack: Stack, here: Path) -> None:
    """The example posts, polls and writes the result."""
    [block] = _blocks("python")
    _run([sys.executable, "-"], block, here, stack)
    assert files_of((here / "result.zip").read_bytes())["hello.txt"] == files_of(INPUT)["hello.txt"]


def test_shell(stack: Stack, here: Path, core: Api) -> None:
    """The client's commands answer, the operator's register the model and show the task's history."""
    client, operator, history = _blocks("bash")
    told = _run(["bash", "-eu"], client + history, here, stack)
    assert '"attempts":[' in told.stdout
    registered = _run(["bash", "-eu"], operator, here, stack)
    assert '"memory_mb":512' in registered.stdout
    assert core.get("/api/models/human_readable_id/copy").status_code == 200


def test_client(stack: Stack, here: Path, client_bin: Path) -> None:
    """Its commands, in the README and in its own, and its Python, where only it is installed."""
    for block in re.findall(r"(?:^    .*\n)*^    infer .*\n", README, re.MULTILINE):
        _run(["bash", "-eu"], block.replace("    pip install ./client\n", ""), here, stack, client_bin)
    assert (here / "results" / "hello.txt").read_bytes() == files_of(INPUT)["hello.txt"]
    [block] = _blocks("python", CLIENT_README)
    assert "result.zip" in _run([str(client_bin / "python"), "-"], block, here, stack).stdout


def test_settings_are_told() -> None:
    """Each setting of a service stands in the README's table, and the table has no other."""

    settings = {name.upper() for kind in (Core, Gateway, Agent) for name in kind.model_fields}
    told = {
        name
        for row in re.findall(r"^\|[^|]*\|([^|]*)\|", README, re.MULTILINE)
        for name in re.findall(r"`([A-Z_]+)`", row)
    }
    assert told == settings
