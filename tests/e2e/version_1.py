"""A consumer of version 1, which works unchanged."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiormq
import requests

from demo.stack import Stack
from tests.direct import rabbitmq_at
from tests.e2e.conftest import INPUT
from tests.zips import zip_of

OUTPUT = zip_of({"result.txt": b"by a consumer of version 1\n"})


class Version1Consumer:
    """Written as version 1's documentation has it; the token is in its URL of core."""

    def __init__(self, stack: Stack) -> None:
        token = stack.token_file.read_text().strip()
        self._core_url = stack.core_url.replace("http://", f"http://consumer:{token}@")
        self._rabbitmq_url = stack.rabbitmq_url
        self._session = requests.Session()
        self._session.trust_env = False  # else a proxy named in the environment wins
        self.done: list[str] = []

    async def work(self, *, until: Callable[[], bool]) -> None:
        """One task after the other, each acknowledged when it is done."""
        connection = await rabbitmq_at(self._rabbitmq_url)
        channel = await connection.channel()
        await channel.basic_qos(prefetch_count=1)
        await channel.queue_declare(queue="unfinished_job_queue", durable=True)
        while not until():
            message = await channel.basic_get("unfinished_job_queue")
            if isinstance(message.delivery, aiormq.spec.Basic.GetOk):
                self._run(message.body.decode())
                await channel.basic_ack(message.delivery.delivery_tag or 0)
        await connection.close()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[str]:
        """Has begun the next task, and is killed before it acknowledges when the context ends."""
        connection = await rabbitmq_at(self._rabbitmq_url)
        channel = await connection.channel()
        message = await channel.basic_get("unfinished_job_queue")
        uid = message.body.decode()
        assert self._set_status(uid, 2).ok
        yield uid
        await connection.close()

    def _run(self, uid: str) -> None:
        assert self._set_status(uid, 2).ok
        task = self._session.get(f"{self._core_url}/api/tasks/{uid}", timeout=30).json()
        name = task["model_human_readable_id"]
        model = self._session.get(f"{self._core_url}/api/models/human_readable_id/{name}", timeout=30).json()
        assert model["container_tag"]
        input_zip = self._session.get(f"{self._core_url}/api/tasks/inputs/{uid}", timeout=30)
        assert input_zip.content == INPUT
        output = self._session.post(f"{self._core_url}/api/tasks/outputs/{uid}", files={"zip_file": OUTPUT}, timeout=30)
        assert output.ok
        assert self._set_status(uid, 1).ok
        self.done.append(uid)

    def _set_status(self, uid: str, status: int) -> requests.Response:
        return self._session.put(f"{self._core_url}/api/tasks/?uid={uid}&status={status}", timeout=30)
