"""Posted zips in their forms, in whatever pieces the network brings them."""

from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar, cast

from core.calls import Call
from core.contract.errors import ContractError
from core.routes.uploads import posted_zip
from tests.fuzz.choices import Choices
from tests.fuzz.refusals import check_refusal

MAX_BYTES = 1 << 20
BOUNDARIES = (b"b", b"----of-the-form", b"b" * 70)
TYPES = (
    *(b"multipart/form-data; boundary=" + boundary for boundary in BOUNDARIES),
    *(b'multipart/form-data; boundary="b"', b"multipart/form-data", b"multipart/form-data; boundary="),
    *(
        b"application/zip",
        b"application/octet-stream",
        b"text/plain",
        b"",
        b"Multipart/Form-Data; Boundary=b;charset=x",
    ),
)
HEADS = (
    b'Content-Disposition: form-data; name="zip_file"; filename="a.zip"',
    b"content-disposition:form-data;name=zip_file",
    b'Content-Disposition: form-data; name="zip_file"; filename="a\\"b.zip"\r\nContent-Type: application/zip',
    b"Content-Type: text/plain\r\nContent-Disposition: form-data; filename*=UTF-8''%e2; name=\"zip_file\"",
)
OTHER_HEADS = (
    b'Content-Disposition: form-data; name="comment"',
    b'Content-Disposition: form-data; name="Zip_File"',
    b'X-Content-Disposition: form-data; name="zip_file"',
    b"Content-Type: text/plain",
)

Result = TypeVar("Result")


class Read(Call):
    """A call whose body is there: nothing waits, so that no event loop is needed."""

    def __init__(self, content_type: bytes, pieces: Sequence[bytes]) -> None:
        scope = {"method": "POST", "path": "/", "query_string": b"", "headers": [(b"content-type", content_type)]}
        super().__init__(cast(Any, scope), cast(Any, None), cast(Any, None))
        self._pieces = pieces

    async def pieces(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if piece:
                yield piece


def check_raw(data: bytes) -> None:
    """Whatever is posted: however it is cut, there is one file in it at most. What is no form may be refused in one
    piece and lack a file in several.
    """
    choices = Choices(data)
    content_type = choices.some(60) if choices.one_in(8) else choices.pick(TYPES)
    cuts = Choices(choices.some(20))
    body = choices.rest()
    ways = ([body], cuts.pieces(body), [body[at : at + 1] for at in range(len(body))])
    assert len({found for way in ways if isinstance(found := posted(content_type, way), bytes)}) <= 1


def check_composed(data: bytes) -> None:
    """A sound form: the first file of the field's name comes out as it went in."""
    choices = Choices(data)
    boundary = choices.pick(BOUNDARIES)
    cuts = Choices(choices.some(20))
    body, expected = b"", None
    for _ in range(1 + choices.number(3)):
        is_file = not choices.one_in(3)
        content = choices.some(100).replace(boundary, b"-")
        body += (
            b"--"
            + boundary
            + b"\r\n"
            + choices.pick(HEADS if is_file else OTHER_HEADS)
            + b"\r\n\r\n"
            + content
            + b"\r\n"
        )
        expected = content if is_file and expected is None else expected
    body += b"--" + boundary + b"--" + choices.pick((b"\r\n", b"", b"\r\nepilogue"))
    assert posted(b"multipart/form-data; boundary=" + boundary, cuts.pieces(body)) == expected


def posted(content_type: bytes, pieces: Sequence[bytes]) -> bytes | type[ContractError] | None:
    """The zip, or how it is refused; None when there is none."""
    try:
        return driven(_read(Read(content_type, pieces)))
    except ContractError as refusal:
        check_refusal(refusal)
        return type(refusal)


async def _read(call: Call) -> bytes | None:
    zip = await posted_zip(call, max_bytes=MAX_BYTES)
    return None if zip is None else b"".join([piece async for piece in zip])


def driven(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """What it returns, without an event loop: it never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return cast(Result, end.value)
    raise AssertionError("it waits")
