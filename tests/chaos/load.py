"""The load: careful clients over HTTPS, each with one task, and what each of them saw."""

import hashlib
import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from zipfile import BadZipFile

import requests

from core.contract.task import Reason
from tests.chaos.system import MODEL, System
from tests.e2e.api import NOT_YET, Api
from tests.zips import files_of, zip_of

MiB = 2**20
LARGE_SHARE = 0.06
LONG_SHARE = 0.1
WITHDRAWN_SHARE = 0.08
CANCELLED_SHARE = 0.5
"""Of those that are withdrawn."""

DONE, ENDED, FAILED, OUTPUT_GONE, NOT_FOUND = 200, 409, 552, 553, 554
ENDS = (DONE, FAILED, OUTPUT_GONE, NOT_FOUND)
COME_BACK = (503, 507)
RETRY_SECONDS = 1.0
POLL_SECONDS = 0.7


@dataclass(frozen=True)
class Order:
    """A task to post. The same seed gives the same orders."""

    name: str
    at_seconds: float
    content_bytes: int
    run_seconds: float
    withdrawn_after_seconds: float | None = None
    is_cancelled: bool = False
    """How it is withdrawn: cancelled by an operator, else deleted by its client."""

    def content(self) -> bytes:
        chance = random.Random(self.name)
        pieces = [chance.randbytes(min(MiB, self.content_bytes - at)) for at in range(0, self.content_bytes, MiB)]
        return b"".join(pieces)  # made in pieces: a long call would hold up the proxies


def orders(tasks: int, *, seconds: float, seed: int) -> list[Order]:
    """Mostly a few KB and up to 3 seconds; some of 10 to 60 MB, some of up to 10 seconds, some withdrawn."""
    chance = random.Random(f"load {seed}")
    return [
        Order(
            name=f"{seed}-{number}",
            at_seconds=seconds * number / tasks,
            content_bytes=chance.randrange(10 * MiB, 60 * MiB)
            if chance.random() < LARGE_SHARE
            else chance.randrange(100, 8000),
            run_seconds=round(chance.uniform(3, 10) if chance.random() < LONG_SHARE else chance.uniform(0, 3), 2),
            withdrawn_after_seconds=chance.uniform(0, 6) if chance.random() < WITHDRAWN_SHARE else None,
            is_cancelled=chance.random() < CANCELLED_SHARE,
        )
        for number in range(tasks)
    ]


@dataclass(frozen=True)
class End:
    """A task's last answer. `digest` is of the output zip's bytes."""

    status: int
    digest: str = ""
    is_right: bool = True
    reason: str = ""
    message: str = ""

    @property
    def is_cancelled(self) -> bool:
        return self.reason == Reason.CANCELLED

    @classmethod
    def of(cls, answer: requests.Response, order: Order) -> "End":
        if answer.status_code == DONE:
            digest = hashlib.sha256(answer.content).hexdigest()
            return cls(DONE, digest=digest, is_right=_content(answer.content) == order.content())
        if answer.status_code == FAILED:
            failure = answer.json()["detail"]
            return cls(FAILED, reason=failure["reason"], message=failure["message"])
        return cls(answer.status_code)


@dataclass
class Story:
    """What a client saw of its task."""

    order: Order
    uid: str | None = None
    seen: list[tuple[float, str]] = field(default_factory=list)
    """Each change of the answer: seconds since the start of the run, and the status or the error."""
    withdrawn: bool = False
    """Asked for; whether the answer came or not."""
    end: End | None = None
    later: End | None = None
    """The answer after everything has come to rest."""
    odd: list[str] = field(default_factory=list)
    """Answers that no fault explains."""


class Client:
    """Comes back after the errors that a client has to expect, until the run ends."""

    def __init__(self, system: System, now: Callable[[], float], order: Order) -> None:
        self.story = Story(order)
        self._system = system
        self._now = now

    def follow(self) -> Story:
        """Posts, waits for the end, fetches; or withdraws in between."""
        withdrawn_after = self.story.order.withdrawn_after_seconds
        with self._system.public() as api:
            self._post(api)
            self._wait_for_end(api, for_seconds=withdrawn_after)
            if withdrawn_after is not None:
                self._withdraw(api)
                self._wait_for_end(api)
        return self.story

    def look_again(self) -> None:
        """`later`, when everything should have come to rest."""
        with self._system.public() as api:
            answer = self._call(api, "GET", self._path, allowed=(*ENDS, NOT_YET))
        if answer is not None:
            self.story.later = End.of(answer, self.story.order)

    @property
    def _path(self) -> str:
        return f"/api/tasks/{self.story.uid}"

    @property
    def _goes_on(self) -> bool:
        return self.story.end is None and not self._system.ending.is_set()

    def _post(self, api: Api) -> None:
        order = self.story.order
        zip = zip_of({"seconds": str(order.run_seconds).encode(), "content": order.content()})
        while self._goes_on and self.story.uid is None:
            parameters = {"model_human_readable_id": MODEL}
            answer = self._call(api, "POST", "/api/tasks/", params=parameters, zip=zip, allowed=(DONE,))
            if answer is None:
                self._system.last(RETRY_SECONDS)
            else:
                self.story.uid = str(answer.json())

    def _wait_for_end(self, api: Api, *, for_seconds: float | None = None) -> None:
        until = math.inf if for_seconds is None else time.monotonic() + for_seconds
        while self._goes_on and time.monotonic() < until:
            answer = self._call(api, "GET", self._path, allowed=(*ENDS, NOT_YET))
            if answer is None or answer.status_code == NOT_YET:
                self._system.last(POLL_SECONDS)
            else:
                self.story.end = End.of(answer, self.story.order)

    def _withdraw(self, api: Api) -> None:
        is_done = False
        while self._goes_on and not is_done:
            is_done = self._cancel() if self.story.order.is_cancelled else self._delete(api)
            if not is_done:
                self._system.last(RETRY_SECONDS)

    def _cancel(self) -> bool:
        with self._system.private() as core:
            self.story.withdrawn = True
            return self._call(core, "POST", f"{self._path}/cancel", allowed=(DONE, ENDED)) is not None

    def _delete(self, api: Api) -> bool:
        # Gone already: an earlier try arrived, and its answer was lost.
        allowed = (DONE, NOT_FOUND) if self.story.withdrawn else (DONE,)
        self.story.withdrawn = True
        return self._call(api, "DELETE", self._path, allowed=allowed) is not None

    def _call(
        self,
        api: Api,
        method: str,
        path: str,
        *,
        allowed: Sequence[int],
        params: Mapping[str, str] | None = None,
        zip: bytes | None = None,
    ) -> requests.Response | None:
        """None: come back later."""
        try:
            answer = api.call(method, path, params=params, zip=zip)
        except requests.RequestException as error:
            self._note(type(error).__name__)
            return None
        self._note(f"{method} {answer.status_code}")
        if answer.status_code in allowed:
            return answer
        if answer.status_code not in COME_BACK:
            self.story.odd.append(f"{method}: {answer.status_code} {answer.text[:200]}")
        return None

    def _note(self, what: str) -> None:
        seen = self.story.seen
        if not seen or seen[-1][1] != what:
            seen.append((round(self._now(), 1), what))


def _content(zip: bytes) -> bytes | None:
    try:
        return files_of(zip).get("content")
    except BadZipFile:
        return None
