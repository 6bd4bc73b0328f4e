"""Questions that come one by one and are asked many at a time, and notes that nobody waits for."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")

GATHER_SECONDS: Final = 0.002
"""While some are being asked, the next ones wait for each other so long."""

NOTE_SECONDS: Final = 0.05
"""A note waits so long for others."""


class Gathering(Generic[Question, Answer]):
    """`ask_all` answers in the order of its questions; what it raises, all hear who asked together."""

    def __init__(self, ask_all: Callable[[list[Question]], Awaitable[Sequence[Answer]]], *, at_once: int) -> None:
        self._ask_all = ask_all
        self._at_once = at_once
        self._questions: list[Question] = []
        self._answers: asyncio.Task[Sequence[Answer]] | None = None
        """To those questions, soon."""
        self._asking: set[asyncio.Task[Sequence[Answer]]] = set()

    async def ask(self, question: Question) -> Answer:
        if self._answers is None:
            self._answers = asyncio.create_task(self._ask(self._questions), name="gathering")
        answers, number = self._answers, len(self._questions)
        self._questions.append(question)
        if len(self._questions) == self._at_once:
            self._begin()
        return (await asyncio.shield(answers))[number]

    async def _ask(self, questions: list[Question]) -> Sequence[Answer]:
        await asyncio.sleep(GATHER_SECONDS if self._asking else 0)
        if questions is self._questions:
            self._begin()
        return await self._ask_all(questions)

    def _begin(self) -> None:
        """From here on who comes is asked with the next ones."""
        assert self._answers  # noqa: S101 - there are questions
        self._asking.add(self._answers)
        self._answers.add_done_callback(self._end)
        self._questions, self._answers = [], None

    def _end(self, answers: asyncio.Task[Sequence[Answer]]) -> None:
        self._asking.discard(answers)
        if not answers.cancelled():
            answers.exception()  # its own business, when all who asked have gone


class Noting(Generic[Question]):
    """`note_all` gets what was noted within a moment, and raises nothing. Whoever ends waits for `noted`."""

    def __init__(self, note_all: Callable[[list[Question]], Awaitable[None]], *, at_once: int) -> None:
        self._note_all = note_all
        self._at_once = at_once
        self._notes: list[Question] = []
        self._noting: asyncio.Task[None] | None = None

    def note(self, note: Question) -> None:
        self._notes.append(note)
        if self._noting is None:
            self._noting = asyncio.create_task(self._note_on(), name="noting")

    async def noted(self) -> None:
        """Returns when nothing is left to note."""
        if self._noting:
            await asyncio.shield(self._noting)

    async def _note_on(self) -> None:
        try:
            while self._notes:
                await asyncio.sleep(NOTE_SECONDS)
                notes, self._notes = self._notes, []
                for start in range(0, len(notes), self._at_once):
                    await self._note_all(notes[start : start + self._at_once])
        finally:
            self._noting = None
