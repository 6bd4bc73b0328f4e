"""The API as an OpenAPI 3.1 document, and a page to try it on, from local files: it needs no internet."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from quart import Quart, Response, send_from_directory

from core.contract.agent import Agent
from core.contract.errors import (
    ContractError,
    Forbidden,
    InputGone,
    InvalidParameters,
    InvalidZip,
    ModelExists,
    ModelHasNoZip,
    ModelNotFound,
    OutputGone,
    StoreFull,
    TaskFailed,
    TaskNotFinished,
    TaskNotFound,
    TooLarge,
    TransitionRefused,
    Unavailable,
)
from core.contract.http import STATUS, ErrorBody
from core.contract.model import Limits, Model, ModelSpec
from core.contract.task import Task

ZIP: Final = "application/zip"
JSON: Final = "application/json"
_SWAGGER_UI: Final = resources.files("flask_swagger_ui").joinpath("dist")
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<link rel="stylesheet" href="/docs/swagger-ui.css"></head>
<body><div id="swagger-ui"></div><script src="/docs/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({{url: "/openapi.json", dom_id: "#swagger-ui"}})</script></body></html>
"""


@dataclass(frozen=True)
class Operation:
    """One call: what it takes and what it may answer."""

    method: str
    path: str
    summary: str
    answers: str | type[BaseModel] | None = None
    """200's content: a media type, a model, or None for a JSON string."""
    answers_list: bool = False
    errors: tuple[type[ContractError], ...] = ()
    query: tuple[tuple[str, bool], ...] = ()
    """Names of parameters, and whether each is required."""
    takes_zip: bool = False


def _parameters(kind: type[BaseModel]) -> tuple[tuple[str, bool], ...]:
    return tuple((name, field.is_required()) for name, field in kind.model_fields.items())


UPLOAD_ERRORS: Final = (InvalidZip, InvalidParameters, TooLarge, StoreFull, Unavailable)
PUBLIC: Final = (
    Operation(
        "post",
        "/api/tasks/",
        "Post a zip for a model; the answer is the task's uid, as a JSON string",
        errors=(ModelNotFound, *UPLOAD_ERRORS),
        query=(("model_human_readable_id", True),),
        takes_zip=True,
    ),
    Operation(
        "get",
        "/api/tasks/{uid}",
        "Fetch the output zip, or learn why there is none (yet); with `wait` as soon as the task has ended, or after so"
        " many seconds",
        answers=ZIP,
        errors=(TaskNotFinished, TaskFailed, OutputGone, TaskNotFound, InvalidParameters, Unavailable),
        query=(("wait", False),),
    ),
    Operation(
        "delete",
        "/api/tasks/{uid}",
        "Delete a task and all that belongs to it; a running one is cancelled",
        answers=Task,
        errors=(TaskNotFound, Unavailable),
    ),
    Operation("get", "/api/models/", "List the models", answers=Model, answers_list=True, errors=(Unavailable,)),
    Operation(
        "post",
        "/api/models/",
        "Register a model, with a zip if model_available; only if the operator allows it",
        answers=Model,
        errors=(Forbidden, ModelExists, *UPLOAD_ERRORS),
        query=_parameters(ModelSpec),
        takes_zip=True,
    ),
)
_UID_ERRORS: Final = (TaskNotFound, Unavailable)
_OTHERWISE: Final = {("get", "/api/tasks/{uid}"), ("post", "/api/models/")}
PRIVATE: Final = (
    *(operation for operation in PUBLIC if (operation.method, operation.path) not in _OTHERWISE),
    Operation(
        "post",
        "/api/models/",
        "Register a model, with a zip if model_available, and say how it may run",
        answers=Model,
        errors=(ModelExists, *UPLOAD_ERRORS),
        query=(*_parameters(ModelSpec), *_parameters(Limits)),
        takes_zip=True,
    ),
    Operation("get", "/api/tasks/", "List tasks, the newest first", answers=Task, answers_list=True),
    Operation("get", "/api/tasks/{uid}", "A task", answers=Task, errors=_UID_ERRORS),
    Operation(
        "put",
        "/api/tasks/",
        "Set a task's status, as consumers of version 1 do: -1 pending, 2 running, 1 finished, 0 failed",
        answers=Task,
        errors=(*_UID_ERRORS, InvalidParameters, TransitionRefused),
        query=(("uid", True), ("status", True)),
    ),
    Operation("get", "/api/tasks/inputs/{uid}", "The posted zip", answers=ZIP, errors=(*_UID_ERRORS, InputGone)),
    Operation(
        "get",
        "/api/tasks/outputs/{uid}",
        "The output zip, or why there is none (yet); `wait` as at the gateway",
        answers=ZIP,
        errors=(TaskNotFinished, TaskFailed, OutputGone, InvalidParameters, *_UID_ERRORS),
        query=(("wait", False),),
    ),
    Operation(
        "post",
        "/api/tasks/outputs/{uid}",
        "Deliver an output zip, as consumers of version 1 do: that finishes the task",
        answers=Task,
        errors=(*_UID_ERRORS, InvalidParameters, TransitionRefused, TooLarge),
        takes_zip=True,
    ),
    Operation("get", "/api/agents/", "List the agents, their GPUs and problems", answers=Agent, answers_list=True),
    Operation("get", "/api/models/{uid}", "A model", answers=Model, errors=(ModelNotFound,)),
    Operation("get", "/api/models/zips/{uid}", "A model's zip", answers=ZIP, errors=(ModelNotFound, ModelHasNoZip)),
)


def document(title: str, operations: Iterable[Operation]) -> dict[str, Any]:
    """An OpenAPI 3.1 document as a plain structure."""
    _, schemas = models_json_schema(
        [(kind, "serialization") for kind in (Task, Model, Agent, ErrorBody)],
        ref_template="#/components/schemas/{model}",
    )
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "2"},
        "paths": paths,
        "components": {"schemas": schemas["$defs"]},
    }


def _described(operation: Operation) -> dict[str, Any]:
    parameters = [
        {"name": name, "in": "query", "required": required, "schema": {"type": "string"}}
        for name, required in operation.query
    ]
    if "{uid}" in operation.path:
        parameters.append({"name": "uid", "in": "path", "required": True, "schema": {"type": "string"}})
    responses = {"200": {"description": "OK", "content": _content(operation.answers, as_list=operation.answers_list)}}
    for kind in operation.errors:
        responses[str(int(STATUS[kind]))] = {"description": kind.__name__, "content": _content(ErrorBody)}
    described: dict[str, Any] = {
        "summary": operation.summary,
        "parameters": parameters,
        "responses": responses,
    }
    if operation.takes_zip:
        binary = {"type": "string", "format": "binary"}
        form = {"type": "object", "properties": {"zip_file": binary}}
        described["requestBody"] = {"content": {"multipart/form-data": {"schema": form}, ZIP: {"schema": binary}}}
    return described


def _content(answers: str | type[BaseModel] | None, *, as_list: bool = False) -> dict[str, Any]:
    if answers is None:
        return {JSON: {"schema": {"type": "string"}}}
    if isinstance(answers, str):
        return {answers: {"schema": {"type": "string", "format": "binary"}}}
    schema: dict[str, Any] = {"$ref": f"#/components/schemas/{answers.__name__}"}
    return {JSON: {"schema": {"type": "array", "items": schema} if as_list else schema}}


def add_docs(app: Quart, title: str, operations: Iterable[Operation]) -> None:
    """`/openapi.json`, and `/docs` with Swagger UI."""
    described = document(title, operations)

    @app.get("/openapi.json")
    async def openapi() -> dict[str, Any]:
        return described

    @app.get("/docs")
    async def page() -> Response:
        return Response(_PAGE.format(title=title), content_type="text/html; charset=utf-8")

    @app.get("/docs/<name>")
    async def file(name: str) -> Response:
        return await send_from_directory(str(_SWAGGER_UI), name)
