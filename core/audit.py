"""Who did what: each post, read, change and deletion, and who was refused, as a line in the log and an entry in Redis.

It is noted when an answer begins, by what its route means. Nobody waits for Redis: while it is away, the log has all.
"""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Final

import structlog

from core.calls import Call
from core.contract.audit import Action, AuditEntry
from core.contract.errors import StoreFull, Unavailable
from core.contract.key import Caller
from core.gathering import NOTE_SECONDS
from core.observe import REQUEST
from core.store.audit import AuditTrail
from core.store.connection import soon

log = structlog.get_logger()

WINDOW_SECONDS: Final = 60.0
"""Who reads the same again in it, as in ranges, or cancels it again, is noted once."""

REFUSED_BY_ADDRESS: Final = 10
REFUSED_IN_ALL: Final = 1000
"""So many calls of a kind that come to nothing are noted in a window: a flood of them mustn't wash away the rest."""

WAITING: Final = 10_000
AT_ONCE: Final = 500
LAST_SECONDS: Final = 2.0
"""How long a core that is stopped goes on with what waits for Redis."""

LONGEST_ADDRESS: Final = 64
_ID: Final = re.compile(r"(?!isk_|[0-9a-f]{12}_)[A-Za-z0-9_-]{1,64}")
"""What else stands in a path would be the caller's own words, or an API key in place of its id."""

READS: Final = frozenset({Action.TASK_READ, Action.MODEL_READ})
REPEATED: Final = READS | {Action.TASK_CANCELLED, Action.TASK_RETRIED}
"""Who may do so at all may as often as they like."""

LOGGED: Final = ("about", "what", "status", "who", "key", "address")
"""As far as there is something to say. Each line has the time and the request by itself."""

DATA: Final = frozenset({HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT})

AUDITED: Final[Mapping[tuple[str, str], tuple[Action, str]]] = {
    ("POST", "/api/tasks/"): (Action.TASK_SUBMITTED, ""),
    ("PUT", "/api/tasks/<uid>"): (Action.TASK_SUBMITTED, ""),
    ("POST", "/api/uploads/"): (Action.UPLOAD_OPENED, ""),
    ("DELETE", "/api/uploads/<uid>"): (Action.UPLOAD_DELETED, ""),
    ("GET", "/api/tasks/inputs/<uid>"): (Action.TASK_READ, "input"),
    ("GET", "/api/tasks/outputs/<uid>"): (Action.TASK_READ, "output"),
    ("GET", "/api/tasks/<uid>/log"): (Action.TASK_READ, "log"),
    ("GET", "/api/tasks/<uid>/events"): (Action.TASK_READ, "events"),
    ("POST", "/api/tasks/<uid>/cancel"): (Action.TASK_CANCELLED, ""),
    ("POST", "/api/tasks/<uid>/retry"): (Action.TASK_RETRIED, ""),
    ("DELETE", "/api/tasks/<uid>"): (Action.TASK_DELETED, ""),
    ("POST", "/api/models/"): (Action.MODEL_ADDED, ""),
    ("GET", "/api/models/zips/<uid>"): (Action.MODEL_READ, "zip"),
    ("PUT", "/api/models/<uid>"): (Action.MODEL_CHANGED, ""),
    ("PATCH", "/api/models/<uid>"): (Action.MODEL_SWITCHED, ""),
    ("DELETE", "/api/models/<uid>"): (Action.MODEL_DELETED, ""),
    ("POST", "/api/keys/"): (Action.KEY_MADE, ""),
    ("DELETE", "/api/keys/<id>"): (Action.KEY_REVOKED, ""),
}
"""By method and rule, what a call does, and to which part. A handler that does something else says so (`Call.did`)."""


class Window:
    """Counts anew each minute, of so many things at the most."""

    def __init__(self) -> None:
        self._counts: Counter[Hashable] = Counter()
        self._ends = 0.0

    def count(self, thing: Hashable) -> int:
        """How often it came, with this time."""
        now = time.monotonic()
        if now >= self._ends or len(self._counts) >= WAITING:
            self._counts.clear()
            self._ends = now + WINDOW_SECONDS
        self._counts[thing] += 1
        return self._counts[thing]


@dataclass(frozen=True)
class Fact:
    """What somebody has done, or tried."""

    caller: Caller
    address: str
    action: Action
    what: str
    about: str
    status: int


@dataclass(frozen=True)
class Audit:
    """`note` needs `store_for_ever` beside it, if entries are kept."""

    trail: AuditTrail
    kept: int
    """Entries in Redis, about. 0: there is only the log."""
    _waiting: asyncio.Queue[AuditEntry] = field(default_factory=lambda: asyncio.Queue(WAITING))
    _repeated: Window = field(default_factory=Window)
    _refusals: Window = field(default_factory=Window)

    def note(self, call: Call, status: int) -> None:
        """An answer with this status begins."""
        for its in call.refusals:
            what = f"{call.method} {call.rule}"
            self._note(Fact(its.caller, its.address, Action.ACCESS_REFUSED, what, its.about, its.status))
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            action, what = Action.ACCESS_REFUSED, f"{call.method} {call.rule}" if call.rule else "unknown"
        elif audited := AUDITED.get((call.method, call.rule)):
            action, what = call.did or audited[0], audited[1]
        elif call.did:
            action, what = call.did, ""
        else:
            return
        about = call.about or str(next(iter(call.parts.values()), ""))
        self._note(Fact(call.caller, call.client_address, action, what, about, status))

    def _note(self, fact: Fact) -> None:
        if not _ID.fullmatch(fact.about):
            fact = replace(fact, about="")
        if self._is_noted(fact):
            self._enter(fact)

    def _is_noted(self, fact: Fact) -> bool:
        if fact.action in READS and fact.status not in DATA:
            return False
        if fact.status >= HTTPStatus.BAD_REQUEST:
            by_address, in_all = self._refusals.count((fact.address, fact.action)), self._refusals.count(None)
            return by_address <= REFUSED_BY_ADDRESS and in_all <= REFUSED_IN_ALL
        who = (fact.caller.key_id, fact.caller.name, fact.address)
        return fact.action not in REPEATED or self._repeated.count((who, fact.action, fact.what, fact.about)) == 1

    def _enter(self, fact: Fact) -> None:
        entry = AuditEntry(
            action=fact.action,
            about=fact.about,
            what=fact.what,
            status=fact.status,
            who=fact.caller.name,
            key=fact.caller.key_id,
            address=fact.address[:LONGEST_ADDRESS],
            request=REQUEST.get(),
        )
        said = {name: getattr(entry, name) for name in LOGGED}
        log.info(f"audit.{fact.action}", **{name: value for name, value in said.items() if value})
        if self.kept:
            try:
                self._waiting.put_nowait(entry)
            except asyncio.QueueFull:
                log.warning("audit.unstored", entries=1, error="Redis is too slow")

    async def stored(self) -> None:
        """Waits a moment until Redis has what was noted."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._waiting.join(), LAST_SECONDS)

    async def store_for_ever(self) -> None:
        while True:
            entries = [await self._waiting.get()]
            await asyncio.sleep(NOTE_SECONDS)
            while len(entries) < AT_ONCE and not self._waiting.empty():
                entries.append(self._waiting.get_nowait())
            try:
                async with soon():
                    await self.trail.append(entries, kept=self.kept)
            except (Unavailable, StoreFull) as error:
                log.warning("audit.unstored", entries=len(entries), error=str(error))
            for _ in entries:
                self._waiting.task_done()
