"""What clients ask again and again: many questions become one to core."""

import asyncio
from typing import Final

from core.client import CoreClient
from core.contract.errors import ContractError
from core.contract.http import Outcome
from core.gathering import Gathering

ASKED_AT_ONCE: Final = 1000


class Polls:
    """`await polls.outcome(uid)` raises what core refuses, to all who ask at that moment."""

    def __init__(self, core: CoreClient) -> None:
        self._core = core
        self._waiting: dict[str, asyncio.Future[Outcome]] = {}
        self._uids = Gathering(self._ask, at_once=ASKED_AT_ONCE)

    async def outcome(self, uid: str) -> Outcome:
        if uid not in self._waiting:
            self._waiting[uid] = asyncio.get_running_loop().create_future()
            self._uids.add(uid)
        return await asyncio.shield(self._waiting[uid])

    async def _ask(self, uids: list[str]) -> None:
        answers = [self._waiting.pop(uid) for uid in uids]
        try:
            for answer, outcome in zip(answers, await self._core.outcomes(uids), strict=True):
                answer.set_result(outcome)
        except ContractError as error:
            for answer in answers:
                answer.set_exception(error)
                answer.exception()  # its clients may have gone
        finally:
            for answer in answers:
                answer.cancel()
