"""The main job as a user does it, over HTTPS: register a model, post a zip, poll, fetch the result."""

import io
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from demo import image
from demo.stack import Stack

MODEL = "passthrough"
EXAMPLE_FILES = {"hello.txt": b"Hello, model!\n", "measurements/day-1.csv": b"hour,value\n8,0.25\n9,0.5\n"}
NOT_YET = 551
TASK_SECONDS = 120
WAIT_SECONDS = 10
CALL_SECONDS = 30


class JobError(Exception):
    """A step of the job went wrong; the message quotes the answer."""


@dataclass
class Stopwatch:
    steps: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self.steps[name] = time.monotonic() - started


@dataclass(frozen=True)
class Outcome:
    task: str
    posted: Path
    result: Path
    files: dict[str, int]  # name → bytes
    steps: dict[str, float]  # name → seconds


def run(stack: Stack) -> Outcome:
    """Raises JobError, image.ImageError, requests' errors."""
    posted, result = stack.folder / "example.zip", stack.folder / "result.zip"
    posted.write_bytes(_zip(EXAMPLE_FILES))
    api = _Api(stack.gateway_url, stack.certificates.ca_cert)
    watch = Stopwatch()
    with watch.step("make the model's image"):
        tag = image.build(stack.docker_host)
    with watch.step("register the model"):
        api.register(tag)
    with watch.step("post the zip"):
        task = api.post(posted)
    with watch.step("wait for the result"):
        content = api.wait(task)
    result.write_bytes(content)
    with zipfile.ZipFile(result) as archive:
        files = {info.filename: info.file_size for info in archive.infolist()}
        for name, expected in EXAMPLE_FILES.items():
            if name not in files or archive.read(name) != expected:
                raise JobError(f"{result} lacks {name} as it was posted")
    return Outcome(task, posted, result, files, watch.steps)


class _Api:
    def __init__(self, url: str, ca_cert: Path) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.verify = str(ca_cert)
        self._session.trust_env = False  # else a proxy or a CA bundle named in the environment wins

    def register(self, tag: str) -> None:
        parameters = {
            "container_tag": tag,
            "human_readable_id": MODEL,
            "description": "Gives back what it got, with checksums",
            "use_gpu": "false",
        }
        answer = self._session.post(f"{self._url}/api/models/", params=parameters, timeout=CALL_SECONDS)
        if answer.status_code not in (requests.codes.ok, requests.codes.conflict):  # conflict: an earlier run did it
            raise _error(answer)

    def post(self, path: Path) -> str:
        with path.open("rb") as file:
            answer = self._session.post(
                f"{self._url}/api/tasks/",
                params={"model_human_readable_id": MODEL},
                files={"zip_file": file},
                timeout=CALL_SECONDS,
            )
        if answer.status_code != requests.codes.ok:
            raise _error(answer)
        return str(answer.json())

    def wait(self, task: str) -> bytes:
        deadline = time.monotonic() + TASK_SECONDS
        while time.monotonic() < deadline:
            wait = {"wait": str(WAIT_SECONDS)}
            answer = self._session.get(f"{self._url}/api/tasks/{task}", params=wait, timeout=CALL_SECONDS)
            if answer.status_code == requests.codes.ok:
                return answer.content
            if answer.status_code != NOT_YET:
                raise _error(answer)
        raise JobError(f"task {task} isn't done after {TASK_SECONDS} s")


def _error(answer: requests.Response) -> JobError:
    return JobError(f"{answer.request.method} {answer.url} answered {answer.status_code}: {answer.text[:500]}")


def _zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
