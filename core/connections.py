"""A server's connections: how many it holds, in all and with one address. Whoever opens more is hung up on."""

import asyncio
import ipaddress
import math
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import hypercorn.asyncio.run
import prometheus_client
import structlog
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Closed, Event
from prometheus_client import CollectorRegistry

log = structlog.get_logger()

IPV6_PREFIX: Final = 64
"""What a single customer has of IPv6, to choose any address in."""

TELL_SECONDS: Final = 60.0

PARTING_SECONDS: Final = 10.0
"""For the client's own end of TLS, once it has all that was sent. uvloop would read and drop what comes, for 30 s."""

HUNG_UP_SECONDS: Final = 2.0
"""For the last word to get to who broke the protocol, and may well send on."""


class HungUp(Closed):
    """By us, on a client that broke the protocol."""


class Connections:
    """Of one process, behind their TLS handshake. `most` in all, and `most_of_one` address, may be set."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.most = self.most_of_one = math.inf
        self._with: Counter[str] = Counter()
        self._told_at = -TELL_SECONDS
        self.pauses: set[Pause] = set()
        """Of those that wait for a request."""
        self.is_parting = False
        self._open = prometheus_client.Gauge(
            "inference_server_connections", "Open connections", registry=registry, multiprocess_mode="livesum"
        )
        self._refused = prometheus_client.Counter(
            "inference_server_connections_refused",
            "Connections closed at once, because there were too many, in all or with their address",
            registry=registry,
        )

    @contextmanager
    def one(self, address: str) -> Iterator[bool]:
        """Whether it may stay."""
        who = whose(address)
        if self._with.total() >= self.most or self._with[who] >= self.most_of_one:
            self._refuse(who)
            yield False
            return
        self._with[who] += 1
        self._open.inc()
        try:
            yield True
        finally:
            self._open.dec()
            self._with[who] -= 1
            if not self._with[who]:
                del self._with[who]

    def part(self) -> None:
        """With those that wait for a request, and from now on with each that would."""
        self.is_parting = True
        for pause in list(self.pauses):
            pause.end()

    def _refuse(self, who: str) -> None:
        self._refused.inc()
        if time.monotonic() - self._told_at >= TELL_SECONDS:
            self._told_at = time.monotonic()
            log.warning("connections.refused", address=who, its=self._with[who], all=self._with.total())


def whose(address: str) -> str:
    """Addresses that one client may choose among are one."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv4Address):
        return address
    mapped = found.ipv4_mapped
    return str(mapped or ipaddress.ip_network((found, IPV6_PREFIX), strict=False))


class Pause:
    """Until the next request: a timer in the place of Hypercorn's task, which is made anew and cancelled each time."""

    def __init__(self, connection: "Connection", connections: Connections) -> None:
        self._connection = connection
        self._connections = connections
        self._timer: asyncio.TimerHandle | None = None

    async def restart(self, *_: object) -> None:
        await self.stop()
        seconds = 0 if self._connections.is_parting else self._connection.config.keep_alive_timeout
        self._timer = self._connection.loop.call_later(seconds, self.end)
        self._connections.pauses.add(self)

    async def stop(self) -> None:
        self._connections.pauses.discard(self)
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        self._connections.pauses.discard(self)
        self._connection.part()


class Connection(TCPServer):
    """Hypercorn's, counted."""

    def __init__(self, connections: Connections, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._connections = connections
        self.idle_task = Pause(self, connections)  # type: ignore[assignment]

    def part(self) -> None:
        """No request has come for long enough."""
        self._task_group.spawn(self._initiate_server_close)

    async def run(self) -> None:
        peer = self.writer.get_extra_info("peername")
        with self._connections.one(peer[0] if peer else "::") as may_stay:
            if may_stay:
                await super().run()
            else:
                self.writer.transport.abort()

    async def protocol_send(self, event: Event) -> None:
        if isinstance(event, HungUp):
            self.loop.call_later(HUNG_UP_SECONDS, self.writer.transport.abort)
        await super().protocol_send(event)

    async def _close(self) -> None:
        parting = self.loop.call_later(PARTING_SECONDS, self._part)
        await super()._close()
        parting.cancel()

    async def _initiate_server_close(self) -> None:
        """Of one that was idle."""
        self.loop.call_later(PARTING_SECONDS, self._part)
        await super()._initiate_server_close()

    def _part(self) -> None:
        """Unless it is slow to take the end of an answer: it has uvloop's 30 s for it."""
        if not self.writer.transport.get_write_buffer_size():
            self.writer.transport.abort()

    async def _read_data(self) -> None:
        """To its end. Hypercorn's own would be kept until it has been idle for long enough to be closed."""
        await super()._read_data()
        await self.idle_task.stop()


def install(connections: Connections) -> None:
    """For the server of this process: Hypercorn has no setting for it."""
    hypercorn.asyncio.run.TCPServer = partial(Connection, connections)  # type: ignore[attr-defined, assignment]
