"""How much the holder of a key has posted, and how many of its tasks live."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from typing import Final

from core.contract.errors import TooManyRequests, Unavailable
from core.contract.key import Caller, Key
from core.contract.task import State
from core.store import keys
from core.store.connection import Connection, script

YOUNG_SECONDS: Final = 120.0
"""Of an entry without a task: the task may be on its way still. As long as it is, its entry is kept young."""

LOOKED_AT_ONCE: Final = 200
FULL_SECONDS: Final = 1.0
"""So long after all entries were looked at they aren't looked at again."""

AGAIN_SECONDS: Final = 5
"""When somebody whose tasks are too many may ask again."""

KEPT_SECONDS: Final = 90 * 24 * 3600
"""Of all entries of a key, after its last post."""

ANY_NUMBER: Final = 2**53

_LIVING: Final = (State.PENDING.encode(), State.RUNNING.encode())


class Quotas:
    """The index of living tasks lists too many rather than too few: a task is entered before it is made, and those that
    have ended are taken out when they seem to be too many.
    """

    def __init__(self, connection: Connection) -> None:
        self._redis = connection
        self._pace = script(connection, "pace")
        self._enter = script(connection, "enter_living")
        self._full_since: dict[str, float] = {}

    async def pace(self, caller: Caller, posts: int) -> None:
        """Counts so many posts; of none it only says whether there may be one. Raises TooManyRequests."""
        limit = caller.posts_per_minute
        if limit is not None and (seconds := await self._pace(keys=[keys.pace(caller.key_id)], args=[limit, posts])):
            raise TooManyRequests(
                f"This key may post {limit} times a minute: try again in {seconds} s", retry_seconds=int(seconds)
            )

    def begun(self, caller: Caller, uid: str) -> AbstractAsyncContextManager[None]:
        """A task that begins, if it does, counts among the caller's. Raises TooManyRequests."""
        return nullcontext() if caller.tasks_at_once is None else self._counted(caller, uid, caller.tasks_at_once)

    @asynccontextmanager
    async def _counted(self, caller: Caller, uid: str, limit: int) -> AsyncIterator[None]:
        if not await self._entered(caller, uid, limit=limit) and not (
            await self._looked_through(caller) and await self._entered(caller, uid, limit=limit)
        ):
            raise TooManyRequests(
                f"This key's limit of tasks at once is reached, {limit}: wait until one has ended",
                retry_seconds=AGAIN_SECONDS,
            )
        refreshing = asyncio.create_task(self._refresh_for_ever(caller, uid), name=f"entry of {uid}")
        try:
            yield
        finally:
            refreshing.cancel()
            with suppress(Unavailable):
                if await self._redis.call("EXISTS", keys.task(uid)):  # Redis away, its entry may have grown old
                    await self._entered(caller, uid, limit=ANY_NUMBER)
                else:
                    await self.leave(caller.key_id, uid)

    async def _refresh_for_ever(self, caller: Caller, uid: str) -> None:
        """A body may take hours, and its task is counted all the while."""
        while True:
            await asyncio.sleep(YOUNG_SECONDS / 4)
            with suppress(Unavailable):
                await self._redis.note("ZADD", keys.living(caller.key_id), "XX", time.time(), uid)

    async def _entered(self, caller: Caller, uid: str, *, limit: int) -> bool:
        args: list[str | float] = [uid, time.time(), limit, KEPT_SECONDS]
        return bool(await self._enter(keys=[keys.living(caller.key_id)], args=args))

    async def _looked_through(self, caller: Caller) -> bool:
        """The oldest first, until some have gone. False: all live, or did a moment ago."""
        if time.monotonic() < self._full_since.get(caller.key_id, -FULL_SECONDS) + FULL_SECONDS:
            return False
        index = keys.living(caller.key_id)
        for start in range(0, caller.tasks_at_once or 0, LOOKED_AT_ONCE):
            entries = await self._redis.call("ZRANGE", index, start, start + LOOKED_AT_ONCE - 1, "WITHSCORES")
            if gone := await self._gone([(uid, float(entered)) for uid, entered in entries]):
                await self._redis.call("ZREM", index, *gone)
                return True
        self._full_since[caller.key_id] = time.monotonic()
        return False

    async def _gone(self, entries: Sequence[tuple[bytes, float]]) -> list[bytes]:
        states = await self._redis.call_all(("HGET", keys.task(uid.decode()), "state") for uid, _ in entries)
        old = time.time() - YOUNG_SECONDS
        return [
            uid
            for (uid, entered), state in zip(entries, states, strict=True)
            if state not in _LIVING and (state is not None or entered < old)
        ]

    async def shown(self, found: Sequence[Key]) -> list[Key]:
        """With how many tasks of each live, as far as they are counted."""
        counts = await self._redis.call_all(("ZCARD", keys.living(key.id)) for key in found)
        return [
            key.model_copy(update={"living_tasks": count}) if key.tasks_at_once else key
            for key, count in zip(found, counts, strict=True)
        ]

    async def leave(self, key_id: str, uid: str) -> None:
        """The task is no more: its entry could be taken for that of one on its way."""
        await self._redis.call("ZREM", keys.living(key_id), uid)

    async def forget(self, key_id: str) -> None:
        """Of a key that is revoked."""
        await self._redis.call("UNLINK", keys.living(key_id))
