"""Server-sent events as the client reads them."""

from collections.abc import AsyncIterator
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from inference_client.blocking import run
from inference_client.eventstream import Message, messages

STREAM = (
    ": a comment\n\n"
    'event: state\nid: 1-0\ndata: {"état": 1}\n\n'
    "data:two\r\ndata: lines\r\n\r\n"
    "event: none\n\n"
    "id\ndata: x:y\n\n"
    "event: log\ndata: cut off"
).encode()
MESSAGES = [
    Message("1-0", "state", '{"état": 1}'),
    Message("1-0", "message", "two\nlines"),
    Message("", "message", "x:y"),
]


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_pieces_may_end_anywhere(cuts: list[int]) -> None:
    """In the middle of a line, of a line's end, of a character. An id holds until there is another."""
    bounds = [0, *sorted(cuts), len(STREAM)]

    async def pieces() -> AsyncIterator[bytes]:
        for start, end in pairwise(bounds):
            yield STREAM[start:end]

    async def read() -> list[Message]:
        return [message async for message in messages(pieces())]

    assert run(read()) == MESSAGES
