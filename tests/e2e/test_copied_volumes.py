"""An agent whose folders the engine doesn't see: the same results, copied through the engine."""

from collections.abc import Iterator

import pytest

from demo.image import docker
from demo.stack import Stack
from tests.e2e.agents import own_agent
from tests.e2e.api import Api
from tests.e2e.conftest import ModelMaker
from tests.lacking import needs_root
from tests.waiting import eventually
from tests.zips import files_of, modes_of, zip_of

NAME = "elsewhere"
SCRIPT = """
cp -R /input/. /output/ && cp -R /model /output/model && mkdir /output/empty && chmod 750 /output/empty &&
ln -s a.txt /output/link && ln /output/a.txt /output/second && touch /input/x 2>/dev/null; test ! -e /input/x
"""


@pytest.fixture(scope="module")
def agent(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The only agent: in a mount namespace, where its WORK_DIR is a file system that the engine doesn't have."""
    needs_root("make a mount namespace")
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "work").mkdir()
    hidden = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs none {folder / "work"} && exec "$@"', "-"]
    with own_agent(stack, folder, NAME, within=hidden) as agent:
        assert '"are": "copies"' in agent.log.read_text()
        yield


def _left(stack: Stack) -> str:
    """Containers of the agent's, and its tasks' volumes."""
    of_agent = f"label=inference-server.agent={NAME}"
    return docker(stack.docker_host, "ps", "-aq", "--filter", of_agent) + docker(
        stack.docker_host, "volume", "ls", "-q", "--filter", of_agent
    )


@pytest.mark.usefixtures("agent")
def test_volumes_are_copied_through_the_engine(api: Api, core: Api, stack: Stack, model: ModelMaker) -> None:
    """Input, model, output with folders, modes and links; the model's volume stays for the next task; nothing else."""
    name = model(SCRIPT, zip=zip_of({"weights/w.bin": b"weights"}), model_available="true")
    for content in (b"first", b"second"):
        zip = api.output(name, zip_of({"a.txt": content, "d/ü.txt": b"x" * 3_000_000}))
        assert files_of(zip) == {
            "a.txt": content,
            "second": content,
            "d/": b"",
            "d/ü.txt": b"x" * 3_000_000,
            "empty/": b"",
            "link": b"a.txt",
            "model/": b"",
            "model/weights/": b"",
            "model/weights/w.bin": b"weights",
        }
        assert modes_of(zip)["empty/"] & 0o777 == 0o750
    eventually(lambda: not _left(stack))


@pytest.mark.usefixtures("agent")
@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("ln -s /etc/passwd /output/x", "output_invalid"),
        ("mkfifo /output/x", "output_invalid"),
        ("true", "no_output"),
        ("dd if=/dev/zero of=/output/x bs=1M count=3", "output_too_large"),
        ("exit 3", "exit_nonzero"),
    ],
)
def test_what_is_refused_is_refused(api: Api, stack: Stack, model: ModelMaker, script: str, reason: str) -> None:
    """For the same reasons, and with as little left behind."""
    assert api.failure(model(script, output_mb="2"), zip_of({"a": b"a"}))["reason"] == reason
    eventually(lambda: not _left(stack))
