"""HTTP/2: what isn't a request ends its stream or its connection, and nothing is done a thousand times for free."""

import pytest
from h2.errors import ErrorCodes
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from tests.attacks.frames import PREFACE, Field, data, end_of, fields, headers
from tests.attacks.wire import Door
from tests.waiting import eventually

FLOOD = 5000
TASK = "/api/tasks/?model_human_readable_id=nobody's"
POST = fields("POST", TASK)
MANY_STREAMS = 150

BAD_FIELDS: dict[str, list[Field]] = {
    "a path twice": [*fields(), (":path", "/metrics")],
    "a method twice": [*fields(), (":method", "POST")],
    "an authority twice": [*fields(), (":authority", "example.org")],
    "a pseudo header that is none": [*fields(), (":any", "x")],
    "a pseudo header behind others": [("x-any", "x"), *fields()],
    "no path": [field for field in fields() if field[0] != ":path"],
    "an empty path": fields(path=""),
    "another host": fields(host="example.org"),
    "a connection": fields(connection="keep-alive"),
    "an upgrade": fields(upgrade="h2c"),
    "a transfer coding": fields(transfer_encoding="chunked"),
    "another TE": fields(te="gzip"),
    "a capital": [*fields(), ("X-Any", "x")],
    "a line in a value": fields(x_any="a\r\ntransfer-encoding: chunked"),
    "NUL in a value": fields(x_any="a\0b"),
    "a colon in a name": [*fields(), ("x:any", "x")],
}


@pytest.mark.parametrize("sent", BAD_FIELDS.values(), ids=BAD_FIELDS)
def test_headers_that_are_none(door: Door, sent: list[Field]) -> None:
    """They would be others, once they are relayed as HTTP/1.1."""
    with door.opened("h2") as wire:
        wire.send(PREFACE + headers(sent))
        end = end_of(wire)
    assert (end.code, end.answered) == (ErrorCodes.PROTOCOL_ERROR, [])


BAD_LENGTHS = ["3", "30", "-5", "+5", "5_0", "5, 5", "five", "9" * 5000]


@pytest.mark.parametrize("length", BAD_LENGTHS, ids=lambda length: length[:5])
def test_a_length_that_is_not_the_bodys(door: Door, length: str) -> None:
    with door.opened("h2") as wire:
        announced = fields("POST", TASK, content_length=length)
        wire.send(PREFACE + headers(announced, ends=False) + data(b"12345", ends=True))
        end = end_of(wire)
    assert (end.code, end.answered) == (ErrorCodes.PROTOCOL_ERROR, [])


UNSERVED: dict[str, list[Field]] = {
    "CONNECT": [(":method", "CONNECT"), (":authority", "127.0.0.1:6379")],
    "a websocket": [*fields("CONNECT", "/"), (":protocol", "websocket"), ("sec-websocket-version", "13")],
    "a path of other bytes": [(name, b"/\xff\xfe" if name == ":path" else value) for name, value in fields()],
    "a method of other bytes": [(name, b"G\xc3" if name == ":method" else value) for name, value in fields()],
}


@pytest.mark.parametrize("sent", UNSERVED.values(), ids=UNSERVED)
def test_what_is_not_served_ends_its_stream(door: Door, sent: list[Field]) -> None:
    """The others of its connection go on."""
    with door.opened("h2") as wire:
        wire.send(PREFACE + headers(sent, ends=False) + headers(fields(), stream=3))
        end = end_of(wire, answered=3)
    assert (end.resets, end.answered) == ([ErrorCodes.REFUSED_STREAM], [3])


def test_a_body_that_was_refused_early_is_taken_in(door: Door) -> None:
    """What still comes of it isn't the end of the connection's other streams."""
    refused = headers(fields("GET", "/nothing"), ends=False) + data(bytes(10_000)) * 3
    with door.opened("h2") as wire:
        wire.send(PREFACE + refused)
        assert end_of(wire, answered=1).answered == [1]
        wire.send(data(bytes(10_000)) + headers(fields(), stream=3))
        assert end_of(wire, answered=3).answered == [3]


LARGE = Encoder().encode([("x-any", "a" * 20_000)])


def _continuation(content: bytes, *, is_last: bool = False) -> bytes:
    frame = ContinuationFrame(1, data=content)
    frame.flags |= {"END_HEADERS"} if is_last else set()
    return frame.serialize()


def _bomb() -> bytes:
    """A header of 4 KB, said 4,000 times in a byte each."""
    stored = Encoder().encode([*fields(), ("x-any", "a" * 4000)])
    frame = HeadersFrame(1, data=stored + bytes([0x80 | 62]) * 4000)
    frame.flags |= {"END_STREAM", "END_HEADERS"}
    return frame.serialize()


FLOODS = {
    "continuations": (headers(fields(), is_whole=False) + _continuation(b"") * FLOOD, ErrorCodes.PROTOCOL_ERROR),
    "settings": (SettingsFrame(0, settings={3: 100}).serialize() * FLOOD, ErrorCodes.ENHANCE_YOUR_CALM),
    "pings": (PingFrame(0, opaque_data=b"12345678").serialize() * FLOOD, ErrorCodes.ENHANCE_YOUR_CALM),
    "windows": (WindowUpdateFrame(0, window_increment=1).serialize() * FLOOD, ErrorCodes.ENHANCE_YOUR_CALM),
    "empty data": (headers(POST, ends=False) + data(b"") * FLOOD, ErrorCodes.ENHANCE_YOUR_CALM),
    "unknown frames": (b"\0\0\0\xfa\0\0\0\0\0" * FLOOD, ErrorCodes.ENHANCE_YOUR_CALM),
    "headers out of a table": (_bomb(), ErrorCodes.ENHANCE_YOUR_CALM),
    "a frame of 16 MiB": (b"\xff\xff\xff\0\0\0\0\0\x01" + bytes(100_000), ErrorCodes.FRAME_SIZE_ERROR),
    "headers of 100 KB": (
        headers(fields(), is_whole=False) + _continuation(LARGE) * 6 + _continuation(LARGE, is_last=True),
        ErrorCodes.ENHANCE_YOUR_CALM,
    ),
    "data for no stream": (data(b"any", stream=5), ErrorCodes.PROTOCOL_ERROR),
    "a stream of its own": (PriorityFrame(3, depends_on=3).serialize(), ErrorCodes.PROTOCOL_ERROR),
}


@pytest.mark.parametrize(("sent", "code"), FLOODS.values(), ids=FLOODS)
def test_floods_end_the_connection(door: Door, sent: bytes, code: ErrorCodes) -> None:
    with door.opened("h2") as wire:
        wire.send(PREFACE + sent)
        assert end_of(wire).code == code


ANSWERED = headers(fields())
UNREAD = headers(fields("GET", "/nothing"), ends=False)
"""Answered before all of its body has come."""

LATE_FLOODS = {
    "windows": (ANSWERED, WindowUpdateFrame(1, window_increment=1).serialize()),
    "resets": (ANSWERED, RstStreamFrame(1, error_code=8).serialize()),
    "empty data": (UNREAD, data(b"")),
    "data of a byte": (UNREAD, data(b"x")),
}


@pytest.mark.parametrize(("request_", "frame"), LATE_FLOODS.values(), ids=LATE_FLOODS)
def test_floods_for_a_stream_that_is_over(door: Door, request_: bytes, frame: bytes) -> None:
    """h2 tells nobody of most of these, and reads them all: two megabytes a second of them stood a gateway still."""
    with door.opened("h2") as wire:
        wire.send(PREFACE + request_)
        assert end_of(wire, answered=1).answered == [1]
        wire.send(frame * FLOOD)
        assert end_of(wire).code == ErrorCodes.ENHANCE_YOUR_CALM


def test_who_is_hung_up_on_is_gone(door: Door) -> None:
    """Soon, however much it sends on: TLS would read it for half a minute, to drop it."""
    with door.opened("h2") as wire:
        wire.send(PREFACE + PingFrame(0, opaque_data=b"12345678").serialize() * FLOOD)
        assert end_of(wire).code == ErrorCodes.ENHANCE_YOUR_CALM
        eventually(lambda: not wire.send(bytes(1000)), within_seconds=5)


def test_requests_that_are_given_up_at_once(door: Door) -> None:
    """Rapid reset (CVE-2023-44487): they cost us more than their client, who has only so many."""
    reset = [
        headers(fields(path="/api/models/"), stream=stream) + RstStreamFrame(stream, error_code=8).serialize()
        for stream in range(1, 2 * FLOOD, 2)
    ]
    with door.opened("h2") as wire:
        wire.send(PREFACE + b"".join(reset))
        end = end_of(wire)
    assert end.code == ErrorCodes.ENHANCE_YOUR_CALM
    assert len(end.answered) < 200


def test_requests_that_we_are_made_to_give_up(door: Door) -> None:
    """The same by a window that no stream may have (CVE-2025-8671)."""
    overflow = WindowUpdateFrame(1, window_increment=2**31 - 1)
    reset = []
    for stream in range(1, 2 * FLOOD, 2):
        overflow.stream_id = stream
        reset.append(headers(fields(path="/api/models/"), stream=stream) + overflow.serialize())
    with door.opened("h2") as wire:
        wire.send(PREFACE + b"".join(reset))
        assert end_of(wire).code == ErrorCodes.ENHANCE_YOUR_CALM


def test_a_tree_of_priorities_does_not_grow(door: Door) -> None:
    """A chain, a circle, streams that never come: requests are answered all the same."""
    chain = []
    for stream in range(3, 1000, 2):
        frame = PriorityFrame(stream, depends_on=(stream + 2) % 1001, stream_weight=1, exclusive=True)
        chain.append(frame.serialize())
    with door.opened("h2") as wire:
        wire.send(PREFACE + b"".join(chain) + headers(fields(), stream=1001))
        assert end_of(wire, answered=1001).answered == [1001]


def test_streams_at_once_have_a_bound(door: Door) -> None:
    asked = fields(path=f"/api/tasks/{'A' * 43}/status?wait=30")
    sent = b"".join(headers(asked, stream=stream, ends=False) for stream in range(1, 2 * MANY_STREAMS, 2))
    with door.opened("h2") as wire:
        wire.send(PREFACE + sent)
        assert end_of(wire).code == ErrorCodes.PROTOCOL_ERROR


def test_a_goodbye_in_the_middle_is_no_error(door: Door) -> None:
    """Of a client that asks and leaves in one breath."""
    with door.opened("h2") as wire:
        wire.send(PREFACE + headers(UNSERVED["CONNECT"]) + headers(fields(), stream=3) + GoAwayFrame(0).serialize())
        assert end_of(wire).code is None


def test_what_is_no_preface_is_hung_up_on(door: Door) -> None:
    with door.opened("h2") as wire:
        wire.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert end_of(wire).answered == []
