"""What clients say in the words of tus."""

import pytest

from core import tus
from core.contract.errors import InvalidRequest
from tests.unit.test_calls import Client


@pytest.mark.parametrize("value", ["", "-1", "1.0", " 1", "x", "\xb2", "1\n", "1" * 20, "1" * 5000])
def test_what_is_no_number_of_bytes_is_refused(value: str) -> None:
    call = Client(b"").call(headers=[(b"upload-length", value.encode("latin-1"))])
    with pytest.raises(InvalidRequest, match="Upload-Length"):
        tus.number(call, tus.LENGTH)


@pytest.mark.parametrize(("value", "number"), [("0", 0), ("007", 7), ("9" * 19, 10**19 - 1)])
def test_a_number_of_bytes(value: str, number: int) -> None:
    call = Client(b"").call(headers=[(b"upload-length", value.encode())])
    assert tus.number(call, tus.LENGTH) == number


@pytest.mark.parametrize("value", ["model Y", "model \xe4", "model /w==", "\xff \xff", "a " + "A" * 8192])
def test_metadata_that_is_no_base64_is_refused(value: str) -> None:
    """Found by fuzzing: what is no ASCII was a ValueError of another kind."""
    call = Client(b"").call(headers=[(b"upload-metadata", value.encode("latin-1"))])
    with pytest.raises(InvalidRequest, match="Upload-Metadata"):
        tus.metadata(call)
