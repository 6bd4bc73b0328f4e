"""What goes wrong: each kind strikes one target, holds for its time, and has put everything back when it returns."""

import asyncio
import os
import random
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import aiormq

from core.contract import queues
from tests.chaos.system import AGENTS, CORES, SMALL_DISK_AGENT, System
from tests.clusters import RABBITMQ, REDIS, Clusters
from tests.direct import rabbitmq_at
from tests.proxy import Proxy
from tests.waiting import eventually

BROKER_SECONDS = 60
CALL_SECONDS = 10
STANDSTILL_SECONDS = 10
FULL_SECONDS = 10
SLOW_SECONDS = 10
AWAY_SECONDS = 8
"""Long enough to be replaced."""

LATENCY_SECONDS = 0.05
BYTES_PER_SECOND = 2 * 2**20

TRANSFER_SECONDS, TRANSFER_BYTES, TRANSFER_TRIES = 0.1, 2**19, 200

Strike = Callable[[System, str], None]


@dataclass(frozen=True)
class Kind:
    """`targets` are names of processes or of ways between them; the schedule chooses one."""

    name: str
    targets: Sequence[str]
    strike: Strike


@dataclass(frozen=True)
class Fault:
    """One entry of the schedule."""

    at_seconds: float
    kind: Kind
    target: str


def scheduled(kinds: Sequence[Kind], *, count: int, spacing: float, seed: int) -> list[Fault]:
    """All kinds in a new order each round, `spacing` seconds apart. The same seed gives the same schedule."""
    chance = random.Random(f"faults {seed}")
    drawn: list[Kind] = []
    while len(drawn) < count:
        drawn += chance.sample(kinds, len(kinds))
    return [Fault(number * spacing, kind, chance.choice(kind.targets)) for number, kind in enumerate(drawn[:count])]


def _nothing(system: System, target: str) -> None:
    """What a probe takes without a fault of its own, in the midst of the others."""


def _kill(system: System, target: str) -> None:
    os.kill(system.pid(target), signal.SIGKILL)


def _terminate(system: System, target: str) -> None:
    """SIGTERM; supervisord starts it again."""
    os.kill(system.pid(target), signal.SIGTERM)


def _stop_and_start(system: System, target: str) -> None:
    """SIGTERM, and again when it has ended."""
    system.pid(target)
    system.stack.stop(target)
    system.stack.start(target)


def _stand_still(system: System, target: str, *, beyond_lease: bool = False) -> None:
    pid = system.pid(target)
    os.kill(pid, signal.SIGSTOP)
    try:
        system.last(system.lease_seconds + 5 if beyond_lease else STANDSTILL_SECONDS)
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def _wipe(system: System, target: str, *, deleted: bool = False) -> None:
    """Waits for the broker, should another fault have stopped it."""

    def wiped() -> bool:
        try:
            asyncio.run(_wiped(system.stack.rabbitmq_url, deleted=deleted))
        except (aiormq.exceptions.AMQPError, OSError, TimeoutError):
            return False
        return True

    eventually(wiped, within_seconds=BROKER_SECONDS)


async def _wiped(url: str, *, deleted: bool) -> None:
    async with asyncio.timeout(CALL_SECONDS):
        connection = await rabbitmq_at(url)
        channel = await connection.channel()
        await (channel.queue_delete if deleted else channel.queue_purge)(queues.UNFINISHED)
        await connection.close()


def _way(system: System, target: str) -> Proxy:
    return {
        "redis way": system.redis,
        "rabbitmq way": system.rabbitmq,
        "gateway-core way": system.gateways_core,
        "agents-core way": system.agents_core,
    }[target]


def _cut(system: System, target: str) -> None:
    _way(system, target).cut()


def _cut_in_transfer(system: System, target: str) -> None:
    """Waits for a large transfer, for a while."""
    way = _way(system, target)
    for _ in range(TRANSFER_TRIES):
        before = way.passed_bytes
        system.last(TRANSFER_SECONDS)
        if way.passed_bytes - before > TRANSFER_BYTES:
            break
    way.cut()


def _refuse(system: System, target: str, *, seconds: float) -> None:
    with _way(system, target).refusing():
        system.last(seconds)


def _freeze(system: System, target: str, *, seconds: float) -> None:
    with _way(system, target).frozen():
        system.last(seconds)


def _slow(system: System, target: str) -> None:
    with _way(system, target).slow(latency_seconds=LATENCY_SECONDS, bytes_per_second=BYTES_PER_SECOND):
        system.last(SLOW_SECONDS)


def _fill_disk(system: System, target: str) -> None:
    """Keeps it full: what an attempt frees is taken as well."""
    ballast = system.small_disk / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            for _ in range(2 * FULL_SECONDS):
                with suppress(OSError):  # no room left, which is the point
                    while file.write(bytes(2**20)):
                        pass
                system.last(0.5)
    finally:
        ballast.unlink(missing_ok=True)


KINDS = (
    Kind("nothing (control)", ("nothing",), _nothing),
    Kind("core killed", CORES, _kill),
    Kind("gateway killed", ("gateway",), _kill),
    Kind("agent killed", AGENTS, _kill),
    Kind("Redis killed", ("redis",), _kill),
    Kind("RabbitMQ killed", ("rabbitmq",), _kill),
    Kind("dockerd killed", ("dockerd",), _kill),
    Kind("Redis restarted", ("redis",), _terminate),
    Kind("RabbitMQ restarted", ("rabbitmq",), _stop_and_start),
    Kind("core restarted", CORES, _stop_and_start),
    Kind("agent drained and restarted", AGENTS, _stop_and_start),
    Kind("core stands still 10 s", CORES, _stand_still),
    Kind("agent stands still past its lease", AGENTS, partial(_stand_still, beyond_lease=True)),
    Kind("queue purged", ("queue",), _wipe),
    Kind("queue deleted", ("queue",), partial(_wipe, deleted=True)),
    Kind("Redis cut off", ("redis way",), _cut),
    Kind("Redis in a black hole 8 s", ("redis way",), partial(_freeze, seconds=8)),
    Kind("Redis slow 10 s", ("redis way",), _slow),
    Kind("RabbitMQ cut off", ("rabbitmq way",), _cut),
    Kind("RabbitMQ in a black hole 15 s", ("rabbitmq way",), partial(_freeze, seconds=15)),
    Kind("RabbitMQ refuses 5 s", ("rabbitmq way",), partial(_refuse, seconds=5)),
    Kind("agents cut off from core in a transfer", ("agents-core way",), _cut_in_transfer),
    Kind("agents refused by core 5 s", ("agents-core way",), partial(_refuse, seconds=5)),
    Kind("gateway cut off from core in a transfer", ("gateway-core way",), _cut_in_transfer),
    Kind("disk of an agent full 10 s", (SMALL_DISK_AGENT,), _fill_disk),
)


def _node_killed(system: System, target: str, *, is_primary: bool = True) -> None:
    """Its replica takes over; back, it follows that one. The next fault waits until all of it is whole."""
    clusters = _clusters(system)
    primaries = clusters.primaries()
    name = random.choice(primaries if is_primary else [name for name in REDIS if name not in primaries])
    os.kill(system.stack.pid(name), signal.SIGKILL)
    system.last(AWAY_SECONDS)
    system.stack.start(name)
    clusters.join()


def _primary_stands_still(system: System, target: str) -> None:
    """For long enough to be replaced, and then it goes on as if nothing had been."""
    clusters = _clusters(system)
    pid = system.stack.pid(random.choice(clusters.primaries()))
    os.kill(pid, signal.SIGSTOP)
    try:
        system.last(STANDSTILL_SECONDS)
    finally:
        os.kill(pid, signal.SIGCONT)
    clusters.join()


def _broker_killed(system: System, target: str, *, with_signal: signal.Signals) -> None:
    name = random.choice(RABBITMQ)
    os.kill(system.stack.pid(name), with_signal)
    system.last(AWAY_SECONDS)
    system.stack.start(name)


def _clusters(system: System) -> Clusters:
    assert system.clusters
    return system.clusters


_OF_SINGLE_SERVERS = {"redis", "rabbitmq", "redis way", "rabbitmq way"}
KINDS_ON_CLUSTERS = (
    *(kind for kind in KINDS if not _OF_SINGLE_SERVERS.intersection(kind.targets)),
    Kind("Redis primary killed", ("redis cluster",), _node_killed),
    Kind("Redis replica killed", ("redis cluster",), partial(_node_killed, is_primary=False)),
    Kind("Redis primary stands still 10 s", ("redis cluster",), _primary_stands_still),
    Kind("RabbitMQ node killed", ("rabbitmq cluster",), partial(_broker_killed, with_signal=signal.SIGKILL)),
    Kind("RabbitMQ node restarted", ("rabbitmq cluster",), partial(_broker_killed, with_signal=signal.SIGTERM)),
)
