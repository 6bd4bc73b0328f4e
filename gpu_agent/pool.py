"""The slots of an agent: who has which, and who waits for how many.

A task for several GPUs gets them although tasks for one keep coming: slots that it could use go to nobody who came
later. Whoever waits holds nothing, so that no two wait for each other.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from core.contract.needs import ANY, Need
from gpu_agent.gpus import Gpu


class Unserved(Exception):
    """There are fewer well slots than a need asks for."""


@dataclass(frozen=True)
class Slot:
    """A place where one task runs at a time: a GPU, or without GPUs a share of the CPU."""

    name: str
    gpu: Gpu | None = None

    def fits(self, need: Need) -> bool:
        """Whether it can be one of those that the need asks for."""
        return not need.gpu_count or (self.gpu is not None and need.fits(self.gpu.memory_mb))


@dataclass(eq=False)
class Hold:
    """What one worker has of the pool."""

    slots: tuple[Slot, ...] = ()
    """None while it waits."""
    need: Need = ANY
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Who waits is to look again."""
    recall: asyncio.Timeout | None = None
    """Ends its idling; None while it works or waits."""

    @property
    def gpus(self) -> tuple[str, ...]:
        """By UUID."""
        return tuple(slot.gpu.uuid for slot in self.slots if slot.gpu)

    def has(self, need: Need) -> bool:
        return len(self.slots) >= max(1, need.gpu_count) and all(slot.fits(need) for slot in self.slots)


class Pool:
    """Never gives a slot to two, nor one whose GPU has a problem to anybody."""

    def __init__(self, slots: Iterable[Slot]) -> None:
        self.slots = tuple(slots)
        self.problems: Mapping[str, str] = {}
        """Of GPUs, by UUID, in words."""
        self._holds: list[Hold] = []
        """In the order in which they asked for what they have or wait for."""
        self._is_closed = False

    @asynccontextmanager
    async def one(self) -> AsyncIterator[Hold]:
        """Waits for a slot. Whatever the hold has at its end is free again."""
        hold = Hold()
        self._holds.append(hold)
        try:
            self._settle()
            while not hold.slots:
                await self._change(hold)
            yield hold
        finally:
            self._holds.remove(hold)
            self._settle()

    async def exchange(self, hold: Hold, need: Need) -> None:
        """Gives back what the hold has, and waits until it gets what the need asks for, all at once.

        Raises Unserved when that can't be (any more).
        """
        self._holds.remove(hold)
        self._holds.append(hold)
        hold.slots, hold.need = (), need
        self._settle()
        while not hold.slots:
            if not self.serves(need):
                raise Unserved
            await self._change(hold)

    @asynccontextmanager
    async def idle(self, hold: Hold) -> AsyncIterator[None]:
        """The worker has no task yet. Until it is `busy` its slots may be wanted elsewhere: then this ends early."""
        recall = asyncio.timeout(None)
        try:
            async with recall:
                hold.recall = recall
                self._settle()
                yield
        except TimeoutError:
            if not recall.expired():
                raise
        finally:
            hold.recall = None

    def busy(self, hold: Hold) -> None:
        """From here on nobody takes the slots."""
        if hold.recall:
            hold.recall.reschedule(None)
            hold.recall = None

    def recall(self) -> None:
        """Ends all idling: what the idle listen to has changed."""
        for hold in self._holds:
            _recall(hold)

    def note(self, problems: Mapping[str, str]) -> None:
        """What is wrong with which GPUs now. Whoever works with one of them goes on."""
        if problems.keys() != self.problems.keys():
            self.recall()
        self.problems = problems
        self._wake()

    def close(self) -> None:
        """Who waits for several waits in vain."""
        self._is_closed = True
        self._wake()

    def spares(self, hold: Hold) -> bool:
        """Whether the hold may go on to another task: its slots are well, and no task waits for one of them."""
        waiting = [other.need for other in self._holds if not other.slots and other.need != ANY]
        return not self._is_closed and all(
            self._is_well(slot) and not any(slot.fits(need) for need in waiting) for slot in hold.slots
        )

    def serves(self, need: Need) -> bool:
        """Whether slots that are well are what the need asks for, whoever has them now."""
        well = [slot for slot in self.slots if slot.fits(need) and self._is_well(slot)]
        return not self._is_closed and len(well) >= max(1, need.gpu_count)

    @property
    def in_use(self) -> set[str]:
        """GPUs on which a task may run."""
        return {uuid for hold in self._holds if not hold.recall for uuid in hold.gpus}

    @property
    def working(self) -> int:
        """How many slots have a task."""
        return sum(len(hold.slots) for hold in self._holds if not hold.recall)

    def _is_well(self, slot: Slot) -> bool:
        return slot.gpu is None or slot.gpu.uuid not in self.problems

    async def _change(self, hold: Hold) -> None:
        await hold.changed.wait()
        hold.changed.clear()

    def _wake(self) -> None:
        self._settle()
        for hold in self._holds:
            hold.changed.set()

    def _settle(self) -> None:
        """Gives what is free to those who wait, tasks first, and takes from the idle what a task wants."""
        taken = {slot for hold in self._holds for slot in hold.slots}
        free = [slot for slot in self.slots if slot not in taken and self._is_well(slot)]
        waiting = [hold for hold in self._holds if not hold.slots]
        for hold in sorted(waiting, key=lambda hold: hold.need == ANY):
            count = max(1, hold.need.gpu_count)
            fitting = [slot for slot in free if slot.fits(hold.need)][:count]
            free = [slot for slot in free if slot not in fitting]  # those too that aren't enough yet
            if len(fitting) == count:
                hold.slots = tuple(fitting)
                hold.changed.set()
            elif hold.need != ANY:
                idle = [other for other in self._holds if other.recall and all(s.fits(hold.need) for s in other.slots)]
                for other in idle[: count - len(fitting)]:
                    _recall(other)
        for hold in self._holds:
            if not all(self._is_well(slot) for slot in hold.slots):
                _recall(hold)


def _recall(hold: Hold) -> None:
    if hold.recall and hold.recall.when() is None:
        hold.recall.reschedule(asyncio.get_running_loop().time())
