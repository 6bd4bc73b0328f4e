"""What the client reads of a server's events."""

from collections.abc import AsyncIterator, Sequence

from inference_client.eventstream import Message, messages

from tests.fuzz.choices import Choices
from tests.fuzz.forms import driven


def check(data: bytes) -> None:
    """However the stream is cut, the same messages."""
    choices = Choices(data)
    cuts = Choices(choices.some(20))
    stream = choices.rest()
    whole = driven(_read([stream]))
    assert driven(_read(cuts.pieces(stream))) == whole
    assert driven(_read([stream[at : at + 1] for at in range(len(stream))])) == whole


async def _read(pieces: Sequence[bytes]) -> list[Message]:
    async def coming() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return [message async for message in messages(coming())]
