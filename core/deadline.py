"""asyncio's timeout with an error of ours, for what each request passes: written as a generator it costs three times
as much (docs/performance.md).
"""

import asyncio
from collections.abc import Callable
from types import TracebackType


class Deadline:
    """`async with Deadline(1.5, Unavailable):` raises that after so many seconds, and for each TimeoutError in it."""

    __slots__ = ("_late", "_timeout")

    def __init__(self, seconds: float, late: Callable[[], Exception]) -> None:
        self._timeout = asyncio.timeout(seconds)
        self._late = late

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, traceback)
        except TimeoutError as late:
            raise self._late() from late
        if isinstance(error, TimeoutError):
            raise self._late() from error
