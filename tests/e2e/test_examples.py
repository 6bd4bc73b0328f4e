"""The models to copy from, built by their own Dockerfiles and run as tasks."""

import hashlib
import importlib
import json
import secrets
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo.image import docker
from demo.stack import REPOSITORY, Stack
from tests.e2e.api import Api
from tests.zips import files_of, zip_of

EXAMPLES = REPOSITORY / "examples"
VITALS = b"patient,heart_rate,oxygen\n1,72,98\n2,180,97\n3,75,81\n"

Builder = Callable[..., str]


@pytest.fixture(scope="module")
def example(stack: Stack, core: Api, python_image: str) -> Iterator[Builder]:
    """Builds and registers an example: `example("thresholds", zip)` → its human_readable_id."""
    built = []

    def made(name: str, zip: bytes | None = None) -> str:
        model, tag = f"{name}-{secrets.token_hex(4)}", f"inference-server-test/{name}:1"
        docker(
            stack.docker_host,
            "build",
            "--quiet",
            "--build-arg",
            f"BASE={python_image}",
            "--tag",
            tag,
            str(EXAMPLES / name),
        )
        built.append(tag)
        parameters = {"human_readable_id": model, "container_tag": tag, "use_gpu": "false"}
        parameters |= {"model_available": "true"} if zip else {}
        answer = core.call("POST", "/api/models/", params=parameters, zip=zip)
        assert answer.status_code == 200, answer.text
        return model

    yield made
    docker(stack.docker_host, "image", "rm", "--force", *built)


def test_thresholds(api: Api, example: Builder) -> None:
    """The rows that are outside, wherever the table lies; a zip that lacks the limits is answered with a sentence."""
    model = example("thresholds")
    limits = json.dumps({"heart_rate": [50, 120], "oxygen": [90, 100]}).encode()
    found = files_of(api.output(model, zip_of({"limits.json": limits, "ward 3/vitals.csv": VITALS})))
    assert json.loads(found["summary.json"]) == {"ward 3/vitals.csv": {"rows": 3, "outside": 2}}
    assert found["ward 3/vitals.csv"].split() == [
        *(b"patient,heart_rate,oxygen,outside", b"2,180,97,heart_rate", b"3,75,81,oxygen"),
    ]
    failure = api.failure(model, zip_of({"vitals.csv": VITALS}))
    assert failure["reason"] == "exit_nonzero"
    assert "The zip needs a limits.json" in failure["message"]


def test_progress(api: Api, example: Builder) -> None:
    """Whoever listens hears how far it is."""
    files = {"scan.nii": bytes(3 * 2**20), "notes/a.txt": b"a"}
    uid = api.post(example("progress"), zip_of(files))
    found = files_of(api.wait(uid).content)
    assert '"fraction":1.0,"message":"scan.nii"' in api.get(f"/api/tasks/{uid}/events").text
    told = sorted(found["sha256sums.txt"].decode().splitlines())
    assert told == sorted(f"{hashlib.sha256(content).hexdigest()}  {name}" for name, content in files.items())


def test_segmentation_where_pytorch_is(tmp_path: Path) -> None:
    """The code on this machine's PyTorch, without a container: the image that it is made for is of gigabytes."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    np = importlib.import_module("numpy")

    folders = [tmp_path / name for name in ("input", "output", "model")]
    for folder in folders:
        folder.mkdir()
    volume = np.zeros((8, 8, 8))
    volume[2:6, 2:6, 2:6] = 1
    np.save(folders[0] / "scan.npy", volume)
    _python("make_weights.py", str(tmp_path / "weights.zip"))
    with zipfile.ZipFile(tmp_path / "weights.zip") as weights:
        weights.extractall(folders[2])
    arguments = ", ".join(f"Path({str(folder)!r})" for folder in folders)
    told = _python("-c", f"from pathlib import Path; import segment; segment.main({arguments})")
    assert "progress: 0.00 scan.npy" in told
    mask = np.load(folders[1] / "scan.npy")
    assert mask[3, 3, 3]
    assert not mask[0, 0, 0]
    assert json.loads((folders[1] / "voxels.json").read_text()) == {"scan.npy": int(mask.sum())}


def test_segmentation_without_pytorch(api: Api, example: Builder) -> None:
    """Its image on a Python that stands in for PyTorch's: the user reads what is missing."""
    model = example("segmentation", zip_of({"weights.pt": b"none"}))
    failure = api.failure(model, zip_of({"scan.npy": b"none"}))
    assert failure["reason"] == "exit_nonzero"
    assert "No module named 'numpy'" in failure["message"]


def _python(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    folder = EXAMPLES / "segmentation"
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=60).stdout
