"""A master with a replica, and three Sentinels that put it in its place."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
from redis import Redis

from core.contract.errors import Unavailable
from core.contract.task import State
from core.store import open_store
from demo import ready, servers
from demo.ports import Ports, free_ports
from demo.servers import Servers
from demo.stack import Stack
from demo.supervision import Program
from tests.integration.making import claimed, pending, state_of
from tests.waiting import eventually

REDIS = ("redis-1", "redis-2")
SENTINELS = ("sentinel-1", "sentinel-2", "sentinel-3")
DOWN_MS = 1000


class Watched(Servers):
    def __init__(self, ports: Ports) -> None:
        super().__init__(ports, {})
        names = (*REDIS, *SENTINELS)
        self._at = dict(zip(names, free_ports(len(names)), strict=True))

    @property
    def redis_url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{self._at[name]}' for name in SENTINELS)}/tasks/0"

    def programs(self, folder: Path, *, below: int, stage: int) -> list[Program]:
        master, replica = REDIS
        follows = ("--replicaof", f"127.0.0.1 {self._at[master]}", "--repl-diskless-sync-delay", "0")
        return [
            servers.redis(folder / master, self._at[master], name=master, stage=below, restarts=False),
            servers.redis(folder / replica, self._at[replica], *follows, name=replica, stage=below, restarts=False),
            *(self._sentinel(folder / name, name, stage) for name in SENTINELS),
        ]

    def join(self) -> None:
        eventually(partial(self.follows, REDIS[1]))

    def follows(self, name: str) -> bool:
        """Whether it has what the other one has."""
        with Redis(port=self._at[name]) as redis:
            return bool(redis.info("replication").get("master_link_status") == "up")

    def _sentinel(self, home: Path, name: str, stage: int) -> Program:
        home.mkdir(parents=True, exist_ok=True)
        config = home / "sentinel.conf"
        if not config.exists():  # it is the Sentinel's own from then on
            config.write_text(
                f"port {self._at[name]}\nbind 127.0.0.1\ndir {home}\n"
                f"sentinel monitor tasks 127.0.0.1 {self._at[REDIS[0]]} 2\n"
                f"sentinel down-after-milliseconds tasks {DOWN_MS}\n"
                "sentinel failover-timeout tasks 5000\n"
            )
        command = ("redis-server", str(config), "--sentinel")
        return Program(name, command, {}, home, stage, 10, partial(ready.redis_answers, self._at[name]))


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    ports = Ports.free()
    stack = Stack(tmp_path / "stack", ports, servers=Watched(ports), only=(*REDIS, *SENTINELS))
    stack.up()
    yield stack
    stack.down()
    stack.delete()


async def test_a_killed_master_takes_nothing_along(stack: Stack) -> None:
    """Its replica is the master after a few seconds, and nothing that was answered is lost."""
    accepted: list[str] = []

    async def accept(count: int) -> None:
        enough = len(accepted) + count
        async with asyncio.timeout(30):
            while len(accepted) < enough:
                with suppress(Unavailable):
                    accepted.append(await pending(store))

    async with open_store(stack.redis_url, reserve_percent=10) as store:
        await accept(50)
        os.kill(stack.pid(REDIS[0]), signal.SIGKILL)
        await accept(50)
        assert {await state_of(store, uid) for uid in accepted} == {State.PENDING}
        assert (await claimed(store, accepted[0])).attempt == 1
