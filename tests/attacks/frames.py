"""HTTP/2 frame by frame, as h2 would send none of them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, RstStreamFrame, SettingsFrame

from tests.attacks.wire import Wire

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
HEAD_BYTES = 9

Field = tuple[str | bytes, str | bytes]


def fields(method: str = "GET", path: str = "/healthz", **others: str) -> list[Field]:
    """Of a proper request."""
    pseudo = {":method": method, ":path": path, ":scheme": "https", ":authority": "localhost"}
    return [*pseudo.items(), *((name.replace("_", "-"), value) for name, value in others.items())]


def headers(fields: Iterable[Field], *, stream: int = 1, ends: bool = True, is_whole: bool = True) -> bytes:
    frame = HeadersFrame(stream, data=Encoder().encode(list(fields)))
    frame.flags |= {"END_STREAM"} if ends else set()
    frame.flags |= {"END_HEADERS"} if is_whole else set()
    return frame.serialize()


def data(content: bytes, *, stream: int = 1, ends: bool = False) -> bytes:
    frame = DataFrame(stream, data=content)
    frame.flags |= {"END_STREAM"} if ends else set()
    return frame.serialize()


@dataclass(frozen=True)
class End:
    """What a connection came to."""

    code: int | None
    """Why the server ended it, by its GOAWAY."""
    resets: Sequence[int]
    """Why it ended streams."""
    answered: Sequence[int]
    """Streams that got an answer, or its beginning."""


def end_of(wire: Wire, *, answered: int | None = None) -> End:
    """Of a connection that the server hangs up, or that has `answered` that stream."""
    came = []
    for frame in _frames(wire):
        came.append(frame)
        if frame.stream_id == answered and "END_STREAM" in frame.flags:
            break
    codes = [frame.error_code for frame in came if isinstance(frame, GoAwayFrame)]
    return End(
        code=codes[-1] if codes else None,
        resets=[frame.error_code for frame in came if isinstance(frame, RstStreamFrame)],
        answered=[frame.stream_id for frame in came if isinstance(frame, HeadersFrame)],
    )


def _frames(wire: Wire) -> Iterator[Frame]:
    while head := wire.exactly(HEAD_BYTES):
        frame, length = Frame.parse_frame_header(memoryview(head))
        frame.parse_body(memoryview(wire.exactly(length)))
        yield frame
