"""What a container prints, told to core while it runs: in batches, as far as core takes them.

It is told for those who watch. So it never fails or delays a task: what core doesn't take in time waits here, within
bounds, and then gives way to what came later.
"""

import asyncio
from collections import defaultdict, deque
from contextlib import AsyncExitStack, aclosing, suppress
from typing import Final, Self

import structlog

from core.client import CoreClient, patiently
from core.contract.errors import ContractError, StoreFull
from core.contract.live import SAID_CHARACTERS, Said
from core.contract.task import Progress, Task
from gpu_agent.cancellation import beside
from gpu_agent.engine import Engine, EngineError
from gpu_agent.progress import ProgressLines

log = structlog.get_logger()

BATCH_SECONDS: Final = 0.5
"""What comes within this time is one batch. One that is full waits as well, which bounds what a flood costs core."""

LEFT_OUT: Final = "\n[Something was left out here.]\n"
HELD_CHARACTERS: Final = SAID_CHARACTERS - len(LEFT_OUT)

PATIENCE_SECONDS: Final = 1.0
"""So long, at most, a container waits for who listens to it, and its end for its last lines to be told."""


class Telling:
    """Of a container that was created; it ends with its context."""

    def __init__(self, engine: Engine, container: str, core: CoreClient, task: Task) -> None:
        self._engine = engine
        self._container = container
        self._core = core
        self._task = task
        self._untold = Untold()
        self._listens = asyncio.Event()
        self._came = asyncio.Event()
        self._is_all = asyncio.Event()
        """Nothing more will come."""
        self._beside = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._beside.enter_async_context(beside(self._listen()))
        self._telling = await self._beside.enter_async_context(beside(self._tell()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._beside.aclose()

    async def listens(self) -> None:
        """The container may start: nothing is missed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._listens.wait()

    async def last(self) -> None:
        """The container has ended: its last lines are told when this returns, if core takes them soon."""
        await asyncio.wait({self._telling}, timeout=PATIENCE_SECONDS)

    async def _listen(self) -> None:
        """Until the container has ended."""
        lines = defaultdict[int, ProgressLines](ProgressLines)
        try:
            async with aclosing(self._engine.printed(self._container)) as printed:
                async for output, text in printed:
                    self._listens.set()
                    if text:
                        self._untold.add(text, lines[output].latest_in(text))
                        self._came.set()
            for begun in lines.values():
                if progress := begun.latest_in("\n"):
                    self._untold.add("", progress)
        except EngineError as error:
            log.warning("container.unheard", error=str(error))
        finally:
            for event in (self._is_all, self._listens, self._came):
                event.set()

    async def _tell(self) -> None:
        """Until all is told, or core wants to hear no more."""
        batch = 0
        while await self._has_come():
            batch += 1
            said = self._untold.taken(batch)
            try:
                await patiently(self._tell_batch)(said)
            except ContractError as refusal:
                log.info("log.refused", why=str(refusal))
                return

    async def _tell_batch(self, said: Said) -> None:
        try:
            await self._core.tell(self._task.uid, self._task.attempt, said)
        except StoreFull:
            self._untold.left_out = True  # no room but for results

    async def _has_come(self) -> bool:
        """False: all is told."""
        if not self._is_all.is_set():
            await self._came.wait()
            with suppress(TimeoutError):
                async with asyncio.timeout(BATCH_SECONDS):
                    await self._is_all.wait()
        self._came.clear()
        return bool(self._untold)


class Untold:
    """The last of what came, and what the model says of itself in it."""

    def __init__(self) -> None:
        self.left_out = False
        """Something isn't here that came before."""
        self._texts = deque[str]()
        self._held = 0
        self._progress: Progress | None = None

    def __bool__(self) -> bool:
        return bool(self._texts)

    def add(self, text: str, progress: Progress | None) -> None:
        self._progress = progress or self._progress
        self._texts.append(text)
        self._held += len(text)
        while self._held > HELD_CHARACTERS:
            self._held -= len(self._texts.popleft())
            self.left_out = True

    def taken(self, batch: int) -> Said:
        """All of it, which is here no more."""
        text = (LEFT_OUT if self.left_out else "") + "".join(self._texts)
        said = Said(batch=batch, text=text, progress=self._progress)
        self._texts.clear()
        self._held, self.left_out, self._progress = 0, False, None
        return said
