"""A stored zip as an answer: streamed, with a validator, and in parts when the client asks for parts."""

from collections.abc import AsyncIterator

from quart import Response, request
from werkzeug.datastructures import Range
from werkzeug.http import parse_range_header

from core.contract.errors import OutputGone
from core.contract.task import Blob
from core.store.blobs import Blobs


def zip_response(blobs: Blobs, blob: Blob, *, filename: str) -> Response:
    """200, 206, 304 or 416 after the request's headers. A blob's id is of one content only: a strong ETag."""
    etag = f'"{blob.id}"'
    headers = {"ETag": etag, "Accept-Ranges": "bytes", "Cache-Control": "private, no-transform"}
    known = {tag.strip().removeprefix("W/") for tag in request.headers.get("If-None-Match", "").split(",")}
    if known & {etag, "*"}:
        return Response("", 304, headers)
    headers["Content-Disposition"] = f'attachment; filename="{filename}"'
    start, stop, status = 0, blob.size, 200
    if (asked := request.headers.get("Range")) and request.headers.get("If-Range", etag) == etag:
        ranges = parse_range_header(asked)
        # Several ranges in one answer is a form that no client of zips needs: they get the whole.
        if ranges and ranges.units == "bytes" and len(ranges.ranges) == 1:
            found = _within(ranges, blob.size)
            if found is None:
                return Response("", 416, headers | {"Content-Range": f"bytes */{blob.size}"})
            start, stop = found
            status = 206
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{blob.size}"
    body = _body(blobs, blob, start, stop) if request.method == "GET" else b""
    response = Response(body, status, headers, content_type="application/zip")
    response.headers["Content-Length"] = str(stop - start)  # Quart would take the empty body's for HEAD
    return response


def _within(asked: Range, size: int) -> tuple[int, int] | None:
    """A suffix longer than the zip is all of it (RFC 9110, 14.1.2); werkzeug takes it for unsatisfiable."""
    [(start, _)] = asked.ranges
    return (0, size) if start < -size else asked.range_for_length(size)


async def _body(blobs: Blobs, blob: Blob, start: int, stop: int) -> AsyncIterator[bytes]:
    """A blob that vanishes half-way ends the connection: the client sees that bytes are missing."""
    try:
        async for piece in blobs.read(blob, start, stop):
            yield piece
    except OutputGone as error:
        raise ConnectionAbortedError("the zip was removed while it was read") from error
