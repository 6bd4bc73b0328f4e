"""Backup and restore of the running containers, as the recipes do them."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.compose.conftest import Site
from tests.compose.operating import JUST, run
from tests.e2e.api import Api
from tests.e2e.conftest import COPY, INPUT
from tests.images import Images
from tests.lab import bases
from tests.waiting import eventually
from tests.zips import files_of, zip_of

pytestmark = pytest.mark.timeout(900)

HELD = f"for _ in $(seq 600); do [ -e /output/go ] && break; sleep 0.2; done; {COPY}"
"""Runs until it is told to go on, or gives up."""

WEIGHTS = zip_of({"weights": os.urandom(3 << 20)})


def _registered(core: Api, images: Images, name: str, script: str, zip: bytes | None = None) -> str:
    parameters = {"human_readable_id": name, "container_tag": images.running(script), "use_gpu": "false"}
    parameters |= {} if zip is None else {"model_available": "true"}
    answer = core.call("POST", "/api/models/", params=parameters, zip=zip)
    assert answer.status_code == 200, answer.text
    return name


def _recipe(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(site, *JUST, *arguments)


def _shown(api: Api, core: Api, tasks: list[str]) -> list[bytes]:
    """What clients and agents get."""
    [weighty] = [model["uid"] for model in core.get("/api/models/").json() if model["zip"]]
    answers = [core.get("/api/models/"), core.get(f"/api/models/zips/{weighty}")]
    return [answer.content for answer in [*answers, *(api.get(f"/api/tasks/{task}") for task in tasks)]]


def test_restores_what_was_there(
    site: Site, api: Api, core: Api, images: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Taken while a task runs and another waits, restored where nothing is left, neither data nor secrets: what had
    ended answers byte for byte as before, what hadn't is run again, and clients go on with the same certificate and
    token.
    """
    weighty = _registered(core, images, "weighty", f"{COPY}; cp /model/weights /output/", WEIGHTS)
    quick = _registered(core, images, "quick", COPY)
    failing = _registered(core, images, "failing", "exit 3")
    held = images.running(HELD)
    slow = _registered(core, images, "slow", HELD)
    ended = [api.post(weighty, INPUT), api.post(failing, INPUT)]
    assert [api.wait_for_end(task) for task in ended] == [200, 552]
    unfinished = [api.post(slow, INPUT), api.post(quick, INPUT)]
    eventually(lambda: core.get(f"/api/tasks/{unfinished[0]}").json()["state"] == "running")
    before = _shown(api, core, ended)

    started = time.monotonic()
    made = _recipe(site, "backup", str(tmp_path / "backup"))
    assert made.returncode == 0, made.stderr
    took = time.monotonic() - started
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700, "others may read it"
    assert core.get(f"/api/tasks/{unfinished[0]}").json()["state"] == "running"

    site.compose("down", "--volumes", "--timeout", "1")
    for part in (".env", "secrets", "tls/certs"):
        (site.folder / part).rename(tmp_path / part.replace("/", "-"))
    started = time.monotonic()
    restored = _recipe(site, "restore", str(tmp_path / "backup"))
    assert restored.returncode == 0, restored.stderr
    with capsys.disabled():
        print(f"\nbackup: {made.stdout}backup in {took:.1f} s, restored in {time.monotonic() - started:.1f} s")
    assert (site.folder / "secrets").stat().st_mode & 0o777 == 0o700
    assert _shown(api, core, ended) == before
    eventually(lambda: _released(site, held, api, unfinished[0]), within_seconds=60)
    for task in unfinished:
        assert api.wait_for_end(task) == 200
        assert files_of(api.get(f"/api/tasks/{task}").content).items() >= files_of(INPUT).items()
    assert core.get(f"/api/tasks/{unfinished[0]}").json()["attempt"] > 1


def _released(site: Site, image: str, api: Api, task: str) -> bool:
    """Whether the task has ended: the containers that wait are told to go on, until one of them was its."""
    running = run(site, "docker", "ps", "--quiet", "--filter", f"ancestor={image}").stdout.split()
    for container in running:
        run(site, "docker", "exec", container, "touch", "/output/go")
    return api.get(f"/api/tasks/{task}").status_code != 551


def test_a_restore_replaces_nothing_unasked(site: Site, core: Api, images: Images, tmp_path: Path) -> None:
    """Neither from a damaged backup, nor from one that Redis can't read, nor while nobody said --yes. When it is said,
    everything is replaced, whatever Redis left beside it when it was killed.
    """
    _registered(core, images, "kept", COPY)
    assert _recipe(site, "backup", str(tmp_path / "backup")).returncode == 0
    held = core.get("/api/models/").content
    refused = _recipe(site, "restore", str(tmp_path / "backup"))
    assert refused.returncode == 1
    assert "tasks; just restore FOLDER --yes replaces" in refused.stderr
    shutil.copytree(tmp_path / "backup", tmp_path / "damaged")
    data = tmp_path / "damaged" / "dump.rdb"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    refused = _recipe(site, "restore", str(tmp_path / "damaged"), "--yes")
    assert refused.returncode == 1
    assert "dump.rdb is damaged" in refused.stderr
    manifest = tmp_path / "damaged" / "manifest.json"
    said = json.loads(manifest.read_text())
    said["files"]["dump.rdb"] = hashlib.sha256(content).hexdigest()
    manifest.write_text(json.dumps(said))
    refused = _recipe(site, "restore", str(tmp_path / "damaged"), "--yes")
    assert refused.returncode == 1
    assert "nothing was changed" in refused.stderr
    in_data = ("exec", "--no-TTY", "--workdir", "/data", "redis")
    assert "restored" not in site.compose(*in_data, "ls")
    assert core.get("/api/models/").content == held
    site.compose(*in_data, "touch", "temp-rewriteaof-1.aof", "of-somebody-else")
    restored = _recipe(site, "restore", str(tmp_path / "backup"), "--yes")
    assert restored.returncode == 0, restored.stderr
    assert core.get("/api/models/").content == held
    assert "temp-rewriteaof" not in site.compose(*in_data, "ls")
    site.compose(*in_data, "rm", "of-somebody-else")


def test_an_interrupted_backup_leaves_no_half(site: Site, tmp_path: Path) -> None:
    """Nothing stands under the name that was asked for, and the next one isn't disturbed."""
    unfinished = tmp_path / ".backup.unfinished"
    process = subprocess.Popen(
        [*JUST, "backup", str(tmp_path / "backup")],
        cwd=site.folder,
        env={**os.environ, "DOCKER_HOST": site.host.docker_host, "DOCKER_CONFIG": str(bases.compose_plugin())},
        start_new_session=True,
    )
    eventually(unfinished.exists)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "backup").exists()
    assert _recipe(site, "backup", str(tmp_path / "backup")).returncode == 0
    assert not unfinished.exists()
