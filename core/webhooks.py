"""Tells clients' servers that a task has ended, as Standard Webhooks has it (standardwebhooks.com).

What is to be told stands in Redis until it is told, so no end is forgotten, and no task waits for whoever is told.
"""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import random
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Final, TypeVar

import aiohttp
import structlog
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import BaseModel
from yarl import URL

from core.contract import VERSION
from core.contract.errors import InvalidParameters, Unavailable
from core.contract.status import TaskStatus
from core.contract.task import State, Task
from core.metrics import WEBHOOKS
from core.observe import REQUEST
from core.store.webhooks import Leased, Webhooks

log = structlog.get_logger()

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

T = TypeVar("T")

AT_ONCE: Final = 32
AT_ONCE_TO_A_HOST: Final = 4
"""A host that never answers takes no more of them."""

LOOKUPS_AT_ONCE: Final = 16
LOOK_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 10.0
LEASE_SECONDS: Final = 60.0
"""Past `ANSWER_SECONDS`: a core that died with a delivery leaves it to another one after this."""

DELAYS_SECONDS: Final = (5, 30, 120, 600, 1800, 3600, 3600, 7200, 14400, 28800, 28800)
"""Before each further try; after about a day it is given up."""

OUTPUT_SECONDS: Final = 60
"""A consumer of version 1 may set its task to finished first and post the output after: so long it is waited for."""

_TRANSLATED: Final = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "::/96")))
"""Addresses that lead to an IPv4 address inside them."""

_NUMBER: Final = re.compile(r"(?:.*\.)?(?:\d+|0x[\da-f]*)\.?", re.IGNORECASE)
"""A host that the system reads as an IPv4 address, in whatever form: 127.1, 2130706433, 0x7f000001."""

_UNWRITTEN: Final = re.compile(r"[\x00-\x20\x7f\\]")
"""What stands in no URL, and parsers leave out or take for something else."""

PREFIX: Final = "whsec_"
"""Of a secret that is base64."""


@dataclass(frozen=True)
class Guard:
    """Whom webhooks may be sent to: anybody on the internet over HTTPS, and who an operator allows. Nobody else, or
    clients could have core call what only core can reach.
    """

    networks: tuple[Network, ...] = ()
    hosts: frozenset[str] = frozenset()

    @classmethod
    def of(cls, allowed: str) -> "Guard":
        """Of names, addresses and networks, with commas between."""
        networks, hosts = [], []
        for entry in filter(None, map(str.strip, allowed.split(","))):
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError:
                hosts.append(entry.lower())
        return cls(tuple(networks), frozenset(hosts))

    def check(self, url: str) -> None:
        """Raises InvalidParameters for what can be seen of the URL: its names are looked up when it is called."""
        try:
            parts = URL(url)
            host, port = parts.host, parts.port
        except ValueError:
            host = port = None
        if (
            _UNWRITTEN.search(url)
            or not host
            or not port
            or parts.scheme not in ("http", "https")
            or parts.user
            or parts.password
        ):
            raise _wrong("an https:// URL without a user or a password")
        address = _address(host)
        if address is None and _NUMBER.fullmatch(host):
            raise _wrong("an address in its usual form")
        if address and not self.allows(host, address):
            raise _wrong("an address on the internet, or one that the operator allows (WEBHOOK_ALLOW)")
        if parts.scheme == "http" and not self._is_named(host, address):
            raise _wrong("https://; without TLS only what the operator allows (WEBHOOK_ALLOW)")

    def allows(self, host: str, address: Address) -> bool:
        return self._is_named(host, address) or _is_public(address)

    def _is_named(self, host: str, address: Address | None) -> bool:
        return host.lower() in self.hosts or (address is not None and any(address in net for net in self.networks))


PUBLIC: Final = Guard()


def _wrong(right: str) -> InvalidParameters:
    return InvalidParameters.wrong("query", "webhook", right)


def _address(host: str) -> Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_public(address: Address) -> bool:
    if address.is_multicast or any(address in network for network in _TRANSLATED):
        return False
    return address.is_global


@dataclass(frozen=True)
class _Resolver(AbstractResolver):
    """Only addresses that the guard allows: what a name leads to is checked as it is called, and not before."""

    guard: Guard
    free: asyncio.Semaphore = field(default_factory=partial(asyncio.Semaphore, LOOKUPS_AT_ONCE))

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        look_up = partial(
            socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        async with self.free:  # until it is through: whoever loses his patience doesn't call off aiohttp's asking
            found = await _in_a_thread(look_up)
        allowed = [
            ResolveResult(hostname=host, host=where, port=port, family=of, proto=proto, flags=socket.AI_NUMERICHOST)
            for of, _, proto, _, (where, *_) in found
            if isinstance(where, str) and (address := _address(where)) and self.guard.allows(host, address)
        ]
        if not allowed:
            raise OSError(None, f"{host} leads nowhere that webhooks may be sent to")
        return allowed

    async def close(self) -> None:
        pass


async def _in_a_thread(work: Callable[[], T]) -> T:
    """A thread of its own, for what can take half a minute and can't be called off, as asking a nameserver that never
    answers: the loop's few threads also look up Redis and RabbitMQ. The process ends without it.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - whoever awaits it raises it
            future.set_exception(error)

    threading.Thread(target=run, name="lookup", daemon=True).start()
    return await asyncio.wrap_future(future)


class Event(BaseModel):
    """What is sent."""

    type: str
    timestamp: str
    data: TaskStatus

    @classmethod
    def of(cls, task: Task) -> "Event":
        finished = task.datetime_finished
        return cls(
            type=f"task.{task.state}", timestamp=finished.isoformat() if finished else "", data=TaskStatus.of(task)
        )


def event_id_of(task: Task) -> str:
    """The same however often this end is told. A task that is tried again ends again, maybe in the same attempt."""
    ended = task.datetime_finished or task.datetime_created
    return f"{task.uid}-{task.state}-{ended:%Y%m%dT%H%M%S%f}"


def _host(task: Task) -> str:
    return URL(task.options.webhook or "").host or ""


def signature(secret: str, event_id: str, timestamp: int, body: bytes) -> str:
    """Of the header `webhook-signature`."""
    key = base64.b64decode(secret.removeprefix(PREFIX)) if secret.startswith(PREFIX) else secret.encode()
    signed = hmac.new(key, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"


@dataclass(frozen=True)
class Postman:
    """Takes from the outbox what is due, together with the other cores'."""

    outbox: Webhooks
    session: aiohttp.ClientSession
    guard: Guard
    calls: list[tuple[str, float]] = field(default_factory=list)
    """That are being made: to which host, since when."""

    @classmethod
    @asynccontextmanager
    async def open(cls, outbox: Webhooks, guard: Guard) -> AsyncIterator["Postman"]:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=_Resolver(guard), force_close=True),
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"InferenceServer/{VERSION}", "Content-Type": "application/json"},
        )
        async with session:
            yield cls(outbox, session, guard)

    async def deliver_for_ever(self) -> None:
        """Whoever answers slowly, or never, holds up nobody else: each that ends makes room for another."""
        running: set[asyncio.Task[None]] = set()
        async with asyncio.TaskGroup() as group:
            while True:
                for leased in await self._due(AT_ONCE - len(running)):
                    delivery = group.create_task(self._deliver(leased))
                    running.add(delivery)
                    delivery.add_done_callback(running.discard)
                if running:
                    await asyncio.wait(running, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(LOOK_SECONDS)

    async def _due(self, limit: int) -> list[Leased]:
        try:
            return await self.outbox.due(limit=limit, lease_seconds=LEASE_SECONDS)
        except Unavailable as error:
            log.warning("webhooks.postponed", error=str(error))
            return []

    async def _deliver(self, leased: Leased) -> None:
        try:
            await self._tell(leased)
        except Unavailable as error:
            log.warning("webhooks.postponed", task=leased.uid, error=str(error))

    async def _tell(self, leased: Leased) -> None:
        uid = leased.uid
        try:
            entry = await self.outbox.entry(leased)
        except (KeyError, ValueError) as error:
            log.error("task.unreadable", task=uid, error=repr(error))
            return await self.outbox.remove(leased)
        if entry is None or entry.is_told or entry.task.state not in (State.FINISHED, State.FAILED):
            await self.outbox.remove(leased)  # it was deleted, or is tried again, which will end too
            return
        REQUEST.set(entry.task.request_id)  # of this delivery alone: each is a task of its own
        if (seconds := self._early_seconds(entry.task)) > 0:
            return await self.outbox.postpone(leased, seconds=seconds)
        trouble = await self._call(entry.task)
        if trouble is None:
            WEBHOOKS.labels("sent").inc()
            await self.outbox.told(entry)
            log.info("webhook.sent", task=uid)
        elif entry.tries < len(DELAYS_SECONDS):
            WEBHOOKS.labels("failed").inc()
            await self.outbox.again(entry, after_seconds=DELAYS_SECONDS[entry.tries])
            log.info("webhook.failed", task=uid, why=trouble, tries=entry.tries + 1)
        else:
            WEBHOOKS.labels("given up").inc()
            await self.outbox.told(entry)
            log.warning("webhook.given_up", task=uid, why=trouble)

    def _early_seconds(self, task: Task) -> float:
        """How much later it should be told: its output may be about to come, or its host is told enough just now."""
        if task.state is State.FINISHED and task.output is None and task.datetime_finished:
            waits = task.datetime_finished + timedelta(seconds=OUTPUT_SECONDS) - datetime.now(UTC)
            if waits > timedelta(0):
                return waits.total_seconds()
        since = [began for host, began in self.calls if host == _host(task)]
        if len(since) < AT_ONCE_TO_A_HOST:
            return 0
        return random.uniform(LOOK_SECONDS / 2, LOOK_SECONDS + 4 * (time.monotonic() - since[0]))  # noqa: S311

    async def _call(self, task: Task) -> str | None:
        """As `_send`."""
        call = (_host(task), time.monotonic())
        self.calls.append(call)
        try:
            return await self._send(task)
        finally:
            self.calls.remove(call)

    async def _send(self, task: Task) -> str | None:
        """Why it has to be sent again; None when it was taken, or never will be."""
        url, secret = task.options.webhook or "", task.options.webhook_secret or ""
        body = Event.of(task).model_dump_json().encode()
        event_id, timestamp = event_id_of(task), int(time.time())
        headers = {
            "webhook-id": event_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signature(secret, event_id, timestamp, body),
        }
        try:
            self.guard.check(url)  # the operator may have changed his mind, and addresses are never resolved
            async with self.session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
                is_taken = answer.status < HTTPStatus.MULTIPLE_CHOICES or answer.status == HTTPStatus.GONE
                return None if is_taken else f"status {answer.status}"
        except InvalidParameters:
            return "WEBHOOK_ALLOW does not allow it"
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            return type(error).__name__
