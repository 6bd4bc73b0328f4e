"""Tasks: what clients, operators and the consumers of version 1 call."""

import json

from pydantic import AliasChoices, BaseModel, Field, TypeAdapter, field_validator
from quart import Blueprint, Response, request

from core.contract.errors import InvalidParameters
from core.contract.task import State, Task
from core.dispatch import Dispatch
from core.routes.downloads import zip_response
from core.routes.models import register_model
from core.routes.parameters import parse
from core.routes.uploads import FIELD, announced, posted_zip
from core.serving import json_response


class Submission(BaseModel):
    """Version 1 documents both names."""

    model_human_readable_id: str = Field(
        validation_alias=AliasChoices("model_human_readable_id", "human_readable_id"),
    )


class StatusChange(BaseModel):
    uid: str
    status: int

    @field_validator("status")
    @classmethod
    def _exists(cls, status: int) -> int:
        State.of_status(status)
        return status


class Page(BaseModel):
    offset: int = Field(default=0, ge=0)
    limit: int = Field(default=1000, ge=1, le=10_000)


def blueprint(dispatch: Dispatch) -> Blueprint:
    routes = Blueprint("tasks", __name__, url_prefix="/api/tasks")

    @routes.post("/")
    async def submit() -> Response:
        """A zip for a model: the uid, as a bare JSON string."""
        if "container_tag" in request.args:
            return await register_model(dispatch)  # how version 1's documentation registers a model
        zip = await posted_zip(request, max_bytes=dispatch.max_upload_bytes)
        no_zip = [] if zip is not None else InvalidParameters.missing("body", FIELD).detail
        try:
            model = parse(Submission, request.args).model_human_readable_id
        except InvalidParameters as wrong:
            raise InvalidParameters([*wrong.detail, *no_zip]) from None
        if zip is None:
            raise InvalidParameters(no_zip)
        return json_response(json.dumps(await dispatch.submit(model, zip, announced(request))))

    @routes.get("/")
    async def page() -> Response:
        """The newest first."""
        wanted = parse(Page, request.args)
        tasks = await dispatch.store.tasks.page(offset=wanted.offset, limit=wanted.limit)
        return json_response(TypeAdapter(list[Task]).dump_json(await dispatch.explained(tasks)).decode())

    @routes.put("/")
    async def set_status() -> Response:
        change = parse(StatusChange, request.args)
        task = await dispatch.set_status(change.uid, State.of_status(change.status))
        return json_response(task.model_dump_json())

    @routes.get("/<uid>")
    async def show(uid: str) -> Response:
        [task] = await dispatch.explained([await dispatch.task(uid)])
        return json_response(task.model_dump_json())

    @routes.delete("/<uid>")
    async def delete(uid: str) -> Response:
        return json_response((await dispatch.delete(uid)).model_dump_json())

    @routes.post("/<uid>/cancel")
    async def cancel(uid: str) -> Response:
        return json_response((await dispatch.cancel(uid)).model_dump_json())

    @routes.get("/inputs/<uid>")
    async def input_zip(uid: str) -> Response:
        blob = await dispatch.input(uid)
        return zip_response(dispatch.store.blobs, blob, filename=f"{uid}-input.zip")

    @routes.get("/outputs/<uid>")
    async def output_zip(uid: str) -> Response:
        blob = await dispatch.output(uid)
        return zip_response(dispatch.store.blobs, blob, filename=f"{uid}.zip")

    @routes.post("/outputs/<uid>")
    async def post_output(uid: str) -> Response:
        """A consumer of version 1 delivers: that finishes the task."""
        zip = await posted_zip(request, max_bytes=dispatch.max_upload_bytes)
        if zip is None:
            raise InvalidParameters.missing("body", FIELD)
        return json_response((await dispatch.finish(uid, None, zip)).model_dump_json())

    return routes
