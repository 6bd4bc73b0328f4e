"""A stored zip as an answer: streamed, with a validator, and in parts when the client asks for parts."""

from werkzeug.datastructures import Range
from werkzeug.http import parse_range_header

from core.calls import Call
from core.contract.task import Blob
from core.store.blobs import Blobs


async def answer_zip(call: Call, blobs: Blobs, blob: Blob, *, filename: str) -> None:
    """200, 206, 304 or 416 after the request's headers. A blob's id is of one content only: a strong ETag."""
    etag = f'"{blob.id}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-transform"}
    known = {tag.strip().removeprefix("W/") for tag in call.header("if-none-match").split(",")}
    if known & {etag, "*"}:
        return await call.answer(304, headers=headers.items())
    headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    start, stop, status = 0, blob.size, 200
    if (asked := call.header("range")) and call.header("if-range", etag) == etag:
        ranges = parse_range_header(asked)
        # Several ranges in one answer is a form that no client of zips needs: they get the whole.
        if ranges and ranges.units == "bytes" and len(ranges.ranges) == 1:
            found = _within(ranges, blob.size)
            if found is None:
                return await call.answer(416, headers={**headers, "Content-Range": f"bytes */{blob.size}"}.items())
            start, stop = found
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{blob.size}"
    headers |= {"Content-Type": "application/zip", "Content-Length": str(stop - start)}
    pieces = blobs.read(blob, *((start, stop) if call.method == "GET" else (0, 0)))
    await call.stream(status, headers.items(), pieces)


def _within(asked: Range, size: int) -> tuple[int, int] | None:
    """A suffix longer than the zip is all of it (RFC 9110, 14.1.2); werkzeug takes it for unsatisfiable."""
    [(start, _)] = asked.ranges
    return (0, size) if start < -size else asked.range_for_length(size)
