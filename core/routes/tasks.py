"""Tasks: what clients, operators and the consumers of version 1 call."""

import json
from collections.abc import AsyncIterator
from typing import Final

from pydantic import TypeAdapter
from quart import Response, request

from core.access import asking, check_again, while_good
from core.calls import Call
from core.contract.errors import InvalidParameters
from core.contract.http import Asked, Outcome
from core.contract.parameters import Page, StatusChange, Submission
from core.contract.task import State, Task
from core.dispatch import Dispatch
from core.routes.downloads import answer_zip
from core.routes.models import register_model
from core.routes.parameters import parse, parse_body
from core.routes.status import posted_once
from core.routes.uploads import FIELD, announced, posted_zip
from core.serving import App, json_response

_OUTCOMES: Final = TypeAdapter(list[Outcome])


def add_routes(app: App, dispatch: Dispatch) -> None:
    @app.direct("POST", "/api/tasks/")
    async def submit(call: Call) -> None:
        """A zip for a model: the uid, as a bare JSON string."""
        if "container_tag" in call.args and call.caller.is_admin:
            return await register_model(call, dispatch)  # how version 1's documentation registers a model
        zip = await posted_zip(call, max_bytes=dispatch.max_upload_bytes)
        no_zip = [] if zip is not None else InvalidParameters.missing("body", FIELD).detail
        try:
            model = parse(Submission, call.args).model_human_readable_id
        except InvalidParameters as wrong:
            raise InvalidParameters([*wrong.detail, *no_zip]) from None
        if zip is None:
            raise InvalidParameters(no_zip)
        posted = posted_once(call, model)
        call.about = posted.uid
        await dispatch.submit(posted, zip, announced(call))
        await call.answer(200, json.dumps(posted.uid).encode())

    @app.get("/api/tasks/")
    async def list_tasks() -> Response:
        """The newest first."""
        page = parse(Page, request.args)
        wanted = page.is_wanted if page.filters else None
        tasks = await dispatch.store.tasks.page(offset=page.offset, limit=page.limit, wanted=wanted)
        return json_response(TypeAdapter(list[Task]).dump_json(await dispatch.explained(tasks)).decode())

    @app.put("/api/tasks/")
    async def set_status() -> Response:
        change = parse(StatusChange, request.args)
        task = await dispatch.set_status(change.uid, State.of_status(change.status))
        return json_response(task.model_dump_json())

    @app.get("/api/tasks/<uid>")
    async def show(uid: str) -> Response:
        [task] = await dispatch.explained([await dispatch.task(uid)])
        return json_response(task.model_dump_json())

    @app.delete("/api/tasks/<uid>")
    async def delete(uid: str) -> Response:
        return json_response((await dispatch.delete(uid)).model_dump_json())

    @app.direct("GET", "/api/tasks/inputs/<uid>")
    async def input_zip(call: Call, uid: str) -> None:
        await answer_zip(call, dispatch.store.blobs, await dispatch.input(uid), filename=f"{uid}-input.zip")

    @app.direct("GET", "/api/tasks/outputs/<uid>")
    async def output_zip(call: Call, uid: str) -> None:
        if seconds := call.wait_seconds:
            async with call.attended():
                await app.bells.outcome(uid, seconds, dispatch.outcome)
            await check_again(dispatch, call)
        await answer_zip(call, dispatch.store.blobs, await dispatch.output(uid), filename=f"{uid}.zip")

    @app.direct("POST", "/api/tasks/outcomes")
    async def outcomes(call: Call) -> None:
        """What the gateway's clients ask for, many at once."""
        asked = parse_body(Asked, b"".join([piece async for piece in call.pieces()]))
        callers = await asking(dispatch, call, asked)
        await call.answer(200, _OUTCOMES.dump_json(await dispatch.outcomes(asked.uids, callers)))

    @app.direct("GET", "/api/tasks/ended")
    async def ended(call: Call) -> None:
        """A line with the uid of each task that ends or is deleted, as it happens; empty ones while there is none."""
        heard = app.bells.heard()
        await anext(heard)  # or it is refused
        await call.stream(200, [("Content-Type", "text/plain")], while_good(dispatch, call.caller, _lines(heard)))

    @app.direct("POST", "/api/tasks/outputs/<uid>")
    async def post_output(call: Call, uid: str) -> None:
        """A consumer of version 1 delivers: that finishes the task."""
        zip = await posted_zip(call, max_bytes=dispatch.max_upload_bytes)
        if zip is None:
            raise InvalidParameters.missing("body", FIELD)
        task = await dispatch.finish(uid, None, zip)
        await call.answer(200, task.model_dump_json().encode())


async def _lines(words: AsyncIterator[str]) -> AsyncIterator[bytes]:
    yield b"\n"
    async for word in words:
        yield f"{word}\n".encode()
