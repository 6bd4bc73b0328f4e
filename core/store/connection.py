"""The connection to Redis, its deadlines, and its errors in our words."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib import resources
from typing import Any, Final

from redis import asyncio as redis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.commands.core import AsyncScript

from core.contract.errors import StoreFull, Unavailable

CONNECT_SECONDS: Final = 1.0
CALL_SECONDS: Final = 5.0
"""Longer than Redis stands still while it forks for a rewrite of a few tens of GB. What is under way waits so long, and
twice again; what has only begun to ask doesn't (`soon`)."""

SOON_SECONDS: Final = 1.5
"""A new request is answered within two seconds, also when Redis stands still."""

MAX_CONNECTIONS: Final = 128


_NOTE: Final = "#!lua flags=allow-oom\nreturn redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))"

_AWAY: Final = ("READONLY", "MISCONF", "CLUSTERDOWN", "MASTERDOWN", "NOREPLICAS", "TRYAGAIN", "LOADING")
"""Answers of a server that can't write at the moment: a failover, a full disk, a start."""

_LOST: Final = (exceptions.ConnectionError, exceptions.TimeoutError, RuntimeError)
"""RuntimeError is uvloop's word for a write on a connection that was reset, in the pool say. Nothing was sent."""


class Connection(redis.Redis):
    """A pool of connections whose failures come out as Unavailable and StoreFull."""

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        with translated():
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    async def call(self, *command: str | bytes | float) -> Any:
        """One command, in Redis's own words."""
        return await self.execute_command(*command)

    async def ask(self, *command: str | bytes | float) -> Any:
        """A read that a request begins with: whoever asks hears soon that Redis is away, and can come again."""
        async with soon():
            return await self.execute_command(*command)

    async def note(self, command: str, key: str, *args: str | bytes | float) -> Any:
        """A small write of bookkeeping that must succeed when the memory is full, because it precedes what frees it."""
        return await self.execute_command("EVAL", _NOTE, 1, key, command, *args)

    async def call_all(self, commands: Iterable[tuple[str | bytes | float, ...]]) -> list[Any]:
        """Their answers in order, for one trip. Not atomic, so that the keys may lie anywhere in a cluster."""
        pipeline = self.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        with translated():
            answers = await pipeline.execute(raise_on_error=False)
            for error in (answer for answer in answers if isinstance(answer, Exception)):
                raise error  # as Redis said it: else redis-py puts the command in front
        return answers


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """Lazy: the first command connects."""
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=CALL_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=CALL_SECONDS,
        retry=Retry(
            ExponentialWithJitterBackoff(cap=0.2, base=0.05),
            retries=2,
            supported_errors=_LOST,  # type: ignore[arg-type]
        ),
    )
    connection = Connection(connection_pool=pool)
    try:
        yield connection
    finally:
        await connection.aclose(close_connection_pool=True)


@contextmanager
def translated() -> Iterator[None]:
    """redis-py's exceptions as ours, and no cancellation lost.

    It sends through `asyncio.wait_for`, which before Python 3.12 drops a cancellation that comes just when the bytes
    are sent: a request whose client hung up would go on.
    """
    task = asyncio.current_task()
    cancellations = task.cancelling() if task else 0
    try:
        yield
        if task and task.cancelling() > cancellations:
            raise asyncio.CancelledError
    except exceptions.OutOfMemoryError as error:
        raise StoreFull from error
    except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
        raise Unavailable from error
    except RuntimeError as error:
        if "handler is closed" in str(error):
            raise Unavailable from error
        raise
    except exceptions.ResponseError as error:
        if isinstance(error, exceptions.ReadOnlyError | exceptions.ClusterDownError) or str(error).startswith(_AWAY):
            raise Unavailable from error
        raise


@asynccontextmanager
async def soon() -> AsyncIterator[None]:
    """Raises Unavailable after SOON_SECONDS."""
    try:
        async with asyncio.timeout(SOON_SECONDS):
            yield
    except TimeoutError as error:
        raise Unavailable from error


def script(connection: Connection, name: str) -> AsyncScript:
    """One transition. allow-oom: a task must be able to end when the memory is full, because that frees memory."""
    folder = resources.files("core.store").joinpath("lua")
    body = folder.joinpath("common.lua").read_text() + folder.joinpath(f"{name}.lua").read_text()
    return connection.register_script(f"#!lua flags=allow-oom\n{body}")
