"""The posted zip out of a multipart form, wherever the network cuts its pieces."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.calls import Call
from core.contract.errors import InvalidRequest
from core.routes.uploads import posted_zip
from tests.unit.test_calls import Client

BOUNDARY = "----of-the-form"
CONTENT = b"PK\x03\x04 zip\r\n--not-the-boundary\r\n" * 3


def _part(name: str, content: bytes, *, filename: str | None = "a.zip") -> bytes:
    suffix = f'; filename="{filename}"' if filename else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{suffix}\r\n\r\n'
    return head.encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
FORM = _part("comment", b"hello", filename=None) + _part("zip_file", CONTENT) + _part("zip_file", b"second") + END


def _call(pieces: list[bytes], content_type: str | None) -> Call:
    headers = [(b"content-type", content_type.encode())] if content_type else []
    return Client(*(pieces or [b""])).call(headers=headers)


async def _read(
    pieces: list[bytes], content_type: str | None = f"multipart/form-data; boundary={BOUNDARY}"
) -> bytes | None:
    found = await posted_zip(_call(pieces, content_type), max_bytes=2**20)
    return None if found is None else b"".join([piece async for piece in found])


@given(cuts=st.lists(st.integers(min_value=0, max_value=len(FORM)), max_size=30))
async def test_any_cut_gives_the_same_file(cuts: list[int]) -> None:
    """Boundaries and headers may be split anywhere; other parts and a second file are passed over."""
    places = [0, *sorted(cuts), len(FORM)]
    pieces = [FORM[start:stop] for start, stop in pairwise(places)]
    assert await _read(pieces) == CONTENT


async def test_a_raw_body_is_the_zip() -> None:
    """With its type, or without any."""
    assert await _read([b"PK", b"zip"], "application/zip") == b"PKzip"
    assert await _read([b"PK", b"zip"], None) == b"PKzip"


@pytest.mark.parametrize("pieces", [[], [b""], [_part("other", b"x") + END]])
async def test_no_file(pieces: list[bytes]) -> None:
    """Nothing sent, or a form without the field."""
    content_type = f"multipart/form-data; boundary={BOUNDARY}" if pieces and pieces[0] else None
    assert await _read(pieces, content_type) is None


async def test_an_empty_file_is_a_file() -> None:
    """So that it is refused as an empty zip and not as missing."""
    assert await _read([_part("zip_file", b"") + END]) == b""
    assert await _read([], "application/zip") == b""


@pytest.mark.parametrize(
    "body",
    [FORM[: -len(END)], FORM[:200], b"no form at all", _part("zip_file", CONTENT)[:-10], b"--wrong\r\n\r\n" + END],
)
async def test_a_form_that_breaks_off_is_refused(body: bytes) -> None:
    """A half zip is never taken for a whole one."""
    with pytest.raises(InvalidRequest, match="multipart"):
        await _read([body])


async def test_endless_part_headers_are_refused() -> None:
    """They are held in memory, so they have a bound."""
    with pytest.raises(InvalidRequest, match="header size"):
        await _read([f"--{BOUNDARY}\r\nX: ".encode(), *([b"x" * 4096] * 8)])


async def test_a_boundary_is_needed() -> None:
    """Without it nothing can be told apart."""
    with pytest.raises(InvalidRequest, match="boundary"):
        await _read([FORM], "multipart/form-data")
