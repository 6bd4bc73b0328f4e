"""What a cancellation must not cut short, what must not outlast its context, and what an event cuts short."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Awaits the work's end; a cancellation that comes meanwhile is raised after it."""
    working = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        await asyncio.wait({working})
        if not working.cancelled():
            working.exception()
        raise


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """The work goes on beside what the context does, and is over when the context ends: cancelled, if it must be."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        await to_its_end(ended(task))


async def unless(stops: Iterable[asyncio.Event], work: Coroutine[Any, Any, T]) -> T | None:
    """What the work returns. None: one of the events came first, and the work was cancelled."""
    async with AsyncExitStack() as waiting:
        ends = [await waiting.enter_async_context(beside(stop.wait())) for stop in stops]
        working = await waiting.enter_async_context(beside(work))
        await asyncio.wait({working, *ends}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None


async def ended(task: asyncio.Task[Any]) -> None:
    """Waits for its end, whatever that is."""
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()
