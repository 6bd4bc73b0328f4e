"""A request and its answer without Quart's objects."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pytest

from core import calls
from core.calls import Call, Gone
from core.contract.errors import InvalidParameters, InvalidRequest


class Client:
    """Sends these pieces of a body, and then what else it is told to; keeps what it is answered."""

    def __init__(self, *pieces: bytes, is_whole: bool = True) -> None:
        last = len(pieces) - 1
        self.messages: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        for number, piece in enumerate(pieces):
            more = number < last or not is_whole
            self.messages.put_nowait({"type": "http.request", "body": piece, "more_body": more})
        self.answer: list[dict[str, Any]] = []

    def leave(self) -> None:
        self.messages.put_nowait({"type": "http.disconnect"})

    async def send(self, message: Any) -> None:
        self.answer.append(message)

    def call(self, method: str = "POST", query: str = "", headers: Sequence[tuple[bytes, bytes]] = ()) -> Call:
        scope = {"method": method, "path": "/", "query_string": query.encode(), "headers": list(headers)}
        return Call(cast(Any, scope), cast(Any, self.messages.get), cast(Any, self.send))

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.answer)


async def test_a_body_is_taken_as_it_is_read() -> None:
    """Nothing is fetched ahead: what the handler doesn't take stays in the socket."""
    client = Client(b"a", b"b", b"c")
    pieces = client.call().pieces()
    assert await anext(pieces) == b"a"
    assert client.messages.qsize() == 2
    assert [piece async for piece in pieces] == [b"b", b"c"]


async def test_a_client_that_goes_away_in_the_middle_is_gone() -> None:
    """What came of the body isn't taken for all of it."""
    client = Client(b"half", is_whole=False)
    client.leave()
    with pytest.raises(Gone):
        assert [piece async for piece in client.call().pieces()]


async def test_a_body_that_stalls_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "STALL_SECONDS", 0.01)
    with pytest.raises(InvalidRequest, match="stalled"):
        assert [piece async for piece in Client(b"half", is_whole=False).call().pieces()]


async def test_a_body_that_trickles_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is no upload, however seldom it stalls."""
    monkeypatch.setattr(calls, "STALL_SECONDS", 0.1)
    client = Client(is_whole=False)

    async def trickle() -> None:
        while True:
            client.messages.put_nowait({"type": "http.request", "body": b"x", "more_body": True})
            await asyncio.sleep(0.01)

    trickling = asyncio.create_task(trickle())
    with pytest.raises(InvalidRequest, match="bytes a second"):
        assert [piece async for piece in client.call().pieces()]
    trickling.cancel()


async def test_whoever_reads_slowly_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the time counts in which the client was waited for."""
    monkeypatch.setattr(calls, "STALL_SECONDS", 0.01)
    async for _ in Client(b"a", b"b", b"c").call().pieces():
        await asyncio.sleep(0.02)


async def test_a_refused_body_is_read_to_its_end() -> None:
    """Many clients read no answer before they have sent all."""
    client = Client(b"much", b"more", b"of it")
    await client.call().refuse(InvalidRequest("no"))
    assert client.messages.empty()
    assert client.answer[0]["status"] == 400
    assert client.body == b'{"detail":"no"}'
    assert not client.answer[-1]["more_body"]


async def test_what_is_streamed_ends_with_its_client() -> None:
    """Or a download that nobody takes would be read to its end."""
    client, drawn = Client(b""), asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"piece"
            drawn.set()
            await asyncio.sleep(0)

    call = client.call("GET")
    streaming = asyncio.create_task(call.stream(200, (), endless()))
    await drawn.wait()
    client.leave()
    with pytest.raises(Gone):
        await streaming


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    """It isn't the client that left."""
    call = Client(b"").call("GET")

    async def attend() -> None:
        async with call.attended():
            await asyncio.Event().wait()

    attending = asyncio.create_task(attend())
    await asyncio.sleep(0)
    attending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attending


def test_of_a_repeated_parameter_the_first_counts() -> None:
    assert Client().call(query="a=1&b=%2B&a=2&c=").args == {"a": "1", "b": "+", "c": ""}


@pytest.mark.parametrize(
    ("query", "prefer", "seconds"),
    [
        ("", "", 0),
        ("wait=2.5", "", 2.5),
        ("wait=0", "wait=9", 0),
        ("wait=1e9", "", calls.LONGEST_WAIT_SECONDS),
        ("", "respond-async, wait=10", 10),
        ("", 'wait="7"; foo', 7),
        ("", "handling=lenient", 0),
    ],
)
def test_how_long_a_client_would_wait(query: str, prefer: str, seconds: float) -> None:
    headers = [(b"prefer", prefer.encode())] if prefer else []
    assert Client().call("GET", query, headers).wait_seconds == seconds


@pytest.mark.parametrize("wait", ["soon", "-1", "nan", ""])
def test_a_wait_that_is_no_time_is_refused(wait: str) -> None:
    with pytest.raises(InvalidParameters):
        Client().call("GET", f"wait={wait}").wait_seconds  # noqa: B018 - it is the reading that fails


@pytest.mark.parametrize("length", [b"0", b"10", b"70000"])
def test_a_chunked_body_is_of_unknown_length(length: bytes) -> None:
    """Whatever is announced beside: h11 goes by the chunks."""
    call = Client().call(headers=[(b"content-length", length), (b"transfer-encoding", b"chunked")])
    assert call.content_length is None
    assert call.has_body


@pytest.mark.parametrize(
    ("site", "origin", "is_refused"),
    [
        (b"same-origin", b"https://outer.example", False),
        (b"none", b"https://outer.example", False),
        (b"cross-site", b"https://outer.example", True),
        (b"same-site", b"https://outer.example", True),
        (b"", b"https://outer.example", True),
        (b"", b"https://here.example", False),
        (b"", b"", False),
    ],
)
def test_a_browser_says_whose_page_asks(site: bytes, origin: bytes, is_refused: bool) -> None:
    """It knows better than Host, which somebody's proxy may have written anew."""
    sent = ((b"host", b"here.example"), (b"sec-fetch-site", site), (b"origin", origin))
    call = Client().call(headers=[(name, value) for name, value in sent if value])
    assert call.is_from_elsewhere is is_refused
