"""Waiting for a task's end without asking again and again."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from core import bells
from core.bells import Bells
from core.contract.errors import TaskNotFinished, TaskNotFound, Unavailable
from core.contract.http import FINISHED, Outcome

NOT_YET = Outcome.of(TaskNotFinished())


class Task:
    """One that ends when it is told to, and knows how often it was asked for."""

    def __init__(self) -> None:
        self.outcome = NOT_YET
        self.asked = 0

    async def ask(self, _: str) -> Outcome:
        self.asked += 1
        return self.outcome


async def _turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def words() -> asyncio.Queue[str]:
    """What the bells hear."""
    return asyncio.Queue()


@pytest.fixture
async def listening(words: asyncio.Queue[str]) -> AsyncIterator[Bells]:
    async def heard() -> AsyncIterator[str]:
        while True:
            yield await words.get()

    listening = Bells()
    listener = asyncio.create_task(listening.listen(heard))
    words.put_nowait("")
    await _turns()
    yield listening
    listener.cancel()


async def test_the_answer_comes_with_the_bell(listening: Bells, words: asyncio.Queue[str]) -> None:
    """Asked for at first and at the end, and never between; others' bells are others'."""
    task = Task()
    waiting = asyncio.create_task(listening.outcome("uid", 60, task.ask))
    await _turns()
    words.put_nowait("another")
    await _turns()
    assert (task.asked, waiting.done()) == (1, False)
    task.outcome = FINISHED
    words.put_nowait("uid")
    assert await waiting == FINISHED
    assert task.asked == 2


async def test_an_end_between_asking_and_waiting_is_heard(listening: Bells) -> None:
    """The bell is there before the task is asked for."""
    task = Task()

    async def ask(uid: str) -> Outcome:
        outcome = await task.ask(uid)
        task.outcome = FINISHED
        listening.ring(uid)
        return outcome

    assert await listening.outcome("uid", 60, ask) == FINISHED


@pytest.mark.parametrize("end", [Bells.close, lambda _: None], ids=["drained", "time over"])
async def test_who_waits_in_vain_is_answered(listening: Bells, end: Callable[[Bells], None]) -> None:
    """When the time is over, or the server ends."""
    waiting = asyncio.create_task(listening.outcome("uid", 0.05, Task().ask))
    await _turns()
    end(listening)
    assert await waiting == NOT_YET


async def test_what_ended_unheard_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing is heard the task is asked for again and again."""
    monkeypatch.setattr(bells, "DEAF_SECONDS", 0.01)
    task = Task()
    waiting = asyncio.create_task(Bells().outcome("uid", 60, task.ask))
    while task.asked < 3:
        await asyncio.sleep(0.01)
    task.outcome = FINISHED
    assert await waiting == FINISHED


async def test_who_listens_again_asks_for_all(words: asyncio.Queue[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """For what ended in between."""
    monkeypatch.setattr(bells, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(bells, "DEAF_SECONDS", 60.0)

    async def heard() -> AsyncIterator[str]:
        yield await words.get()
        raise Unavailable

    task, listening = Task(), Bells()
    listener = asyncio.create_task(listening.listen(heard))
    waiting = asyncio.create_task(listening.outcome("uid", 60, task.ask))
    await _turns()
    task.outcome = FINISHED
    words.put_nowait("")
    assert await waiting == FINISHED
    listener.cancel()


async def test_bells_are_heard_further_on(listening: Bells, words: asyncio.Queue[str]) -> None:
    """Until one might be missed: whoever is slow is sent away, and all are when nothing is heard here."""
    heard, slow = listening.heard(), listening.heard()
    assert (await anext(heard), await anext(slow)) == ("", "")
    for number in range(bells.HEARD_AHEAD + 1):
        words.put_nowait(str(number))
        assert await anext(heard) == str(number)
    with pytest.raises(StopAsyncIteration):
        await anext(slow)
    listening.close()
    with pytest.raises(StopAsyncIteration):
        await anext(heard)
    with pytest.raises(Unavailable):
        await anext(listening.heard())


async def test_a_core_that_has_no_bells_ends_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older one takes the question for one about a task of that name."""
    monkeypatch.setattr(bells, "RETRY_SECONDS", 0.0)
    asked = asyncio.Event()

    async def heard() -> AsyncIterator[str]:
        if asked.is_set():
            await asyncio.Event().wait()
        asked.set()
        raise TaskNotFound
        yield ""

    listener = asyncio.create_task(Bells().listen(heard))
    await asked.wait()
    await _turns()
    assert not listener.done()
    listener.cancel()
