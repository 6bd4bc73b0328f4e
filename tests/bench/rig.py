"""The system that is measured: all of it on this machine, one agent with one slot, models that do next to nothing."""

import asyncio
import http.client
import json
import os
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from redis import Redis

from demo.ports import Ports
from demo.stack import Stack
from tests.bench.processes import Processes
from tests.direct import rabbitmq_at
from tests.e2e.api import NOT_YET, Api
from tests.images import Images
from tests.waiting import eventually
from tests.zips import zip_of

AGENT = "agent-1"
QUEUES = ("unfinished_job_queue", "finished_job_queue")
NAME = "scan.bin"
COPY = f"cp /input/{NAME} /output/"
MODEL, SLOW_MODEL = "bench", "bench-slow"
SECONDS = "seconds"  # the file that says how long the slow model runs
WAIT_SECONDS = 30
CALL_SECONDS = 120
BOUNDARY = "bench-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


@dataclass(frozen=True)
class Rig:
    """The stack, the image of the model `MODEL`, and a `folder` for files. `clear` it where tasks would be in the way
    of the next measurement.
    """

    stack: Stack
    images: Images
    folder: Path

    @classmethod
    @contextmanager
    def up(cls) -> Iterator["Rig"]:
        with tempfile.TemporaryDirectory(prefix="bench-") as name:
            stack = Stack(Path(name) / "stack", Ports.free(), own_engine=True)
            stack.up()
            rig = cls(stack, Images(stack.docker_host), Path(name))
            try:
                rig._set_up()
                yield rig
            finally:
                rig.images.remove()
                stack.down()
                stack.delete()

    @property
    def image(self) -> str:
        return self.images.running(COPY)

    def core(self) -> Api:
        return Api.private(self.stack.core_url, self.stack.token_file.read_text().strip())

    def _set_up(self) -> None:
        """The models; and Redis doesn't rewrite its file by itself in the middle of a measurement."""
        slow = self.images.running(f"sleep $(cat /input/{SECONDS}); {COPY}")
        core = self.core()
        with core.session, self.redis() as redis:
            redis.config_set("auto-aof-rewrite-percentage", 0)
            for model, image in ((MODEL, self.image), (SLOW_MODEL, slow)):
                parameters = {"human_readable_id": model, "container_tag": image, "use_gpu": "false"}
                core.call("POST", "/api/models/", params=parameters).raise_for_status()

    def clear(self) -> None:
        """No task and no message stays, nor what Redis wrote of them. No agent may be at work."""
        asyncio.run(self._purge())
        with self.redis() as redis:
            redis.flushall()
        self.compact()
        self._set_up()

    def compact(self, prefix: str | None = None) -> None:
        """Redis forgets what was removed, and the keys that begin with `prefix`, and writes its file anew."""
        with self.redis() as redis:
            if prefix:
                for key in redis.scan_iter(f"{prefix}:*", count=10_000):
                    redis.unlink(key)
            redis.bgrewriteaof()
            eventually(lambda: not redis.info("persistence")["aof_rewrite_in_progress"])

    def finished(self, output: bytes | BinaryIO) -> str:
        """A task that a consumer of version 1 has worked at."""
        with Client.public(self.stack) as client, Client.private(self.stack) as core:
            uid = client.post(small_zip())
            core.finish(uid, output)
        return uid

    async def _purge(self) -> None:
        connection = await rabbitmq_at(self.stack.rabbitmq_url)
        channel = await connection.channel()
        for queue in QUEUES:
            await channel.queue_purge(queue)
        await connection.close()

    def with_agent(self) -> None:
        """What is posted is worked at."""
        if not self._has_agent:
            self.clear()
            self.stack.start(AGENT)

    def without_agent(self) -> None:
        """What is posted stays queued; now nothing is."""
        if self._has_agent:
            self.stack.stop(AGENT)
        self.clear()

    def refresh(self) -> dict[str, float]:
        """Starts gateway and core anew, and has them serve a task: the MiB that each process holds then."""
        for name in ("gateway", "core"):
            self.stack.restart(name)
        uid = self.finished(small_zip())
        with Client.public(self.stack) as client:
            client.output(uid)
        return self.processes().resident_mib()

    @property
    def _has_agent(self) -> bool:
        return any(status.name == AGENT and status.pid is not None for status in self.stack.status())

    def redis(self) -> Redis:
        return Redis.from_url(self.stack.redis_url)

    def processes(self) -> Processes:
        """Those of ours that run."""
        pids = {status.name: status.pid for status in self.stack.status() if status.pid is not None}
        names = {"gateway": "gateway", "core": "core", "agent": AGENT, "redis": "redis", "rabbitmq": "rabbitmq"}
        return Processes({name: pids[program] for name, program in names.items() if program in pids})


class Client:
    """One client with one connection, which is kept alive."""

    def __init__(self, connection: http.client.HTTPConnection, headers: Mapping[str, str] | None = None) -> None:
        self._connection = connection
        self._headers = headers or {}

    @classmethod
    @contextmanager
    def public(cls, stack: Stack) -> Iterator["Client"]:
        """Of the gateway."""
        tls = ssl.create_default_context(cafile=stack.certificates.ca_cert)
        port = stack.ports.gateway
        with closing(http.client.HTTPSConnection("localhost", port, context=tls, timeout=CALL_SECONDS)) as connection:
            yield cls(connection)

    @classmethod
    @contextmanager
    def private(cls, stack: Stack) -> Iterator["Client"]:
        """Of core."""
        token = stack.token_file.read_text().strip()
        with closing(http.client.HTTPConnection("127.0.0.1", stack.ports.core, timeout=CALL_SECONDS)) as connection:
            yield cls(connection, {"Authorization": f"Bearer {token}"})

    def post(self, zip: bytes, *, model: str = MODEL) -> str:
        """The uid."""
        path = f"/api/tasks/?model_human_readable_id={quote(model)}"
        status, body = self.call("POST", path, form(zip), {"Content-Type": FORM})
        assert status == 200, body
        return str(json.loads(body))

    def output(self, uid: str) -> bytes:
        """Waits for the task's end by long polls."""
        while True:
            status, body = self.call("GET", f"/api/tasks/{uid}?wait={WAIT_SECONDS}")
            if status != NOT_YET:
                assert status == 200, body
                return body

    def finish(self, uid: str, output: bytes | BinaryIO) -> None:
        """As a consumer of version 1 does it, at core."""
        length = len(output) if isinstance(output, bytes) else os.fstat(output.fileno()).st_size
        headers = {"Content-Type": "application/zip", "Content-Length": str(length)}
        for method, path, body, more in (
            ("PUT", f"/api/tasks/?uid={uid}&status=2", None, {}),
            ("POST", f"/api/tasks/outputs/{uid}", output, headers),
        ):
            status, answer = self.call(method, path, body, more)
            assert status == 200, answer

    def call(
        self, method: str, path: str, body: bytes | BinaryIO | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        with self.answer(method, path, body, headers) as answer:
            return answer.status, answer.read()

    def answer(
        self, method: str, path: str, body: bytes | BinaryIO | None = None, headers: Mapping[str, str] | None = None
    ) -> http.client.HTTPResponse:
        self._connection.request(method, path, body, {**self._headers, **(headers or {})})
        return self._connection.getresponse()


def form(zip: bytes) -> bytes:
    """The body of a browser's form with a file."""
    head, tail = form_around()
    return head + zip + tail


def form_around() -> tuple[bytes, bytes]:
    """What comes before the file and after it."""
    disposition = 'Content-Disposition: form-data; name="zip_file"; filename="input.zip"'
    return (
        f"--{BOUNDARY}\r\n{disposition}\r\nContent-Type: application/zip\r\n\r\n".encode(),
        f"\r\n--{BOUNDARY}--\r\n".encode(),
    )


def small_zip(content_bytes: int = 10_000) -> bytes:
    return zip_of({NAME: b"0" * content_bytes})


def seconds(action: Callable[[], object]) -> float:
    """How long it takes."""
    before = time.perf_counter()
    action()
    return time.perf_counter() - before
