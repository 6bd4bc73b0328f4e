"""Questions that come one by one and are asked many at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")

GATHER_SECONDS: Final = 0.002
"""While some are being asked, the next ones wait for each other so long."""


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
