"""No two readings: what another server on the way could take for something else is refused, and the connection with it.

Of what is relayed core gets another request, framed anew; a request that hides in another one's body is never answered.
"""

import pytest

from tests.attacks.wire import Door, request

HIDDEN = request("GET", "/healthz")
TASK = "/api/tasks/?model_human_readable_id=nobody's"
CHUNKED_END = b"0\r\n\r\n"

TWO_READINGS = {
    "length and chunks": ((b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400),
    "chunks and length": ((b"Transfer-Encoding: chunked", b"Content-Length: 5"), 400),
    "two lengths": ((b"Content-Length: 5", b"Content-Length: 60"), 400),
    "a list of lengths": ((b"Content-Length: 5, 60",), 400),
    "a length with a plus": ((b"Content-Length: +5",), 400),
    "a negative length": ((b"Content-Length: -5",), 400),
    "a length with a blank": ((b"Content-Length: 5 0",), 400),
    "a length in hexadecimal": ((b"Content-Length: 0x5",), 400),
    "a length with an underscore": ((b"Content-Length: 5_0",), 400),
    "a length of other digits": ((b"Content-Length: \xb2",), 400),
    "an empty length": ((b"Content-Length: ",), 400),
    "a length of 5,000 digits": ((b"Content-Length: " + b"9" * 5000,), 400),
    "a coding nobody knows": ((b"Transfer-Encoding: xchunked",), 501),
    "a coding after chunked": ((b"Transfer-Encoding: chunked, identity",), 501),
    "a coding with a parameter": ((b"Transfer-Encoding: chunked;q=1",), 501),
    "a folded coding": ((b"Transfer-Encoding: chunked", b" , identity"), 501),
    "two codings": ((b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 501),
    "a blank before the colon": ((b"Transfer-Encoding : chunked",), 400),
    "a tab in the name": ((b"Transfer\t-Encoding: chunked",), 400),
    "NUL in a value": ((b"X-Any: a\0b", b"Content-Length: 5"), 400),
    "a bare CR in a value": ((b"X-Any: a\rContent-Length: 5",), 400),
    "another host": ((b"Host: example.org",), 400),
}


@pytest.mark.parametrize(("lines", "status"), TWO_READINGS.values(), ids=TWO_READINGS)
def test_what_could_be_read_in_two_ways_is_refused(door: Door, lines: tuple[bytes, ...], status: int) -> None:
    with door.opened() as wire:
        wire.send(request("POST", TASK, *lines, body=CHUNKED_END + HIDDEN))
        assert wire.answer().status == status
        assert wire.ends()


CHUNKS = {
    "no size": b"\r\nab\r\n",
    "a negative size": b"-1\r\na\r\n",
    "a size with a prefix": b"0x1\r\na\r\n",
    "a size beyond all": b"f" * 40 + b"\r\na\r\n",
    "more than the size": b"1\r\nabc\r\n",
    "an extension without end": b"1;" + b"e" * 300_000,
    "a line feed in an extension": b"1;a\nb\r\nc\r\n",
    "trailers without end": b"0\r\n" + b"X-Any: trailer\r\n" * 30_000,
}


@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS)
def test_bad_chunks_end_the_connection(door: Door, chunk: bytes) -> None:
    """With an answer or without: what follows is never read as another request."""
    with door.opened() as wire:
        wire.send(request("POST", TASK, b"Transfer-Encoding: chunked", body=chunk + HIDDEN))
        answers = wire.rest()
    assert b"alive" not in answers
    assert not answers.startswith(b"HTTP/1.1 2")


@pytest.mark.parametrize("line", [b"Content-Length: %d" % len(HIDDEN), b"Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", [TASK, "/api/models/?container_tag=../x", "/api/uploads/", "/nothing"])
def test_a_body_that_is_refused_is_still_a_body(door: Door, path: str, line: bytes) -> None:
    """Core answers before it has read it; what stands in it isn't taken for the next request."""
    body = HIDDEN if line.startswith(b"C") else b"%x\r\n%b\r\n0\r\n\r\n" % (len(HIDDEN), HIDDEN)
    with door.opened() as wire:
        wire.send(request("POST", path, line, body=body) + request("GET", "/api/models/"))
        assert wire.answer().is_refusal
        follower = wire.answer()
        assert (follower.status, follower.headers["content-type"]) == (200, "application/json")
        assert b"alive" not in follower.body


def test_a_body_of_a_get_is_no_request(door: Door) -> None:
    with door.opened() as wire:
        length = b"Content-Length: %d" % len(HIDDEN)
        wire.send(request("GET", "/nothing", length, body=HIDDEN) + request("GET", "/nothing", b"Connection: close"))
        assert [wire.answer().status, wire.answer().status] == [404, 404]
        assert wire.ends()


VERSIONS = {
    "0.9": (b"GET /\r\n\r\n", 400),
    "2.0 without TLS's word": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "3.7": (b"GET / HTTP/3.7\r\nHost: localhost\r\n\r\n", 505),
    "another protocol": (b"EHLO localhost\r\n\r\n", 400),
    "no line": (b"\r\n" * 5000, 400),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400),
}


@pytest.mark.parametrize(("data", "status"), VERSIONS.values(), ids=VERSIONS)
def test_other_protocols_are_refused(door: Door, data: bytes, status: int) -> None:
    with door.opened() as wire:
        wire.send(data)
        assert wire.answer().status == status
        assert wire.ends()


def test_http_1_0_has_no_second_request(door: Door) -> None:
    """Its chunks would be somebody else's next request."""
    asked = request("POST", TASK, b"Connection: keep-alive", b"Transfer-Encoding: chunked", body=CHUNKED_END)
    with door.opened() as wire:
        wire.send(asked.replace(b"HTTP/1.1", b"HTTP/1.0") + HIDDEN)
        assert wire.answer().is_refusal
        assert wire.ends()
