"""Tells clients' servers that a task has ended, as Standard Webhooks has it (standardwebhooks.com).

What is to be told stands in Redis until it is told, so no end is forgotten, and no task waits for whoever is told.
"""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import aiohttp
import structlog
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from pydantic import BaseModel
from yarl import URL

from core.contract import VERSION
from core.contract.errors import InvalidParameters, Unavailable
from core.contract.status import TaskStatus
from core.contract.task import State, Task
from core.metrics import WEBHOOKS
from core.observe import REQUEST
from core.store.webhooks import Webhooks

log = structlog.get_logger()

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

AT_ONCE: Final = 32
LOOK_SECONDS: Final = 1.0
ANSWER_SECONDS: Final = 10.0
LEASE_SECONDS: Final = 60.0
"""Past `ANSWER_SECONDS`: a core that died with a delivery leaves it to another one after this."""

DELAYS_SECONDS: Final = (5, 30, 120, 600, 1800, 3600, 3600, 7200, 14400, 28800, 28800)
"""Before each further try; after about a day it is given up."""

_TRANSLATED: Final = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("2002::/16"))
"""Addresses that lead to an IPv4 address inside them."""

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
        if not host or not port or parts.scheme not in ("http", "https") or parts.user or parts.password:
            raise _wrong("an https:// URL without a user or a password")
        if (address := _address(host)) and not self.allows(host, address):
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
    system: ThreadedResolver = field(default_factory=ThreadedResolver)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = await self.system.resolve(host, port, family)
        allowed = [one for one in found if (address := _address(one["host"])) and self.guard.allows(host, address)]
        if not allowed:
            raise OSError(None, f"{host} leads nowhere that webhooks may be sent to")
        return allowed

    async def close(self) -> None:
        await self.system.close()


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

    @classmethod
    @asynccontextmanager
    async def open(cls, outbox: Webhooks, guard: Guard) -> AsyncIterator["Postman"]:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=_Resolver(guard), use_dns_cache=False, force_close=True),
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"InferenceServer/{VERSION}", "Content-Type": "application/json"},
        )
        async with session:
            yield cls(outbox, session, guard)

    async def deliver_for_ever(self) -> None:
        while True:
            try:
                uids = await self.outbox.due(limit=AT_ONCE, lease_seconds=LEASE_SECONDS)
                await asyncio.gather(*map(self._deliver, uids))
            except Unavailable as error:
                log.warning("webhooks.postponed", error=str(error))
                uids = []
            if len(uids) < AT_ONCE:
                await asyncio.sleep(LOOK_SECONDS)

    async def _deliver(self, uid: str) -> None:
        try:
            entry = await self.outbox.entry(uid)
        except (KeyError, ValueError) as error:
            log.error("task.unreadable", task=uid, error=repr(error))
            return await self.outbox.remove(uid)
        if entry is None or entry.is_told or entry.task.state not in (State.FINISHED, State.FAILED):
            await self.outbox.remove(uid)  # it was deleted, or is tried again, which will end too
            return
        REQUEST.set(entry.task.request_id)  # of this delivery alone: each is a task of its own
        trouble = await self._send(entry.task)
        if trouble is None:
            WEBHOOKS.labels("sent").inc()
            await self.outbox.told(uid)
            log.info("webhook.sent", task=uid)
        elif entry.tries < len(DELAYS_SECONDS):
            WEBHOOKS.labels("failed").inc()
            await self.outbox.again(uid, after_seconds=DELAYS_SECONDS[entry.tries])
            log.info("webhook.failed", task=uid, why=trouble, tries=entry.tries + 1)
        else:
            WEBHOOKS.labels("given up").inc()
            await self.outbox.told(uid)
            log.warning("webhook.given_up", task=uid, why=trouble)

    async def _send(self, task: Task) -> str | None:
        """Why it has to be sent again; None when it was taken, or never will be."""
        url, secret = task.options.webhook or "", task.options.webhook_secret or ""
        body = Event.of(task).model_dump_json().encode()
        event_id, timestamp = f"{task.uid}-{task.attempt}-{task.state}", int(time.time())
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
