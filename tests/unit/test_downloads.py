"""A stored zip as an answer."""

from typing import Any, cast

from core.contract.task import Blob
from core.routes.downloads import answer_zip
from core.store.blobs import Blobs
from tests.unit.test_calls import Client


async def test_nothing_is_read_for_a_head_request() -> None:
    """Found by fuzzing: for a range that begins within a chunk, the chunk was."""
    unreadable = Blobs(cast(Any, None))
    client = Client(b"")
    call = client.call("HEAD", headers=[(b"range", b"bytes=5-")])
    await answer_zip(call, unreadable, Blob(id="0" * 32, size=10), filename="x.zip")
    assert client.answer[0]["status"] == 206
    assert client.body == b""
