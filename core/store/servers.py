"""Which server has a key: the one Redis there is, the master that Sentinels name, or a shard of a Redis Cluster."""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from redis import asyncio as redis
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

from core.store import keys
from core.store.lean import lean

CONNECT_SECONDS: Final = 1.0
CALL_SECONDS: Final = 5.0
"""Longer than Redis stands still while it forks for a rewrite of a few tens of GB. What is under way waits so long, and
twice again; what has only begun to ask doesn't (`soon`)."""

LOOK_SECONDS: Final = 0.5
"""Each has, to say who is primary: that must be known before a new request gives up."""

NEXT_SECONDS: Final = 0.1
"""So long is one waited for alone; then the next one is asked beside it."""

READ_AT_ONCE_BYTES: Final = 2**18
"""A chunk in 4 reads instead of 16 costs a sixth less."""

MAX_CONNECTIONS: Final = 128

LOST: Final = (exceptions.ConnectionError, exceptions.TimeoutError, RuntimeError)
"""RuntimeError is uvloop's word for a write on a connection that was reset, in the pool say. Nothing was sent."""

Url = str
Served = tuple[range, Url]
"""Slots, and the server that has them."""


@dataclass(eq=False)
class Shard:
    """A primary. `marker` is a key that it has; `has_replica` is as it last said, None until it is asked."""

    url: Url
    node: redis.Redis
    marker: str = ""
    has_replica: bool | None = None


@dataclass(frozen=True)
class Layout:
    """`by_slot` has None where a cluster says of nobody that it has the slot."""

    shards: Sequence[Shard]
    by_slot: Sequence[Shard | None]

    def owner(self, key: str | bytes) -> Shard:
        shard = self.by_slot[key_slot(key.encode() if isinstance(key, str) else key)]
        if shard is None:
            raise exceptions.ClusterDownError("Hash slot not served")
        return shard


class Servers:
    """One Redis. Everything is asked of it, and it alone keeps what it answered."""

    is_replicated = False
    """Somebody puts a replica in its place when it is lost."""

    is_spread = False
    """Not everything is on one server."""

    def __init__(self, url: Url) -> None:
        self._url = url
        self._known: dict[Url, Shard] = {}
        self._layout: Layout | None = None
        self._primaries: set[Shard] = set()
        self._hint: Url | None = None
        self._looking: asyncio.Task[Layout] | None = None
        self._named: Sequence[Url] = ()

    async def aclose(self) -> None:
        if self._looking:
            self._looking.cancel()
        for shard in self._known.values():
            await shard.node.aclose(close_connection_pool=True)

    async def layout(self) -> Layout:
        """As it is known; asked for at first, and after a doubt, once for all who wait."""
        if self._layout is not None:
            return self._layout
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_again(), name="redis layout")
            self._looking.add_done_callback(self._looked)
        return await asyncio.shield(self._looking)

    def doubt(self, error: BaseException) -> None:
        """Something didn't go as the layout says: it is asked for anew, first of whom a MOVED names."""
        self._layout = None
        self._hint = self.url_of(error.host, error.port) if isinstance(error, exceptions.AskError) else None

    def at(self, url: Url) -> Shard:
        """The same object as long as this lives."""
        if url not in self._known:
            self._known[url] = Shard(url, _client(url, MAX_CONNECTIONS))
        return self._known[url]

    def url_of(self, host: str, port: int) -> Url:  # noqa: ARG002
        """Of a server that another one names."""
        return self._url

    async def agree(self, shard: Shard) -> bool:  # noqa: ARG002
        """Whether most of those who say who is primary name it."""
        return True

    async def look(self) -> list[Served]:
        """Who has what."""
        return [(range(REDIS_CLUSTER_HASH_SLOTS), self._url)]

    async def _look_again(self) -> Layout:
        served = await self.look()
        by_slot: list[Shard | None] = [None] * REDIS_CLUSTER_HASH_SLOTS
        for slots, url in served:
            by_slot[slots.start : slots.stop] = [self.at(url)] * len(slots)
        shards = list(dict.fromkeys(shard for shard in by_slot if shard))
        _mark(shards, by_slot)
        for shard in set(shards) - self._primaries:
            shard.has_replica = None
        self._primaries = set(shards)
        self._layout = layout = Layout(shards, by_slot)
        await self._hang_up()
        return layout

    async def _hang_up(self) -> None:
        """On those that are neither named nor primary any more. What they are still asked ends first."""
        kept = {*self._named, *(shard.url for shard in self._primaries)}
        for url in self._known.keys() - kept:
            with suppress(*LOST):
                await self._known[url].node.connection_pool.disconnect(inuse_connections=False)

    def _looked(self, task: asyncio.Task[Layout]) -> None:
        self._looking = None
        if not task.cancelled():
            task.exception()  # it is everybody's who waits, and nobody may


class Cluster(Servers):
    """A Redis Cluster: each of its nodes says who has which slots."""

    is_replicated = True
    is_spread = True

    def __init__(self, urls: "Urls") -> None:
        super().__init__(urls.named[0])
        self._urls = urls
        self._named = urls.named

    def url_of(self, host: str, port: int) -> Url:
        return self._urls.of(host, port)

    async def look(self) -> list[Served]:
        return await _first_answer(self._slots, self._members(), self._hint)

    async def agree(self, shard: Shard) -> bool:
        """It isn't asked itself, except by a name that differs from the one its cluster has for it."""
        return await _most_name(shard.url, self._slots, self._members() - {shard.url})

    def _members(self) -> set[Url]:
        """Not all that ever were: one that came back elsewhere doesn't answer where it was."""
        return {*self._named, *(shard.url for shard in self._primaries)}

    async def _slots(self, url: Url) -> list[Served]:
        """A node that doesn't know its own name means the one that it was asked by."""
        found = await _ask(self.at(url).node, "CLUSTER", "SLOTS")
        own = (urlsplit(url).hostname or "").encode()
        return [
            (range(first, last + 1), self.url_of((host or own).decode(), port))
            for first, last, (host, port, *_), *_ in found
        ]


class Sentinels(Servers):
    """A master with replicas, and Sentinels that say which of them it is."""

    is_replicated = True

    def __init__(self, urls: "Urls") -> None:
        """`/service/db`, and `sentinel_password` for the Sentinels if they want one."""
        super().__init__(urls.named[0])
        self._service, _, database = urls.path.strip("/").partition("/")
        query = dict(urls.query)
        password = query.pop("sentinel_password", "")
        self._masters = replace(urls, path=f"/{database or 0}", query=query)
        asked = replace(self._masters, path="", user=f":{quote(password, safe='')}@" if password else "")
        self._sentinels = {url: _client(url, 2) for url in asked.named}

    def url_of(self, host: str, port: int) -> Url:
        return self._masters.of(host, port)

    async def look(self) -> list[Served]:
        return await _first_answer(self._master, set(self._sentinels))

    async def agree(self, shard: Shard) -> bool:
        return await _most_name(shard.url, self._master, self._sentinels)

    async def _master(self, sentinel: Url) -> list[Served]:
        found = await _ask(self._sentinels[sentinel], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._service)
        if found is None:
            raise exceptions.ConnectionError(f"A Sentinel knows no {self._service}")
        host, port = found
        return [(range(REDIS_CLUSTER_HASH_SLOTS), self.url_of(host.decode(), int(port)))]

    async def aclose(self) -> None:
        await super().aclose()
        for client in self._sentinels.values():
            await client.aclose(close_connection_pool=True)


@dataclass(frozen=True)
class Urls:
    """`scheme+kind://user@host:port,host:port/path?query`, and single servers' URLs of it."""

    scheme: str
    user: str
    hosts: tuple[str, ...]
    path: str
    query: Mapping[str, str]

    @classmethod
    def parsed(cls, url: Url) -> "Urls":
        parts = urlsplit(url)
        user, at, hosts = parts.netloc.rpartition("@")
        scheme, _, _ = parts.scheme.partition("+")
        return cls(scheme, user + at, tuple(hosts.split(",")), parts.path, dict(parse_qsl(parts.query)))

    @property
    def named(self) -> list[Url]:
        return [self._url(host) for host in self.hosts]

    def of(self, host: str, port: int) -> Url:
        """Of a server that another one names."""
        return self._url(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    def _url(self, host: str) -> Url:
        return urlunsplit((self.scheme, self.user + host, self.path, urlencode(self.query), ""))


def servers_at(url: Url) -> Servers:
    """Connects to nobody yet."""
    _, _, kind = urlsplit(url).scheme.partition("+")
    match kind:
        case "":
            return Servers(url)
        case "cluster":
            return Cluster(Urls.parsed(url))
        case "sentinel":
            return Sentinels(Urls.parsed(url))
        case _:
            raise ValueError(
                "REDIS_URL begins with redis://, rediss://, unix://, redis[s]+cluster:// or redis[s]+sentinel://"
            )


async def _first_answer(
    ask: Callable[[Url], Awaitable[list[Served]]], urls: Collection[Url], hint: Url | None = None
) -> list[Served]:
    """The first that there is. Asked in any order, so that no node is everybody's; first of whom the hint names."""
    shuffled = random.sample(list(urls), len(urls))
    rest = [hint, *shuffled] if hint else shuffled
    error: Exception = exceptions.ConnectionError("There is nobody to ask")
    asking: set[asyncio.Task[list[Served] | Exception]] = set()
    try:
        while rest or asking:
            if rest:
                asking.add(asyncio.create_task(_answer(ask, rest.pop(0))))
            seconds = NEXT_SECONDS if rest else None
            done, asking = await asyncio.wait(asking, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            for answer in (task.result() for task in done):
                if isinstance(answer, Exception):
                    error = answer
                elif answer:
                    return answer
    finally:
        for task in asking:
            task.cancel()
    raise error


async def _answer(ask: Callable[[Url], Awaitable[list[Served]]], url: Url) -> list[Served] | Exception:
    """Or why there is none."""
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            return await ask(url)
    except TimeoutError:
        return exceptions.TimeoutError("Doesn't say who is primary")
    except (*LOST, exceptions.ResponseError) as error:
        return error


async def _most_name(url: Url, ask: Callable[[Url], Awaitable[list[Served]]], urls: Collection[Url]) -> bool:
    """More than half of them; those that are slow aren't waited for when the others suffice."""

    async def names(asked: Url) -> bool:
        answer = await _answer(ask, asked)
        return not isinstance(answer, Exception) and any(primary == url for _, primary in answer)

    asking = [asyncio.create_task(names(asked)) for asked in urls]
    missing = len(asking) // 2 + 1
    try:
        for answer in asyncio.as_completed(asking):
            missing -= await answer
            if not missing:
                return True
        return False
    finally:
        for task in asking:
            task.cancel()


async def _ask(node: redis.Redis, *command: str) -> Any:
    return await node.execute_command(*command)  # type: ignore[no-untyped-call]


def _client(url: Url, max_connections: int) -> redis.Redis:
    """Tries once: who has the key may change between two tries."""
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=max_connections,
        timeout=CALL_SECONDS,
        socket_connect_timeout=CONNECT_SECONDS,
        socket_timeout=CALL_SECONDS,
        socket_read_size=READ_AT_ONCE_BYTES,
        retry=Retry(NoBackoff(), retries=0, supported_errors=LOST),  # type: ignore[arg-type]
    )
    pool.connection_class = lean(pool.connection_class)
    return redis.Redis(connection_pool=pool)


def _mark(shards: Sequence[Shard], by_slot: Sequence[Shard | None]) -> None:
    """Gives each shard a key in one of its slots."""
    unmarked = set(shards)
    for shard in shards:
        shard.marker = ""
    for number in itertools.count():
        if not unmarked:
            return
        key = keys.kept(number)
        owner = by_slot[key_slot(key.encode())]
        if owner in unmarked:
            unmarked.remove(owner)
            owner.marker = key
