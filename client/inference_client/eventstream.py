"""Server-sent events, as HTML's standard has them (9.2.6): blocks of `field: value` lines, an empty line after each."""

import codecs
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    id: str
    kind: str
    data: str


async def messages(pieces: AsyncIterator[bytes]) -> AsyncGenerator[Message, None]:
    """Comments, which keep the line alive, are left out, and so is a block that was cut off."""
    id, kind, data = "", "message", []
    async for line in _lines(pieces):
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            id = value
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif not line:
            if data:
                yield Message(id, kind, "\n".join(data))
            kind, data = "message", []


async def _lines(pieces: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """Complete ones. The server ends them with \\n or \\r\\n."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    rest = ""
    async for piece in pieces:
        *complete, rest = (rest + decoder.decode(piece)).split("\n")
        for line in complete:
            yield line.removesuffix("\r")
