"""One server: what it refuses is an exception, and what may pass is tried again."""

import json
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

from inference_client.errors import InferenceError, Refused, Unavailable, Unreachable, refusal
from inference_client.wire import Answer, Call, Wire

log = logging.getLogger("inference_client")

FIRST_SECONDS: Final = 0.5
LAST_SECONDS: Final = 15.0

PASSING: Final = (Unreachable, Unavailable)
"""A server that is restarted, a line that is cut, a store that is full."""


def task_path(uid: str, *rest: str) -> str:
    return "/".join(["/api/tasks", quote(uid, safe=""), *rest])


class Session:
    """Until the server has answered for the first time, nothing is tried again: the address may be wrong. From then on
    whatever is safe to repeat is, until nothing has come of it for `patience_seconds`.
    """

    def __init__(self, wire: Wire, patience_seconds: float) -> None:
        self.wire = wire
        self.has_answered = False
        self.patience_seconds = patience_seconds

    def patience(self) -> "Patience":
        return Patience(self)

    async def call(self, call: Call, *, repeat: bool = True) -> tuple[Answer, bytes]:
        """The answer and all of its body. Raises Refused."""
        patience = self.patience()
        while True:
            try:
                return await self._once(call)
            except PASSING as error:
                if not repeat:
                    raise
                await patience.wait(error)

    async def json(self, call: Call, *, repeat: bool = True) -> Any:
        _, body = await self.call(call, repeat=repeat)
        try:
            return json.loads(body)
        except ValueError as error:
            raise InferenceError("What answers there isn't an InferenceServer: is the address right?") from error

    @asynccontextmanager
    async def exchange(self, call: Call) -> AsyncIterator[Answer]:
        """Once. Raises Refused."""
        async with self.wire.exchange(call) as answer:
            self.has_answered = True
            if answer.status >= 300:
                body = b"".join([piece async for piece in answer.pieces])
                raise refusal(answer.status, body, answer.headers)
            yield answer

    async def _once(self, call: Call) -> tuple[Answer, bytes]:
        async with self.exchange(call) as answer:
            return answer, b"".join([piece async for piece in answer.pieces])


class Patience:
    """How long a call, a transfer or a watch bears that nothing comes of it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.reset()

    def reset(self) -> None:
        """Something came of it. The time counts from the next failure on: a call may take as long as it takes."""
        self._since: float | None = None
        self._seconds = FIRST_SECONDS

    async def wait(self, error: Unreachable | Refused) -> None:
        """Before another try; raises the error when there is none."""
        asked = error.retry_seconds if isinstance(error, Refused) else None
        seconds = max(self._seconds * random.uniform(0.5, 1), asked or 0)  # noqa: S311 - jitter, not a secret
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        left = self._since + self._session.patience_seconds - now
        if not self._session.has_answered or left <= 0:
            raise error
        seconds = min(seconds, left)
        log.warning("%s. Trying again in %.1f s", str(error).rstrip("."), seconds)
        self._seconds = min(2 * self._seconds, LAST_SECONDS)
        await self._session.wire.pause(seconds)
