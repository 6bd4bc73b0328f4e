"""The posted zip as a stream: out of a multipart form or a raw body, never as a whole."""

from collections import deque
from collections.abc import AsyncIterator
from typing import Final

from python_multipart.exceptions import FormParserError, MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from core.calls import Call
from core.contract.errors import InvalidRequest, TooLarge
from core.contract.http import TICKET_HEADER
from core.store.room import Announced

FIELD: Final = "zip_file"
RAW_TYPES: Final = (b"application/zip", b"application/x-zip-compressed", b"application/octet-stream")


def announced(call: Call) -> Announced:
    """What is known of the body before it is read. A form is a little larger than its file."""
    return Announced(size=call.content_length, ticket=call.header(TICKET_HEADER) or None)


async def posted_zip(call: Call, *, max_bytes: int) -> AsyncIterator[bytes] | None:
    """The bytes of the form's `zip_file`, or of the raw body; None when there is neither.

    Raises TooLarge before anything is read when the headers say so; what says nothing is held to it as it is stored.
    """
    if call.content_length is not None and call.content_length > max_bytes:
        raise TooLarge.over(max_bytes)
    content_type, options = parse_options_header(call.header("content-type"))
    if content_type == b"multipart/form-data":
        boundary = options.get(b"boundary")
        if not boundary:
            raise InvalidRequest("The multipart body's boundary is missing from Content-Type")
        try:
            form = _Form(boundary)
        except FormParserError as error:
            raise InvalidRequest(f"The multipart body's boundary can't be one: {error}") from error
        pieces = call.pieces()
        return form.rest(pieces) if await form.reach_file(pieces) else None
    pieces = call.pieces()
    first = await anext(pieces, b"")
    if not first and content_type not in RAW_TYPES:
        return None
    return _chained(first, pieces)


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


class _Form:
    """Feeds the parser piece by piece and keeps only what belongs to the file. The parser bounds the parts' headers."""

    def __init__(self, boundary: bytes) -> None:
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": self._add_name,
                "on_header_value": self._add_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._enter_part,
                "on_part_data": self._add_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
        )
        self._name = b""
        self._value = b""
        self._disposition = b""
        self._is_in_file = False
        self._file_found = False
        self._is_whole = False
        self._data: deque[bytes] = deque()

    async def reach_file(self, pieces: AsyncIterator[bytes]) -> bool:
        """Reads on to the file's first byte. False when the form has no such file."""
        async for piece in pieces:
            self._feed(piece)
            if self._file_found:
                return True
        self._check_whole()
        return False

    async def rest(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """The file's bytes, to the end of the form: a form that breaks off is refused."""
        while self._data:
            yield self._data.popleft()
        async for piece in pieces:
            self._feed(piece)
            while self._data:
                yield self._data.popleft()
        self._check_whole()

    def _feed(self, piece: bytes) -> None:
        try:
            self._parser.write(piece)
        except MultipartParseError as error:
            raise InvalidRequest(f"The multipart body is malformed: {error}") from error

    def _check_whole(self) -> None:
        if not self._is_whole:
            raise InvalidRequest("The multipart body breaks off before its last boundary")

    def _begin_part(self) -> None:
        self._disposition = b""

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def _enter_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") == FIELD.encode() and not self._file_found:
            self._is_in_file = self._file_found = True

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_in_file:
            self._data.append(data if end - start == len(data) else data[start:end])

    def _end_part(self) -> None:
        self._is_in_file = False

    def _end(self) -> None:
        self._is_whole = True
