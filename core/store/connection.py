"""The connection to Redis, its deadlines, and its errors in our words."""

import asyncio
import hashlib
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib import resources
from typing import Any, Final, TypeVar

import structlog
from redis import exceptions

from core import metrics
from core.contract.errors import ContractError, StoreFull, Unavailable
from core.deadline import Deadline
from core.store import keys
from core.store.servers import LOST, Servers, Shard, servers_at

log = structlog.get_logger()

SOON_SECONDS: Final = 1.5
"""A new request is answered within two seconds, also when Redis stands still."""

SHARD_SECONDS: Final = 0.8
"""Less, so that it can be said which part of a cluster doesn't answer."""

REPLICA_SECONDS: Final = 1.0
"""A replica that is well confirms a write in a millisecond."""

DOUBT_SECONDS: Final = 0.5
"""Whoever goes away sooner has lost nothing but its interest."""

QUIET_SECONDS: Final = 5.0
"""After so long without a word on a channel Redis is asked whether it is there."""

RETRY_SECONDS: Final = (0.05, 0.2)
"""At most, before each new try."""

_NOTE: Final = "#!lua flags=allow-oom\nreturn redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))"

_MARK_SECONDS: Final = 60

_AGAIN: Final = (
    *LOST,
    exceptions.ReadOnlyError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
    exceptions.AskError,
)
"""Somebody else may have the key now, or soon. MOVED is an AskError."""

_AWAY: Final = ("MISCONF", "NOREPLICAS", "LOADING", "UNBLOCKED")
"""Answers of a server that can't write at the moment: a full disk, replicas that it must have, a start, a demotion."""

Part = str | bytes | float
Command = tuple[Part, ...]
T = TypeVar("T")


class Connection:
    """Whoever has a key is asked, again where that changes. What fails comes out as Unavailable and StoreFull.

    What is `kept` is answered when a replica has it too, so that it stays whoever dies next. A Redis that nobody would
    replace keeps what its own disk keeps, and is asked nothing more.
    """

    def __init__(self, servers: Servers) -> None:
        self._servers = servers

    @property
    def is_spread(self) -> bool:
        return self._servers.is_spread

    async def call(self, *command: Part, kept: bool = False) -> Any:
        """One command, in Redis's own words."""

        async def attempt() -> Any:
            shard = (await self._servers.layout()).owner(_key(command))
            try:
                return await self._on(shard, command, kept=kept)
            except exceptions.MovedError:
                raise
            except exceptions.AskError as error:  # the key is on its way to another shard just now
                to = self._servers.at(self._servers.url_of(error.host, error.port))
                return await self._on(to, command, asking=True, kept=kept)

        return await self._tried(attempt)

    async def ask(self, *command: Part) -> Any:
        """A read that a request begins with: whoever asks hears soon that Redis is away, and can come again."""
        async with soon():
            return await self.call(*command)

    async def note(self, command: str, key: str, *args: Part, kept: bool = False) -> Any:
        """A small write of bookkeeping that must succeed when the memory is full, because it precedes what frees it."""
        return await self.call("EVAL", _NOTE, 1, key, command, *args, kept=kept)

    async def note_all(self, commands: Iterable[tuple[str, str, *tuple[Part, ...]]]) -> None:
        """As `note`, for one trip to each server."""
        await self.call_all(("EVAL", _NOTE, 1, key, command, *args) for command, key, *args in commands)

    async def call_all(self, commands: Iterable[Command]) -> list[Any]:
        """Their answers in order, for one trip to each server. Not atomic, so that the keys may lie anywhere."""
        with translated():
            return _raise_first(await self._called(list(commands), self._grouped))

    async def call_each(self, commands: Iterable[Command]) -> list[Any]:
        """As `call_all`, with Unavailable in the place of what a shard doesn't answer soon: others' don't matter."""

        async def soon_grouped(shard: Shard, commands: Sequence[Command]) -> list[Any]:
            try:
                async with asyncio.timeout(SHARD_SECONDS):
                    return await self._grouped(shard, commands)
            except TimeoutError as error:
                return [_unavailable(error)] * len(commands)

        with translated():
            return await self._called(list(commands), soon_grouped)

    async def _called(
        self, commands: Sequence[Command], group: Callable[[Shard, Sequence[Command]], Awaitable[list[Any]]]
    ) -> list[Any]:
        answers: list[Any] = [None] * len(commands)

        async def call_group(shard: Shard, numbers: Sequence[int]) -> None:
            found = await group(shard, [commands[number] for number in numbers])
            for number, answer in zip(numbers, found, strict=True):
                answers[number] = answer

        groups = await self._by_shard(map(_key, commands))
        await _all(call_group(shard, numbers) for shard, numbers in groups.items())
        return answers

    async def _grouped(self, shard: Shard, commands: Sequence[Command]) -> list[Any]:
        """Answers and errors; what somebody else may have now, or soon, is asked for again, each by itself."""
        try:
            found = await _pipelined(shard, commands)
        except LOST as error:
            found = [error] * len(commands)
        again = [number for number, answer in enumerate(found) if isinstance(answer, _AGAIN)]
        answers = await asyncio.gather(*(self.call(*commands[number]) for number in again), return_exceptions=True)
        for number, answer in zip(again, answers, strict=True):
            found[number] = answer
        return found

    async def keep(self, keys: Sequence[str]) -> None:
        """Returns when a replica has what stands under these keys. Raises Unavailable if that can't be known, or one of
        them is lost already.
        """

        async def keep_group(shard: Shard, numbers: Sequence[int]) -> None:
            found = await self._kept(shard, [("EXISTS", keys[number]) for number in numbers])
            if not all(found):
                raise Unavailable("A part of Redis was replaced meanwhile; send it again")

        async def attempt() -> None:
            groups = await self._by_shard(keys)
            await _all(keep_group(shard, numbers) for shard, numbers in groups.items())

        if self._servers.is_replicated:
            await self._tried(attempt)

    async def everywhere(self, *commands: Command) -> list[list[Any] | ContractError]:
        """Each primary's answers, or why it has none: it must also be one that its cluster lets answer for its keys."""

        async def each(shard: Shard) -> list[Any] | ContractError:
            async def attempt() -> list[Any]:
                _, *answers = _raise_first(await _pipelined(shard, [("EXISTS", shard.marker), *commands]))
                return answers

            try:
                async with asyncio.timeout(SHARD_SECONDS if self.is_spread else None):
                    return await self._tried(attempt)
            except ContractError as error:
                return error
            except TimeoutError as error:
                return _unavailable(error)

        with translated():
            layout = await self._servers.layout()
        return await asyncio.gather(*(each(shard) for shard in layout.shards))

    async def heard(self, channel: str) -> AsyncIterator[str]:
        """What is said on the channel, from now on; "" at first, and while there is nothing. Raises Unavailable when
        the connection is lost.
        """
        try:
            with translated():
                layout = await self._servers.layout()
                async with layout.shards[0].node.pubsub() as listener:  # a cluster tells each of its nodes
                    await listener.subscribe(channel)
                    answered = time.monotonic()
                    while time.monotonic() - answered < 2 * QUIET_SECONDS:
                        message = await listener.get_message(timeout=QUIET_SECONDS)
                        if message is None:
                            await listener.ping()
                            continue
                        answered = time.monotonic()
                        yield message["data"].decode() if message["type"] == "message" else ""
        except exceptions.ResponseError as error:  # its user may not use channels
            raise Unavailable from error
        raise Unavailable("Redis stands still")

    async def _by_shard(self, keys: Iterable[str | bytes]) -> dict[Shard, list[int]]:
        """The positions of the keys that it has."""
        layout = await self._servers.layout()
        groups: dict[Shard, list[int]] = defaultdict(list)
        for number, key in enumerate(keys):
            groups[layout.owner(key)].append(number)
        return groups

    async def _tried(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """Up to three times, a moment apart, each time with whoever has the keys then."""
        with translated():
            for seconds in RETRY_SECONDS:
                with suppress(*_AGAIN), self._doubting():
                    return await attempt()
                await asyncio.sleep(seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            with self._doubting():
                return await attempt()

    @contextmanager
    def _doubting(self) -> Iterator[None]:
        """Whoever lost its patience with a server may have asked the wrong one, as well as who heard of an error."""
        began = time.monotonic()
        try:
            yield
        except (*_AGAIN, asyncio.CancelledError, TimeoutError) as error:
            if not isinstance(error, asyncio.CancelledError) or time.monotonic() - began >= DOUBT_SECONDS:
                self._servers.doubt(error)
            raise

    async def _on(self, shard: Shard, command: Command, *, asking: bool = False, kept: bool = False) -> Any:
        commands = [("ASKING",), command] if asking else [command]
        if kept and self._servers.is_replicated:
            return (await self._kept(shard, commands, moving=_key(command) if asking else None))[-1]
        if asking:
            return _raise_first(await _pipelined(shard, commands))[-1]
        return await shard.node.execute_command(*command)  # type: ignore[no-untyped-call]

    async def _kept(self, shard: Shard, commands: Sequence[Command], *, moving: str | bytes | None = None) -> list[Any]:
        """Their answers, when a replica has what they wrote and what they saw: it gets all writes in one order, so the
        last one proves those before. A key that is on its way there has the mark beside it: the shard may be new, and
        have no slot yet.
        """
        if shard.has_replica:
            marker = shard.marker if moving is None else keys.kept_beside(moving)
            mark: Command = ("EVAL", _NOTE, 1, marker, "SET", "", "EX", _MARK_SECONDS)
            marking = [mark] if moving is None else [("ASKING",), mark]
            wait: Command = ("WAIT", 1, int(REPLICA_SECONDS * 1000))
            answers = _raise_first(await _pipelined(shard, [*commands, *marking, wait]))
            if not answers[-1]:
                [replication] = _raise_first(await _pipelined(shard, [("INFO", "replication")]))
                await self._excuse(shard, replication)
            return answers[: len(commands)]
        *answers, replication = _raise_first(await _pipelined(shard, [*commands, ("INFO", "replication")]))
        if _follows(replication):
            shard.has_replica = True
            await self._kept(shard, [], moving=moving)
        else:
            await self._excuse(shard, replication)
        return answers

    async def _excuse(self, shard: Shard, replication: Mapping[str, Any]) -> None:
        """Why no replica has confirmed: there is none, as after a failover. Whoever else has a say must agree that this
        is the primary still, because one that was replaced has none either.
        """
        if _follows(replication) or not await self._servers.agree(shard):
            raise Unavailable("No replica of Redis confirms what is written")
        metrics.UNREPLICATED.inc()
        if shard.has_replica is not False:
            shard.has_replica = False
            log.warning("store.unreplicated", advice="start the replica: without one, all it has may be lost with it")


class Script:
    """One transition, on the server that has its key."""

    def __init__(self, connection: Connection, body: str, *, kept: bool) -> None:
        self._connection = connection
        self._body = body
        self._kept = kept
        self._sha = hashlib.sha1(body.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, *, keys: Sequence[str], args: Sequence[Part] = ()) -> Any:
        call = (len(keys), *keys, *args)
        try:
            return await self._connection.call("EVALSHA", self._sha, *call, kept=self._kept)
        except exceptions.NoScriptError:  # new to that server, or the server is
            return await self._connection.call("EVAL", self._body, *call, kept=self._kept)

    async def each(self, keys: Sequence[str]) -> list[Any]:
        """Once for each key, without arguments, in as few trips as there are servers."""
        try:
            return await self._connection.call_all(("EVALSHA", self._sha, 1, key) for key in keys)
        except exceptions.NoScriptError:
            return await self._connection.call_all(("EVAL", self._body, 1, key) for key in keys)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """Lazy: the first command connects."""
    servers = servers_at(url)
    try:
        yield Connection(servers)
    finally:
        await servers.aclose()


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
    except exceptions.OutOfMemoryError as error:
        raise StoreFull from error
    except RuntimeError as error:
        if "handler is closed" in str(error):
            raise Unavailable from error
        raise
    except _AGAIN as error:
        raise Unavailable from error
    except exceptions.ResponseError as error:
        if str(error).startswith(_AWAY):
            raise Unavailable from error
        raise
    finally:
        if task and task.cancelling() > cancellations:
            raise asyncio.CancelledError


def soon(seconds: float = SOON_SECONDS) -> Deadline:
    """Raises Unavailable after that."""
    return Deadline(seconds, Unavailable)


def script(connection: Connection, *names: str, kept: bool = False, fills: bool = False) -> Script:
    """Of files in lua/, one after the other.

    allow-oom: a task must be able to end when the memory is full, because that frees memory. What `fills` it is refused
    then.
    """
    folder = resources.files("core.store").joinpath("lua")
    body = "".join(folder.joinpath(f"{name}.lua").read_text() for name in ("common", *names))
    return Script(connection, f"#!lua{'' if fills else ' flags=allow-oom'}\n{body}", kept=kept)


def _unavailable(error: Exception) -> Unavailable:
    unavailable = Unavailable()
    unavailable.__cause__ = error
    return unavailable


def _key(command: Command) -> str | bytes:
    """The first; all keys of a command are in one slot."""
    key = command[3] if command[0] in ("EVAL", "EVALSHA") else command[1] if len(command) > 1 else ""
    return key if isinstance(key, bytes) else str(key)


def _follows(replication: Mapping[str, Any]) -> bool:
    """Whether a replica does, and not only starts to."""
    return any(isinstance(value, dict) and value.get("state") == "online" for value in replication.values())


async def _pipelined(shard: Shard, commands: Sequence[Command]) -> list[Any]:
    """Answers and errors, in order, over one connection."""
    pipeline = shard.node.pipeline(transaction=False)
    for command in commands:
        pipeline.execute_command(*command)
    return await pipeline.execute(raise_on_error=False)


def _raise_first(answers: list[Any]) -> list[Any]:
    """The first error among them, as Redis said it: redis-py would put the command in front."""
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers


async def _all(works: Iterable[Awaitable[None]]) -> None:
    """Each to its end, then the first error."""
    _raise_first(await asyncio.gather(*works, return_exceptions=True))
