"""Whether Redis answers and how full it is: asked twice a second for everybody.

While it doesn't, new requests are refused at once instead of one after the other waiting for it; transfers that are
under way go on waiting (core/store/connection.py).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from redis import exceptions

from core import metrics
from core.contract.errors import ContractError, Unavailable
from core.store.connection import Connection, soon
from core.store.room import Memory
from core.trust import is_untrusted

log = structlog.get_logger()

BEAT_SECONDS: Final = 0.5
AWAY_BEAT_SECONDS: Final = 0.1
"""Sooner than else: perhaps this process stood still, and not Redis."""

FILLING: Final = 0.8
"""Past this share of the memory the operator is warned: early enough to act before uploads are refused."""

FILLING_MARGIN: Final = 0.05
"""So far below it the next crossing is news again."""

REMIND_SECONDS: Final = 3600.0
ROOM_ADVICE: Final = "delete tasks, keep outputs for less long (KEEP_OUTPUTS_HOURS), or raise Redis's maxmemory"


class Pulse:
    """`missing` says in words why Redis can't be used, or not all of it; None while it can."""

    def __init__(self, connection: Connection, reserve_percent: float) -> None:
        self.missing: str | None = "has not answered yet"
        self.memory: Memory | None = None
        """As it was a moment ago."""
        self._is_away = True
        self._redis = connection
        self._reserve_percent = reserve_percent
        self._is_checked = False
        self._warned_at: float | None = None

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Returns after the first question, answered or not: who starts first doesn't matter."""
        await self._beat()
        async with asyncio.TaskGroup() as group:
            beats = group.create_task(self._beat_for_ever(), name="pulse")
            yield
            beats.cancel()

    def check(self) -> None:
        """Raises Unavailable while Redis is known to be away, all of it: what one shard of several lacks may not be
        asked for. Asks nobody.
        """
        if self._is_away:
            raise Unavailable

    async def _beat_for_ever(self) -> None:
        while True:
            await asyncio.sleep(AWAY_BEAT_SECONDS if self.missing else BEAT_SECONDS)
            await self._beat()

    async def _beat(self) -> None:
        try:
            async with soon():
                answers = await self._redis.everywhere(("INFO", "memory"), ("INFO", "persistence"))
        except ContractError as error:
            answers = [error]
        errors = [answer for answer in answers if isinstance(answer, ContractError)]
        infos = [answer for answer in answers if not isinstance(answer, ContractError)]
        self._is_away = not infos
        if errors:
            self._note_missing(errors[0], len(infos), len(answers))
            return
        if self.missing:
            log.info("store.connected")
        self.missing = None
        metrics.STORE_UP.set(1)
        if not self._is_checked:
            self._is_checked = True
            for memory, persistence in infos:
                _check_configuration(memory, persistence)
        self._note_memory(Memory.of([memory for memory, _ in infos]))

    def _note_missing(self, error: ContractError, answering: int, shards: int) -> None:
        words = _words(error.__cause__)
        if answering:
            words = f"{answering} of {shards} shards answer; another {words}"
        if words != self.missing:
            log.warning("store.away", redis=words, error=str(error.__cause__))
        self.missing = words
        metrics.STORE_UP.set(0)

    def _note_memory(self, memory: Memory) -> None:
        self.memory = memory
        metrics.STORE_USED.set(memory.used)
        metrics.STORE_LIMIT.set(memory.limit)
        metrics.STORE_RESERVE.set(memory.limit * self._reserve_percent / 100)
        now = time.monotonic()
        if memory.share < FILLING - FILLING_MARGIN:
            self._warned_at = None
        elif memory.share >= FILLING and (self._warned_at is None or now - self._warned_at >= REMIND_SECONDS):
            self._warned_at = now
            figures = {
                "used_bytes": memory.used,
                "limit_bytes": memory.limit,
                "used_percent": round(memory.share * 100),
            }
            log.warning(
                "store.filling", **figures, refused_from_percent=100 - self._reserve_percent, advice=ROOM_ADVICE
            )


def _words(error: BaseException | None) -> str:
    """For operators and, through the gateway, for anybody: nothing of where Redis is."""
    if isinstance(error, exceptions.BusyLoadingError):
        return "is loading its data"
    if is_untrusted(error):
        return "has a certificate that is not trusted"
    if isinstance(error, exceptions.AuthenticationError):
        return "does not accept the password"
    if isinstance(error, exceptions.MovedError):
        return "is part of a cluster: REDIS_URL must begin with redis+cluster://"
    if isinstance(error, TimeoutError | exceptions.TimeoutError):
        return "does not answer"
    if isinstance(error, exceptions.ConnectionError):
        return "can't be reached"
    return "can't be written to"


def _check_configuration(memory: Mapping[str, Any], persistence: Mapping[str, Any]) -> None:
    """What would lose tasks, said once."""
    if not memory["maxmemory"]:
        log.warning(
            "redis.unbounded",
            advice="set maxmemory to what Redis may use of its host, or the kernel ends it when the memory is full",
        )
    if memory["maxmemory_policy"] != "noeviction":
        log.warning(
            "redis.evicts",
            policy=memory["maxmemory_policy"],
            advice="set maxmemory-policy to noeviction, or Redis drops tasks and zips when the memory is full",
        )
    if not persistence["aof_enabled"]:
        log.warning("redis.forgets", advice="set appendonly to yes, or tasks and zips are lost when Redis is restarted")
