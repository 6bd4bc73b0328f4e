"""Headers and queries: those of tus, of ranges, of waiting, and what is asked for a task."""

import re
from collections.abc import Callable, Sequence
from typing import Any, cast

from core import tus
from core.calls import Call
from core.contract.errors import ContractError
from core.contract.http import Noted
from core.contract.parameters import AdmissionRequest, Continuation, Page, StatusChange, Submission, WhichAttempt
from core.contract.task import Blob
from core.routes.downloads import answer_zip
from core.routes.parameters import parse
from core.routes.status import options_of, posted_once
from core.routes.uploads import announced
from core.store.blobs import Blobs
from tests.fuzz.choices import Choices
from tests.fuzz.messages import LOOP
from tests.fuzz.refusals import check_refusal

NAMES = (
    *("range", "if-range", "if-none-match", "prefer", "content-length", "transfer-encoding", "content-type"),
    *("tus-resumable", "upload-offset", "upload-length", "upload-metadata"),
    *("idempotency-key", "webhook-secret", "admission-ticket"),
)
VALUES = (
    *(b"1.0.0", b"bytes=0-0", b"bytes=-1", b"bytes=5-", b"bytes=0-1,2-3", b'"blob"', b'W/"blob"', b"*", b"wait=5"),
    *(b"application/offset+octet-stream", b"model YQ==", b"a,b", b"0", b"-1", b"9" * 30, b"1e9", b"chunked"),
)
QUERIES = (Submission, AdmissionRequest, Continuation, Page, StatusChange, WhichAttempt, Noted)
ID = "0" * 32
BLOBS = Blobs(cast(Any, None))
"""Nothing is fetched: it is asked by HEAD."""


def check(data: bytes) -> None:
    """Each reader of headers gives a value or a refusal; the zip is answered with ranges that are within it."""
    choices = Choices(data)
    headers = [(choices.pick(NAMES).encode(), _value(choices)) for _ in range(choices.number(4))]
    blob = Blob(id=ID, size=choices.pick((1, 5, 2**20, 2**63)))
    asked = Asked(choices.rest(), headers)
    readers: Sequence[Callable[[Call], object]] = (
        tus.meet,
        tus.check_type,
        tus.metadata,
        lambda call: tus.number(call, tus.OFFSET),
        lambda call: call.wait_seconds,
        announced,
        options_of,
        lambda call: posted_once(call, "model"),
        *(lambda call, kind=kind: parse(kind, call.args) for kind in QUERIES),
    )
    for read in readers:
        try:
            read(asked)
        except ContractError as refusal:
            check_refusal(refusal)
    LOOP.run_until_complete(answer_zip(asked, BLOBS, blob, filename="x.zip"))
    asked.check_answer(blob.size)


def _value(choices: Choices) -> bytes:
    return choices.some(60) if choices.one_in(2) else choices.pick(VALUES)


async def _leave() -> dict[str, str]:
    return {"type": "http.disconnect"}


class Asked(Call):
    """A HEAD request of this query, and what it is answered."""

    def __init__(self, query: bytes, headers: Sequence[tuple[bytes, bytes]]) -> None:
        scope = {"method": "HEAD", "path": "/", "query_string": query, "headers": headers}
        super().__init__(cast(Any, scope), cast(Any, _leave), cast(Any, self._take))
        self._taken: list[dict[str, Any]] = []

    async def _take(self, message: dict[str, Any]) -> None:
        self._taken.append(message)

    def check_answer(self, size: int) -> None:
        [start, end] = self._taken
        assert not end["body"]
        answered = {name.decode(): value.decode() for name, value in start["headers"]}
        if start["status"] == 206:
            found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answered["content-range"])
            assert found, answered
            first, last, whole = map(int, found.groups())
            assert 0 <= first <= last < whole == size
            assert int(answered["content-length"]) == last - first + 1
        elif start["status"] == 416:
            assert answered["content-range"] == f"bytes */{size}"
        else:
            assert start["status"] in (200, 304)
