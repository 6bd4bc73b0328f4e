"""What tasks leave behind where they shouldn't: in the engine, in the agents' folders, in Redis, in RabbitMQ."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from types import TracebackType
from typing import Self, TypeVar, cast

from aiormq.abc import AbstractChannel

from core.contract import codec, queues
from core.contract.model import Model
from core.contract.needs import ANY
from core.contract.options import Priority
from core.contract.task import Blob
from core.store import keys
from core.store.blobs import CHUNK_BYTES
from demo.image import docker
from demo.stack import Stack
from gpu_agent.engine import AGENT
from tests.direct import keys_in, rabbitmq_at, redis_at

GPU_QUEUE = queues.for_gpus(queues.UNFINISHED)
GPU_QUEUES = [queues.for_gpus(queues.UNFINISHED, priority) for priority in Priority]
QUEUES = [queues.for_need(queues.UNFINISHED, ANY, priority) for priority in Priority]
CALL_SECONDS = 30
Value = TypeVar("Value")
FOREVER = {
    *(keys.DUE, keys.TASKS, keys.LOOSE, keys.INCOMING),
    *(keys.MODELS, keys.MODEL_ID, keys.AGENTS, keys.GATEWAYS, keys.REAPER, keys.KEYS, keys.KEYS_USED),
    *(keys.ERASURES, keys.AUDIT),
}
EXPIRE = ("kept:", "writer:", "pace:")


class Leaks:
    """Looks into all the places of one stack. `found` is empty when nothing is anywhere that has no owner."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._redis = redis_at(stack.redis_url)
        # A loop in a thread of its own: a test may have one that runs.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="leaks")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._redis.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _ask(self, question: Callable[[AbstractChannel], Awaitable[Value]]) -> Value:
        asking = asyncio.run_coroutine_threadsafe(_ask(self._stack.rabbitmq_url, question), self._loop)
        return asking.result(CALL_SECONDS)

    def found(self) -> list[str]:
        """A line for each thing left over: what is there now of tasks that run is among them."""
        return [*self._keys(), *self._messages(), *self._files(), *self._volumes(), *self._containers()]

    def let_time_pass(self) -> None:
        """For zips of old revisions, which are kept for a while."""
        for blob in self._members(keys.LOOSE):
            self._redis.zadd(keys.LOOSE, {blob: 0}, xx=True)

    def let_entries_age(self) -> None:
        """Of tasks that were withdrawn: the step that makes one might come still, so they stay for two minutes."""
        for uid in self._members(keys.TASKS):
            if not self._redis.exists(keys.task(uid)):
                self._redis.zadd(keys.TASKS, {uid: 0}, xx=True)
                self._redis.zadd(keys.DUE, {uid: 0}, xx=True)

    def purge(self, queue: str) -> None:
        self._ask(lambda channel: channel.queue_purge(queue))

    def delete(self, queue: str) -> None:
        self._ask(lambda channel: channel.queue_delete(queue))

    def publish(self, queue: str, body: bytes) -> None:
        """Confirmed by the broker when it returns."""
        self._ask(lambda channel: channel.basic_publish(body, routing_key=queue))

    def messages(self, queue: str) -> int:
        """How many wait; those that a consumer holds are not among them."""
        declared = self._ask(lambda channel: channel.queue_declare(queue, **queues.DECLARATION))
        return declared.message_count or 0

    def consumers(self, queue: str) -> int:
        """How many slots listen: those that are busy or pause are not among them."""
        declared = self._ask(lambda channel: channel.queue_declare(queue, **queues.DECLARATION))
        return declared.consumer_count or 0

    def _containers(self) -> Iterator[str]:
        for line in self._docker("ps", "--all", "--format", f'{{{{.Label "{AGENT}"}}}} {{{{.Names}}}}'):
            yield f"container {line}"

    def _volumes(self) -> Iterator[str]:
        for line in self._docker("volume", "ls", "--format", f'{{{{.Label "{AGENT}"}}}} {{{{.Name}}}}'):
            yield f"volume {line}"

    def _docker(self, *arguments: str) -> list[str]:
        """Those lines that start with the name of one of this stack's agents."""
        output = docker(self._stack.docker_host, *arguments, "--filter", f"label={AGENT}")
        return [line for line in output.splitlines() if line.split()[0] in self._agents()]

    def _agents(self) -> set[str]:
        """Each agent holds a lock that is named after it."""
        return {path.stem for folder in self._stack.work_dirs for path in folder.glob("*.lock")}

    def _files(self) -> Iterator[str]:
        for folder in self._stack.work_dirs:
            yield from (f"file {path}" for path in (folder / "agents").glob("*/*"))

    def _messages(self) -> Iterator[str]:
        for queue in (*QUEUES, *GPU_QUEUES):
            if count := self.messages(queue):
                yield f"{count} messages in {queue}"

    def _keys(self) -> Iterator[str]:
        owned = {*FOREVER, *(keys.living(id.decode()) for id in self._hash(keys.KEYS))}
        tasks = self._members(keys.TASKS)
        for uid in tasks:
            fields = self._hash(keys.task(uid))
            if not fields:
                yield f"index entry of the task {uid}, which is no more"
            owned |= {keys.task(uid), keys.log(uid)}
            for name in (b"input", b"output"):
                if name in fields:
                    owned |= _keys_of(codec.unpack(Blob, fields[name]))
        for packed in self._hash(keys.MODELS).values():
            model = codec.unpack(Model, packed)
            owned |= _keys_of(model.zip) if model.zip else set()
        everything = {key for key in keys_in(self._redis) if not key.startswith(EXPIRE)}
        yield from (f"key {key}" for key in sorted(everything - owned))
        yield from (f"due {uid}" for uid in self._members(keys.DUE) - tasks)
        yield from (f"loose {blob}" for blob in self._members(keys.LOOSE))
        yield from (f"deletion of {uid.decode()}" for uid in self._hash(keys.ERASURES))
        yield from (f"room for {ticket.decode()}" for ticket in self._hash(keys.INCOMING))

    def _members(self, key: str) -> set[str]:
        return {member.decode() for member in cast(list[bytes], self._redis.zrange(key, 0, -1))}

    def _hash(self, key: str) -> dict[bytes, bytes]:
        return cast(dict[bytes, bytes], self._redis.hgetall(key))


async def _ask(url: str, question: Callable[[AbstractChannel], Awaitable[Value]]) -> Value:
    """On a connection of its own: tests kill the broker in between."""
    connection = await rabbitmq_at(url)
    try:
        return await question(await connection.channel())
    finally:
        await connection.close()
        # aiormq returns before its own tasks have ended.
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()}, return_exceptions=True)


def _keys_of(blob: Blob) -> set[str]:
    chunks = range(max(1, -(-blob.size // CHUNK_BYTES)))
    return {keys.blob(blob.id), *(keys.chunk(blob.id, number) for number in chunks)}
