"""The audit log in Redis: bounded, read from its end, and never in a request's way."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from structlog.testing import capture_logs

from core.audit import Audit
from core.calls import Call
from core.contract.audit import Action, AuditEntry
from core.contract.parameters import AuditPage
from core.store import Store, keys
from core.store.audit import READ_AT_ONCE
from tests.integration.making import everywhere, limit_memory

# Nothing is received or sent.
NOTHING: Any = None
MANY = 2 * READ_AT_ONCE + READ_AT_ONCE // 2


def _entry(number: int) -> AuditEntry:
    return AuditEntry(action=Action.TASK_DELETED, about=f"task-{number % 2}", what=str(number), status=200, who="x")


async def _found(store: Store, page: AuditPage) -> list[int]:
    entries = await store.audit.page(since=page.since, limit=page.limit, wanted=page.is_wanted)
    return [int(entry.what) for entry in entries]


async def test_the_newest_come_first(store: Store) -> None:
    """As many as are wanted, through all that there are if need be."""
    await store.audit.append(map(_entry, range(MANY)), kept=2 * MANY)
    assert await _found(store, AuditPage(limit=3)) == [MANY - 1, MANY - 2, MANY - 3]
    assert await _found(store, AuditPage(limit=10_000)) == [*range(MANY)][::-1]
    assert await _found(store, AuditPage(task="task-1", limit=10_000)) == [*range(1, MANY, 2)][::-1]
    assert await _found(store, AuditPage(key="another")) == []
    now = datetime.now(UTC)
    assert len(await _found(store, AuditPage(since=now - timedelta(hours=1), limit=10_000))) == MANY
    assert await _found(store, AuditPage(since=now + timedelta(hours=1))) == []


async def test_the_oldest_go(store: Store) -> None:
    await store.audit.append(map(_entry, range(MANY)), kept=READ_AT_ONCE)
    kept = await _found(store, AuditPage(limit=10_000))
    assert READ_AT_ONCE <= len(kept) < 1.5 * READ_AT_ONCE
    assert kept[0] == MANY - 1


async def test_what_redis_refuses_is_in_the_log(store: Store) -> None:
    """And nobody who was answered has noticed."""
    scope: Any = {"method": "DELETE", "path": "/", "headers": [], "query_string": b"", "client": ("192.0.2.1", 1)}
    call = Call(scope, NOTHING, NOTHING)
    call.rule, call.parts = "/api/tasks/<uid>", {"uid": "the-task"}
    audit = Audit(store.audit, kept=100)
    storing = asyncio.create_task(audit.store_for_ever())
    try:
        with capture_logs() as logs:
            await limit_memory(store, free_bytes=-(2**20))
            audit.note(call, 200)
            await audit.stored()
        assert [line["event"] for line in logs] == ["audit.task.deleted", "audit.unstored"]
        assert (logs[0]["about"], logs[0]["who"]) == ("the-task", "anybody")
        await everywhere(store, "CONFIG", "SET", "maxmemory", 0)
        audit.note(call, 200)
        await audit.stored()
        assert await store.connection.call("XLEN", keys.AUDIT) == 1
    finally:
        await everywhere(store, "CONFIG", "SET", "maxmemory", 0)
        storing.cancel()
        await asyncio.wait({storing})
