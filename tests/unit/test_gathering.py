"""Questions that come one by one and are asked many at a time."""

import asyncio

from core.gathering import Gathering


async def test_what_comes_meanwhile_is_asked_together() -> None:
    """The first at once; each hears its own answer."""
    asked: list[list[int]] = []
    may_answer = asyncio.Event()

    async def ask_all(numbers: list[int]) -> list[int]:
        asked.append(numbers)
        await may_answer.wait()
        return [-number for number in numbers]

    gathering = Gathering(ask_all, at_once=3)
    first = asyncio.create_task(gathering.ask(1))
    while not asked:
        await asyncio.sleep(0)
    others = [asyncio.create_task(gathering.ask(number)) for number in range(2, 9)]
    await asyncio.sleep(0)
    others.pop().cancel()
    may_answer.set()
    assert await asyncio.gather(first, *others) == [-1, -2, -3, -4, -5, -6, -7]
    assert asked == [[1], [2, 3, 4], [5, 6, 7], [8]]


async def test_all_hear_what_is_raised() -> None:
    """And the next question is a new one."""
    answers = iter([ValueError("no"), None])

    async def ask_all(numbers: list[int]) -> list[int]:
        if error := next(answers):
            raise error
        return numbers

    gathering = Gathering(ask_all, at_once=10)
    refused = await asyncio.gather(gathering.ask(1), gathering.ask(2), return_exceptions=True)
    assert [str(error) for error in refused] == ["no", "no"]
    assert await gathering.ask(3) == 3
