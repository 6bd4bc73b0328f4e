"""Questions that come one by one and are asked many at a time."""

import asyncio

from core.gathering import Gathering, Noting


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


async def test_notes_are_taken_together() -> None:
    """In their order, no more than so many at once, also those that come while others are being noted."""
    noted: list[list[int]] = []

    async def note_all(numbers: list[int]) -> None:
        noted.append(numbers)
        if len(noted) == 1:
            noting.note(4)

    noting = Noting(note_all, at_once=2)
    for number in range(1, 4):
        noting.note(number)
    assert noted == []
    await noting.noted()
    assert noted == [[1, 2], [3], [4]]
    await noting.noted()
    noting.note(5)
    await noting.noted()
    assert noted[3:] == [[5]]
