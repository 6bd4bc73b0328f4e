"""`infer` in the hands of a person and of a script."""

import json
import random
import signal
from pathlib import Path

import pytest
import requests

from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.conftest import ModelMaker
from tests.infer import COMMAND_SECONDS, Infer
from tests.proxy import Proxy, holding
from tests.waiting import eventually
from tests.zips import files_of, zip_of
from tls.certs import ensure

SCANS = {"Müller, Jörg/été.txt": b"un\n", "Müller, Jörg/データ.bin": bytes(range(256)) * 5000, "note.txt": b""}

LARGE = 24 * 2**20
"""More than the client sends in one request, and than sockets hold."""


@pytest.fixture
def infer(stack: Stack, client_bin: Path, tmp_path: Path) -> Infer:
    return Infer.of(stack, client_bin, tmp_path)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    for name, content in SCANS.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder


def _files(zip: bytes) -> dict[str, bytes]:
    """Without the folders, which a zip of a model's has entries of."""
    return {name: content for name, content in files_of(zip).items() if not name.endswith("/")}


def test_an_hour_with_it(infer: Infer, model: ModelMaker, core: Api, scans: Path) -> None:
    """See what there is, send a folder, get a folder; look back; find out why another one failed, and try it again."""
    name = model("cp -R /input/. /output/; echo copied")
    assert name in infer("models").out
    submitted = infer("submit", name, scans, "-o", "results", "--label", "study=:bug: [b]")
    assert submitted.code == 0, submitted.err
    results = infer.folder / "results"
    assert {file.relative_to(results).as_posix(): file.read_bytes() for file in results.rglob("*.*")} == SCANS
    uid = submitted.out.strip()
    assert "study=:bug: [b]" in infer("status", uid).out
    assert infer("status", uid, "--json").json["labels"] == {"study": ":bug: [b]"}
    assert infer("logs", uid).out == "copied\n"
    followed = infer("logs", "-f", uid)
    assert (followed.out, followed.err) == ("copied\n", "-- finished\n")
    events = [json.loads(line) for line in infer("logs", "-f", "--json", uid).out.splitlines()]
    assert [event["event"] for event in events] == ["logged", "changed"]
    assert infer("fetch", uid).out.strip() == f"{uid}.zip"
    assert _files((infer.folder / f"{uid}.zip").read_bytes()) == SCANS

    failing = model("echo what a pity >&2; exit 3")
    failed = infer("submit", failing, scans / "note.txt", "--wait")
    assert failed.code == 3
    assert "exit_nonzero" in failed.err
    assert "what a pity" in failed.err
    retried = infer("retry", failed.out.strip(), "--wait", "--json")
    assert (retried.code, retried.json["state"]) == (3, "failed")
    assert [attempt["reason"] for attempt in retried.json["attempts"]] == ["exit_nonzero", "exit_nonzero"]


def test_several_files_and_a_zip_as_it_is(infer: Infer, copying: str, api: Api, scans: Path) -> None:
    """Files go under their own names; a zip is not put into another."""
    uid = infer("submit", copying, scans / "note.txt", scans / "Müller, Jörg").out.strip()
    assert _files(api.wait(uid).content) == SCANS
    zip = infer.folder / "some.zip"
    zip.write_bytes(zip_of({"a": b"b"}))
    uid = infer("submit", copying, zip).out.strip()
    assert files_of(api.wait(uid).content) == {"a": b"b"}


def test_scripts_tell_by_the_code(infer: Infer, copying: str, waiting: str, scans: Path) -> None:
    """What went wrong, without reading a word of it; and the words are one sentence, no traceback."""
    uid = infer("submit", waiting, scans).out.strip()
    codes: dict[int, list[tuple[str | Path, ...]]] = {
        2: [("submit", copying, "not-there"), ("submit", copying, scans, "--label", "x"), ("nonsense",)],
        4: [("status", "x" * 43), ("fetch", "x" * 43), ("submit", "no-such-model", scans)],
        6: [("fetch", uid), ("wait", uid, "--timeout", "0.1")],
        1: [("submit", copying, scans, "--ttl", "-5"), ("retry", uid)],
    }
    for code, commands in codes.items():
        for command in commands:
            done = infer(*command)
            assert (done.code, done.out) == (code, ""), (command, done)
            assert done.err
            assert "Traceback" not in done.err
    cancelled = infer("cancel", uid, "--json")
    assert (cancelled.code, cancelled.json["reason"]) == (0, "cancelled")
    assert infer("wait", uid).code == 3
    assert infer("delete", uid).code == 0
    assert infer("status", uid).code == 4


def test_a_server_that_is_not_there_or_not_trusted(infer: Infer, stack: Stack, tmp_path: Path) -> None:
    """At once, and with what to do."""
    ensure(tmp_path / "certs", "localhost")
    away = infer("--url", "https://localhost:1", "models")
    assert (away.code, "doesn't answer" in away.err) == (5, True)
    untrusted = infer("models", INFER_CA=str(tmp_path / "certs" / "ca.crt"))
    assert (untrusted.code, "INFER_CA" in untrusted.err) == (5, True)
    assert infer("--url", "localhost", "models").code == 1
    assert infer("--ca", "not-there", "models").code == 1


def test_settings_come_from_flags_then_the_environment_then_a_file(infer: Infer, stack: Stack) -> None:
    """A path in the file is relative to it, and what it doesn't know it says."""
    file = infer.folder / ".config" / "infer.toml"
    file.parent.mkdir()
    (file.parent / "ca.crt").write_bytes(stack.certificates.ca_cert.read_bytes())
    bare = Infer(infer.bin, infer.folder)
    assert bare("models").code == 2
    file.write_text(f'url = "{stack.gateway_url}"\nca = "ca.crt"\n')
    assert bare("models", "--json").code == 0
    assert bare("models", INFER_URL="https://localhost:1").code == 5
    assert bare("--url", stack.gateway_url, "models", INFER_URL="https://localhost:1").code == 0
    file.write_text('adress = "https://localhost"\n')
    assert "adress" in bare("models").err


def test_ctrl_c_says_how_to_go_on(infer: Infer, waiting: str, api: Api, core: Api, scans: Path) -> None:
    """Whoever waits can stop waiting; the task goes on."""
    with infer.start("submit", waiting, scans, "--wait") as process:
        assert process.stdout
        assert process.stderr
        uid = process.stdout.readline().strip()
        eventually(lambda: api.get(f"/api/tasks/{uid}/status").status_code == 200)
        process.send_signal(signal.SIGINT)
        err = process.stderr.read()
    assert (process.returncode, f"infer wait {uid}" in err, "Traceback" in err) == (130, True, False)
    assert api.get(f"/api/tasks/{uid}/status").json()["state"] == "pending"


def test_what_was_interrupted_goes_on(
    infer: Infer, stack: Stack, waiting: str, api: Api, core: Api, tmp_path: Path
) -> None:
    """An upload and a download, each by the command that Ctrl-C says, from where they stood."""
    sent = zip_of({"sent.bin": random.Random(1).randbytes(LARGE)})
    (tmp_path / "large.zip").write_bytes(sent)
    with holding(stack.ports.gateway, up_after=LARGE // 2) as proxy:
        said = _interrupted(infer, proxy, "submit", waiting, "large.zip")
    uid = said.split()[-1]
    assert int(_upload(api, uid).headers["Upload-Offset"]) > 0
    assert infer(*said.split()[1:]).out.strip() == uid
    assert core.get(f"/api/tasks/inputs/{uid}").content == sent
    assert infer("submit", waiting, "large.zip", "--uid", uid).out.strip() == uid

    output = zip_of({"made.bin": random.Random(2).randbytes(LARGE)})
    assert core.call("POST", f"/api/tasks/outputs/{uid}", zip=output).status_code == 200
    with holding(stack.ports.gateway, down_after=LARGE // 2) as proxy:
        said = _interrupted(infer, proxy, "fetch", uid, "-o", "made.zip")
    [part] = tmp_path.glob("*.part")
    assert 0 < part.stat().st_size < len(output)
    assert infer(*said.split()[1:]).out.strip() == "made.zip"
    assert (tmp_path / "made.zip").read_bytes() == output
    assert not list(tmp_path.glob("*.part"))


def _interrupted(infer: Infer, proxy: Proxy, *command: str) -> str:
    """The command with which it says that one can go on."""
    with infer.start(*command, INFER_URL=f"https://localhost:{proxy.port}") as process:
        proxy.wait_until_it_holds()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=COMMAND_SECONDS)
    assert process.returncode == 130, err
    return err.strip().partition("To go on: ")[2]


def _upload(api: Api, uid: str) -> requests.Response:
    return api.call("HEAD", f"/api/uploads/{uid}", headers={"Tus-Resumable": "1.0.0"})


def test_models_are_added(infer: Infer, core: Api, model: ModelMaker, scans: Path) -> None:
    """With a folder that their containers find in /model."""
    image = core.get(f"/api/models/human_readable_id/{model('cp -R /model/. /output/')}").json()["container_tag"]
    name = f"added-{scans.parent.name}"
    added = infer("models", "add", name, image, scans, "--no-gpu", "--json")
    assert (added.code, added.json["model_available"]) == (0, True), added.err
    submitted = infer("submit", name, scans / "note.txt", "-o", "result.zip")
    assert submitted.code == 0, submitted.err
    assert _files((infer.folder / "result.zip").read_bytes()) == SCANS
    assert infer("models", "add", name, image).code == 1


def test_an_operator_adds_models_at_core(infer: Infer, stack: Stack, core: Api, model: ModelMaker, scans: Path) -> None:
    """With its token, whether clients may or not; results are not given out there."""
    image = core.get(f"/api/models/human_readable_id/{model('cp -R /model/. /output/')}").json()["container_tag"]
    name = f"operated-{scans.parent.name}"
    add = ("models", "add", name, image, scans, "--no-gpu")
    refused = infer("--url", stack.core_url, "--key", "x" * 43, *add)
    assert (refused.code, refused.out) == (7, ""), refused.err
    operator = ("--url", stack.core_url, "--key", stack.token_file.read_text().strip())
    assert infer(*operator, *add).out == f"{name}\n"
    submitted = infer("submit", name, scans / "note.txt", "-o", "result.zip")
    assert _files((infer.folder / "result.zip").read_bytes()) == SCANS, submitted.err
    at_core = infer(*operator, "fetch", submitted.out.strip())
    assert (at_core.code, "gateway" in at_core.err) == (1, True), at_core.err
