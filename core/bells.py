"""Waiting for news of a task without asking again and again.

A bell says that there may be something new; how the task stands is asked after it. So a bell that was missed, because
whoever rings was away, costs a moment and no answer.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import structlog

from core.contract.errors import ContractError, Unavailable
from core.contract.http import Outcome

log = structlog.get_logger()

LISTENING_SECONDS: Final = 15.0
DEAF_SECONDS: Final = 1.0
"""A task is asked for this often though nothing rang: while the bells are heard, and while they aren't."""

QUIET_SECONDS: Final = 5.0
HEARD_AHEAD: Final = 10_000
"""So many uids wait for a listener that is slow; then it is sent away."""

RETRY_SECONDS: Final = 1.0


class Bells:
    """One for each task that somebody waits for."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._listeners: set[asyncio.Queue[str | None]] = set()
        self._is_heard = False
        self.is_closed = False
        """Who waits is answered at once: the server ends."""

    async def outcome(self, uid: str, seconds: float, ask: Callable[[str], Awaitable[Outcome]]) -> Outcome:
        """What `ask` says of the task once it has ended, or after so many seconds. Raises what it raises at first; who
        waits already doesn't mind that somebody is away for a moment.
        """
        now = asyncio.get_running_loop().time
        until = now() + seconds
        with self.bell(uid) as rung:
            outcome = await ask(uid)
            while not outcome.is_final and (left := until - now()) > 0 and not self.is_closed:
                await rung(left)
                with suppress(Unavailable):
                    outcome = await ask(uid)
            return outcome

    @contextmanager
    def bell(self, uid: str) -> Iterator[Callable[[float], Awaitable[None]]]:
        """What is to be awaited for as many seconds: it returns when there may be news of the task since the last time,
        or may have been unheard. When all is closed it returns at once.
        """
        bell = asyncio.Event()

        async def rung(seconds: float) -> None:
            if not self.is_closed:
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(seconds, LISTENING_SECONDS if self._is_heard else DEAF_SECONDS)):
                        await bell.wait()
            bell.clear()

        self._waiting[uid].add(bell)
        try:
            yield rung
        finally:
            self._waiting[uid].discard(bell)
            if not self._waiting[uid]:
                del self._waiting[uid]

    @property
    def tasks(self) -> int:
        """So many are waited for."""
        return len(self._waiting)

    def ring(self, uid: str) -> None:
        for bell in self._waiting.get(uid, ()):
            bell.set()
        for listener in [*self._listeners]:
            if listener.full():
                self._send_away(listener)
            else:
                listener.put_nowait(uid)

    def close(self) -> None:
        """Who waits is answered now."""
        self.is_closed = True
        self._fall_silent()
        self._ring_all()

    async def heard(self) -> AsyncIterator[str]:
        """Each uid that is rung from now on; "" at first, and while there is none. Ends when it might miss one."""
        if not self._is_heard or self.is_closed:
            raise Unavailable
        listener = asyncio.Queue[str | None](HEARD_AHEAD)
        self._listeners.add(listener)
        try:
            yield ""
            while True:
                uid: str | None = ""
                with suppress(TimeoutError):
                    async with asyncio.timeout(QUIET_SECONDS):
                        uid = await listener.get()
                if uid is None:
                    return
                yield uid
        finally:
            self._listeners.discard(listener)

    async def listen(self, heard: Callable[[], AsyncIterator[str]]) -> None:
        """Rings for each uid that is heard, for ever. The first word, and any without a uid, says that it listens."""
        while True:
            with suppress(ContractError):  # a core of an older version refuses in words of its own
                async for uid in heard():
                    if uid:
                        self.ring(uid)
                    elif not self._is_heard:
                        self._is_heard = True
                        self._ring_all()  # for what ended before
            if self._is_heard:
                log.info(
                    "bells.unheard", advice="none, if core or Redis is being restarted: tasks are asked for instead"
                )
            self._is_heard = False
            self._fall_silent()
            await asyncio.sleep(RETRY_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret

    def _fall_silent(self) -> None:
        for listener in [*self._listeners]:
            self._send_away(listener)

    def _send_away(self, listener: asyncio.Queue[str | None]) -> None:
        self._listeners.discard(listener)
        while not listener.empty():
            listener.get_nowait()
        listener.put_nowait(None)

    def _ring_all(self) -> None:
        for bells in self._waiting.values():
            for bell in bells:
                bell.set()
