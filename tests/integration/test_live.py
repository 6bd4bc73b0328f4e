"""What a listener is told when nothing rings."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from core import live
from core.contract.live import SAID_CHARACTERS, Said
from core.contract.task import State
from core.dispatch import Dispatch
from core.live import HEARTBEAT, PIECE_BYTES, Live, Place
from core.store.logs import AT_ONCE
from tests.integration.making import in_state, pending


async def _next(events: AsyncGenerator[bytes, None]) -> list[tuple[str, dict[str, Any]]]:
    """Name and data of each event that comes at once; none in a heartbeat."""
    piece = await anext(events)
    return [] if piece == HEARTBEAT else _parsed(piece)


def _parsed(stream: bytes) -> list[tuple[str, dict[str, Any]]]:
    fields = [dict(line.split(": ", 1) for line in event.split("\n")) for event in stream.decode().split("\n\n")[:-1]]
    return [(event["event"], json.loads(event["data"])) for event in fields]


@pytest.fixture
def told(dispatch: Dispatch) -> Live:
    """With bells that nobody rings."""
    return Live(dispatch)


async def test_a_position_is_told_when_it_changes(dispatch: Dispatch, told: Live) -> None:
    first, second = await pending(dispatch.store), await pending(dispatch.store)
    async with aclosing(told.events(second, Place())) as events:
        [(name, status)] = await _next(events)
        assert (name, status["state"], status["position"]) == ("state", "pending", 1)
        await dispatch.cancel(first)
        [(name, status)] = await _next(events)
        assert (name, status["position"]) == ("state", 0)


async def test_silence_has_heartbeats(dispatch: Dispatch, told: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the server ends."""
    monkeypatch.setattr(live, "HEARTBEAT_SECONDS", 0.01)
    uid = await in_state(dispatch.store, State.RUNNING)
    async with aclosing(told.events(uid, Place())) as events:
        [(_, status)] = await _next(events)
        assert status["state"] == "running"
        assert await _next(events) == []
        told.news.close()
        assert [piece async for piece in events] == []


async def test_a_long_log_comes_in_parts_before_the_end(dispatch: Dispatch, told: Live) -> None:
    """And of a task that was deleted nothing more comes."""
    uid = await in_state(dispatch.store, State.RUNNING)
    lines = [f"{number}\n" for number in range(AT_ONCE + 1)]
    for batch, line in enumerate(lines, 1):
        await dispatch.tell(uid, 1, Said(batch=batch, text=line))
    await dispatch.cancel(uid)
    async with aclosing(told.events(uid, Place())) as events:
        assert [data["text"] for _, data in await _next(events)] == lines[:-1]
        assert [(name, data.get("text")) for name, data in await _next(events)] == [("log", lines[-1]), ("state", None)]
        assert [piece async for piece in events] == []
    await dispatch.delete(uid)
    assert [piece async for piece in told.events(uid, Place())] == []


async def test_a_long_log_comes_in_small_pieces(dispatch: Dispatch, told: Live) -> None:
    """Else each connection that doesn't read would hold megabytes of it."""
    uid = await in_state(dispatch.store, State.RUNNING)
    texts = [chr(number) * SAID_CHARACTERS for number in range(5)]
    for batch, text in enumerate(texts, 1):
        assert await dispatch.store.logs.append(uid, 1, Said(batch=batch, text=text), kept_bytes=2**20)
    await dispatch.cancel(uid)
    pieces = [piece async for piece in told.events(uid, Place())]
    assert max(map(len, pieces)) == PIECE_BYTES
    assert [data.get("text") for _, data in _parsed(b"".join(pieces))] == [*texts, None]


@pytest.mark.parametrize("id", ["", "x", "1", "1-", "99999999999999999999-0", "1-0.", "1-0\n", "-1-0"])
def test_an_id_that_is_nobodys_is_the_beginning(id: str) -> None:
    assert Place.of(id) == Place()


@pytest.mark.parametrize("id", ["0-0", "1795392502785-12", "1795392502785-0.1795392502785123"])
def test_an_id_is_a_place(id: str) -> None:
    assert str(Place.of(id)) == id
