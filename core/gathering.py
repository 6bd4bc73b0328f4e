"""Small things that come one by one and are done many at a time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")

GATHER_SECONDS: Final = 0.002
"""While some are being done, the next ones wait for each other so long."""


class Gathering(Generic[Item]):
    """`add` returns at once; `work` is awaited with all that came, soon, and answers for its own errors."""

    def __init__(self, work: Callable[[list[Item]], Awaitable[None]], *, at_once: int) -> None:
        self._work = work
        self._at_once = at_once
        self._waiting: list[Item] = []
        self._working: set[asyncio.Task[None]] = set()

    def add(self, item: Item) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_later(GATHER_SECONDS if self._working else 0, self._begin)
        self._waiting.append(item)

    def _begin(self) -> None:
        items, self._waiting = self._waiting, []
        for first in range(0, len(items), self._at_once):
            working = asyncio.ensure_future(self._work(items[first : first + self._at_once]))
            self._working.add(working)
            working.add_done_callback(self._working.discard)
