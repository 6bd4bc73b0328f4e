"""Slots and those who want them, in any order."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.contract.needs import ANY, Need
from gpu_agent.gpus import Gpu
from gpu_agent.pool import Hold, Pool, Slot, Unserved

LARGE_MB, SMALL_MB = 81_920, 24_576
PAIR, TRIPLE, LARGE, LARGE_PAIR = (
    Need(gpu_count=2),
    Need(gpu_count=3),
    Need(gpu_count=1, gpu_memory_mb=LARGE_MB),
    Need(gpu_count=2, gpu_memory_mb=LARGE_MB),
)
SECONDS = 5


def _slots(*memories_mb: int) -> tuple[Slot, ...]:
    return tuple(
        Slot(f"GPU-{number}", Gpu(f"GPU-{number}", memory_mb=memory_mb))
        for number, memory_mb in enumerate(memories_mb, 1)
    )


async def _settled() -> None:
    """Whatever can happen has happened: nobody here waits for anything but the pool and the test."""
    for _ in range(10):
        await asyncio.sleep(0)


@dataclass(eq=False)
class Worker:
    """As an agent's, one for each slot; the test hands it its tasks."""

    pool: Pool
    asked: list["Worker"]
    begun: list["Worker"]
    """In the order in which their tasks asked for their slots, and began."""
    hold: Hold | None = None
    need: Need | None = None
    """Of the task that it has."""
    is_running: bool = False
    is_unserved: bool = False
    task: asyncio.Future[Need] = field(default_factory=asyncio.Future)
    end: asyncio.Event = field(default_factory=asyncio.Event)

    async def work(self) -> None:
        while True:
            async with self.pool.one() as self.hold:
                self.need = None
                self.task = asyncio.Future()
                async with self.pool.idle(self.hold):
                    need = await self.task
                    self.pool.busy(self.hold)
                    self.need = need
                if self.need is not None:
                    await self._run(self.hold, self.need)
            self.hold = None

    async def _run(self, hold: Hold, need: Need) -> None:
        self.end.clear()
        self.asked[:] = [worker for worker in self.asked if worker is not self] + [self]
        try:
            if not hold.has(need):
                await self.pool.exchange(hold, need)
            self.is_running = True
            self.begun.append(self)
            await self.end.wait()
        except Unserved:
            self.is_unserved = True
        finally:
            self.is_running, self.need = False, None

    @property
    def is_idle(self) -> bool:
        return self.hold is not None and self.hold.recall is not None

    @property
    def waits(self) -> bool:
        """Has a task, and not what it needs."""
        return self.need is not None and not self.is_running


class Workers:
    """`async with` them; they end with the context."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.asked: list[Worker] = []
        self.begun: list[Worker] = []
        self.all = [Worker(pool, self.asked, self.begun) for _ in pool.slots]

    async def __aenter__(self) -> "Workers":
        self._tasks = [asyncio.create_task(worker.work()) for worker in self.all]
        await _settled()
        return self

    async def __aexit__(self, *error: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        assert not self.pool._holds

    async def restart(self, number: int) -> None:
        """Cancelled wherever it is, as by an agent that stops."""
        self._tasks[number].cancel()
        with suppress(asyncio.CancelledError):
            await self._tasks[number]
        self.all[number].hold, self.all[number].is_running = None, False
        self._tasks[number] = asyncio.create_task(self.all[number].work())

    def idle(self, need: Need) -> list[Worker]:
        """Those who would listen for a task of that need."""
        return [
            worker
            for worker in self.all
            if worker.is_idle
            and not worker.task.done()
            and worker.hold
            and self.pool.serves(need)
            and worker.hold.slots[0].fits(need)
        ]

    async def give(self, need: Need) -> Worker:
        [worker, *_] = self.idle(need)
        worker.task.set_result(need)
        await _settled()
        return worker

    async def end(self, worker: Worker) -> None:
        worker.end.set()
        await _settled()


async def test_a_task_for_two_takes_idle_slots() -> None:
    """Whoever merely listened lets go, and listens again when there is something left to listen with."""
    async with Workers(Pool(_slots(SMALL_MB, SMALL_MB))) as workers:
        pair = await workers.give(PAIR)
        assert pair.is_running
        assert pair.hold is not None
        assert set(pair.hold.gpus) == {"GPU-1", "GPU-2"}
        assert not workers.idle(ANY)
        await workers.end(pair)
        assert len(workers.idle(ANY)) == 2


async def test_tasks_for_one_dont_pass_a_task_for_two() -> None:
    """It waits for those that run, and whoever comes meanwhile waits for it."""
    async with Workers(Pool(_slots(SMALL_MB, SMALL_MB, SMALL_MB))) as workers:
        first, second = await workers.give(ANY), await workers.give(ANY)
        pair = await workers.give(PAIR)
        assert pair.waits
        assert not workers.idle(ANY)
        await workers.end(first)
        assert pair.is_running
        assert not workers.idle(ANY)
        await workers.end(second)
        assert len(workers.idle(ANY)) == 1


async def test_a_slot_that_is_waited_for_goes_on_to_no_other_task() -> None:
    """Nor does one that is unwell, or whose agent drains."""
    async with Workers(pool := Pool(_slots(SMALL_MB, SMALL_MB))) as workers:
        first = await workers.give(ANY)
        assert first.hold is not None
        assert pool.spares(first.hold)
        pair = await workers.give(PAIR)
        assert pair.waits
        assert not pool.spares(first.hold)
        await workers.end(first)
        await workers.end(pair)
        [alone, _] = workers.idle(ANY)
        assert alone.hold is not None
        for problems in ({}, {"GPU-1": "vanished", "GPU-2": "vanished"}):
            pool.note(problems)
            assert pool.spares(alone.hold) is not bool(problems)
        pool.note({})
        pool.close()
        assert not pool.spares(alone.hold)


async def test_what_it_cant_use_isnt_kept_for_it() -> None:
    """While a task waits for two large GPUs, the small one takes others."""
    async with Workers(Pool(_slots(LARGE_MB, LARGE_MB, SMALL_MB))) as workers:
        [one, _] = workers.idle(LARGE)
        one.task.set_result(ANY)
        await _settled()
        pair = await workers.give(LARGE_PAIR)
        assert pair.waits
        [small] = workers.idle(ANY)
        assert small.hold is not None
        assert small.hold.gpus == ("GPU-3",)
        await workers.end(one)
        assert pair.is_running


async def test_a_gpu_with_a_problem_goes_to_nobody() -> None:
    """Who listened with it lets go, who works with it goes on, and a task for all of them is another agent's."""
    async with Workers(pool := Pool(_slots(SMALL_MB, SMALL_MB))) as workers:
        working = await workers.give(ANY)
        assert working.hold is not None
        for unwell in ("GPU-1", "GPU-2"):
            pool.note({unwell: "vanished"})
            await _settled()
            assert working.is_running
            assert {hold.gpus for worker in workers.idle(ANY) if (hold := worker.hold)} <= {("GPU-1",), ("GPU-2",)}
            assert (unwell,) not in {hold.gpus for worker in workers.idle(ANY) if (hold := worker.hold)}
            assert not workers.idle(PAIR)
        pool.note({})
        await _settled()
        pair = await workers.give(PAIR)
        assert pair.waits
        pool.note({"GPU-1": "vanished"})
        await _settled()
        assert pair.is_unserved


@pytest.mark.parametrize("steps", range(5))
async def test_what_comes_just_as_a_slot_is_given(steps: int) -> None:
    """A problem, or a task that wants the slot, is noticed by the worker that hasn't begun to listen with it yet."""
    async with Workers(pool := Pool(_slots(SMALL_MB, SMALL_MB))) as workers:
        pair = await workers.give(PAIR)
        pair.end.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        pool.note({"GPU-1": "vanished"})
        await _settled()
        _check(workers, pool.problems)
        assert [worker.hold.gpus for worker in workers.idle(ANY) if worker.hold] == [("GPU-2",)]


async def test_draining_gives_up_what_waits() -> None:
    """It is another agent's; what runs goes on."""
    async with Workers(pool := Pool(_slots(SMALL_MB, SMALL_MB))) as workers:
        working, pair = await workers.give(ANY), await workers.give(PAIR)
        pool.close()
        await _settled()
        assert (working.is_running, pair.is_unserved) == (True, True)


NEEDS = (ANY, ANY, PAIR, TRIPLE, LARGE, LARGE_PAIR)
STEPS = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from(NEEDS),
            st.tuples(st.sampled_from(["end", "cancel"]), st.integers(0, 3)),
            st.sets(st.sampled_from(["GPU-1", "GPU-2", "GPU-4"])),
        ),
        st.booleans(),
    ),
    max_size=40,
)
"""A task of a need, an end, a cancellation, or GPUs with problems; and whether all that follows from it comes first."""


@settings(max_examples=200, deadline=None)
@given(memories_mb=st.lists(st.sampled_from([LARGE_MB, SMALL_MB]), min_size=1, max_size=4), steps=STEPS)
def test_in_any_order(memories_mb: list[int], steps: list[tuple[object, bool]]) -> None:
    """One holder a GPU, none lost, none idle that somebody waits for, and in the end everything that waited has run."""
    asyncio.run(asyncio.wait_for(_in_any_order(memories_mb, steps), SECONDS))


async def _in_any_order(memories_mb: list[int], steps: list[tuple[object, bool]]) -> None:
    pool = Pool(_slots(*memories_mb))
    async with Workers(pool) as workers:
        for step, is_settled in steps:
            match step:
                case Need() as need if idle := workers.idle(need):
                    idle[0].task.set_result(need)
                case ("end", int(number)) if number < len(workers.all):
                    workers.all[number].end.set()
                case ("cancel", int(number)) if number < len(workers.all):
                    await workers.restart(number)
                case set(uuids):
                    pool.note(dict.fromkeys(map(str, uuids), "unwell"))
            if is_settled:
                await _settled()
                _check(workers, pool.problems)
            else:
                await asyncio.sleep(0)
        pool.note({})
        await _settled()
        in_order = [worker for worker in workers.asked if worker.waits]
        workers.begun.clear()
        while running := [worker for worker in workers.all if worker.is_running]:
            await workers.end(running[0])
            _check(workers, pool.problems)
        assert len(workers.idle(ANY)) == len(pool.slots)
        assert workers.begun == in_order if len(set(memories_mb)) == 1 else set(workers.begun) == set(in_order)


def _check(workers: Workers, problems: Mapping[str, str]) -> None:
    pool = workers.pool
    held = [slot for hold in pool._holds for slot in hold.slots]
    assert len(held) == len(set(held))
    assert not any(worker.is_idle and set(worker.hold.gpus) & problems.keys() for worker in workers.all if worker.hold)
    free = [slot for slot in pool.slots if slot not in held and slot.name not in problems]
    for worker in workers.asked:
        if worker.waits and worker.need:
            assert pool.serves(worker.need)
            assert not workers.idle(worker.need)
            kept = [slot for slot in free if slot.fits(worker.need)]
            assert len(kept) < worker.need.gpu_count
            free = [slot for slot in free if slot not in kept]
    assert not free
