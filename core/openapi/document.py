"""The operations of one of the services as an OpenAPI 3.1 document."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import JsonSchemaMode

from core.contract import VERSION
from core.contract.errors import (
    ContractError,
    Forbidden,
    InvalidParameters,
    InvalidRequest,
    InvalidZip,
    KeyRefused,
    OutputGone,
    TaskFailed,
    TaskNotFinished,
    TaskNotFound,
    TooLarge,
    TypeUnknown,
    Unauthorized,
    Unavailable,
    UploadElsewhere,
    VersionUnknown,
)
from core.contract.http import RETRY_AFTER_SECONDS, STANDARD, STATUS, Problem
from core.contract.task import UID
from core.openapi import agents, keys, models, service, tasks, uploads
from core.openapi.operation import JSON, ZIP, Answer, At, Operation

OPERATIONS: Final[Mapping[str, Sequence[Operation]]] = {
    "Tasks": tasks.OPERATIONS,
    "Uploads": uploads.OPERATIONS,
    "Models": models.OPERATIONS,
    "Keys": keys.OPERATIONS,
    "Agents": agents.OPERATIONS,
    "Service": service.OPERATIONS,
}

PROBLEM: Final = "application/problem+json"

_REFERENCE: Final = "#/components/schemas/{model}"
_TAKEN: Final = "-Input"
"""Marks what may leave out what has a default; what is answered never does."""

_BYTES: Final = {"type": "string", "format": "binary"}
_PARTS: Final = {
    "uid": {"type": "string", "pattern": f"^{UID.pattern}$"},
    "human_readable_id": {"type": "string", "minLength": 1, "maxLength": 256},
    "attempt": {"type": "integer", "minimum": 0},
    "id": {"type": "string", "pattern": "^[0-9a-f]{12}$"},
}
"""What stands in paths."""


class Refusal(BaseModel):
    """Why a call of version 1 was refused, in a sentence."""

    detail: str


class Fault(BaseModel):
    """What is wrong with a parameter or the file, as FastAPI says it."""

    loc: list[str]
    msg: str
    type: str


class Faults(BaseModel):
    detail: list[Fault]


class WhyNot(BaseModel):
    detail: str
    reason: str | None = None
    message: str | None = None
    exit_code: int | None = None


class NoOutput(BaseModel):
    """Why there is no output, as version 1 said it; of a failed task also why."""

    detail: WhyNot


_BODIES: Final[Mapping[type[ContractError], type[BaseModel]]] = {
    InvalidParameters: Faults,
    TaskNotFinished: NoOutput,
    TaskFailed: NoOutput,
    OutputGone: NoOutput,
    TaskNotFound: NoOutput,
}
"""Of version 1's calls; of other errors it is Refusal."""

_EXAMPLES: Final[Mapping[type[ContractError], ContractError]] = {
    type(error): error
    for error in (
        InvalidZip("The zip is encrypted"),
        InvalidRequest("The multipart body breaks off before its last boundary"),
        InvalidParameters.wrong("query", "wait", "a number of seconds, 0 or more"),
        TaskFailed.because(reason="exit_nonzero", message="The model's container exited with 1", exit_code=1),
        TooLarge.over(17_179_869_184),
        UploadElsewhere.at(1_048_512),
        VersionUnknown("Send 'Tus-Resumable: 1.0.0': no other version of tus is spoken here"),
        TypeUnknown("The bytes of an upload must come as 'application/offset+octet-stream'"),
    )
}
"""Of those errors that don't always say the same."""


_DESCRIPTION: Final = (
    "Each answer has an `X-Request-ID`: the one that the request came with, if it is 1 to 128 letters, digits, `.`, `_`"
    " and `-`, else a new one. All logs have it."
)


def document(title: str, at: At) -> dict[str, Any]:
    """As a plain structure."""
    schemas = _Schemas()
    paths: dict[str, dict[str, Any]] = {}
    used = []
    for tag, operations in OPERATIONS.items():
        offered = [operation for operation in operations if at in operation.at]
        used += [tag] if offered else []
        for operation in offered:
            described = _described(operation, at, schemas)
            paths.setdefault(operation.path, {})[operation.method] = {"tags": [tag], **described}
    scheme = {"type": "http", "scheme": "bearer"}
    security = (
        {"token": {**scheme, "description": "Core's token, or an admin's API key"}}
        if at is At.CORE
        else {"key": {**scheme, "description": "An API key, where the operator requires one"}}
    )
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": VERSION, "description": _DESCRIPTION},
        "tags": [{"name": tag} for tag in used],
        "paths": paths,
        "components": {"schemas": schemas.defined(), "securitySchemes": security},
    }


class _Schemas:
    """Each type once, under its name."""

    def __init__(self) -> None:
        self._definitions: dict[str, Any] = {}

    def of(self, kind: Any, mode: JsonSchemaMode = "serialization") -> dict[str, Any]:
        suffix = _TAKEN if mode == "validation" else ""
        schema = TypeAdapter(kind).json_schema(mode=mode, ref_template=_REFERENCE + suffix)
        for name, defined in schema.pop("$defs", {}).items():
            self._define(name + suffix, defined)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return self._define(kind.__name__ + suffix, schema)
        return schema

    def _define(self, name: str, schema: dict[str, Any]) -> dict[str, Any]:
        if self._definitions.setdefault(name, schema) != schema:
            raise ValueError(f"two types are called {name}")
        return {"$ref": _REFERENCE.format(model=name)}

    def defined(self) -> dict[str, Any]:
        return dict(sorted(self._definitions.items()))


def _described(operation: Operation, at: At, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {"operationId": operation.name, "summary": operation.summary}
    parameters = [
        *({"name": name, "in": "path", "required": True, "schema": _PARTS[name]} for name in _names(operation.path)),
        *(parameter for kind in operation.query for parameter in _parameters("query", kind)),
        *(_parameters("header", operation.headers) if operation.headers else ()),
    ]
    if parameters:
        described["parameters"] = parameters
    if operation.body:
        described["requestBody"] = {"content": _body(operation.body, schemas)}
    errors = list(operation.errors)
    if not operation.is_open:
        errors += [Unavailable]
        errors += [Unauthorized] if at is At.CORE else [KeyRefused, Forbidden]
        described["security"] = [{"token": []}] if at is At.CORE else [{"key": []}, {}]
    described["responses"] = {
        **{str(status): _answer(answer, schemas) for status, answer in operation.answers.items()},
        **_refusals(dict.fromkeys(errors), schemas, as_problems=operation.tells_problems),
    }
    if operation.query:
        described["responses"]["431"] = {"description": "The query and the headers are longer than 64 KiB together"}
    if "{attempt}" in operation.path:
        content = {JSON: {"schema": schemas.of(Refusal)}}
        described["responses"]["404"] = {"description": "An attempt has a number", "content": content}
    return described


def _names(path: str) -> list[str]:
    return re.findall(r"{(\w+)}", path)


def _parameters(where: str, kind: type[BaseModel]) -> list[dict[str, Any]]:
    schema = TypeAdapter(kind).json_schema(mode="validation", ref_template="{model}")
    required = schema.get("required", ())
    found = []
    for name, about in schema["properties"].items():
        spread = _spread(about, schema.get("$defs", {}))
        description = spread.pop("description", "")
        parameter = {"name": name, "in": where, "required": name in required, "schema": spread}
        found.append(parameter | ({"description": description} if description else {}))
    return found


def _spread(about: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter's schema on its own; to leave it out is what None is in Python."""
    about = dict(about) | dict(definitions.get(about.get("$ref", ""), {}))
    choices = [choice for choice in about.pop("anyOf", []) if choice != {"type": "null"}]
    if about.get("default", ...) is None:
        del about["default"]
    for choice in choices[:1]:
        about |= _spread(choice, definitions)
    return {name: value for name, value in about.items() if name not in ("$ref", "title")}


def _body(body: type[BaseModel] | str, schemas: _Schemas) -> dict[str, Any]:
    if body == ZIP:
        form = {"type": "object", "properties": {"zip_file": _BYTES}}
        encoding = {"zip_file": {"contentType": ZIP}}
        return {"multipart/form-data": {"schema": form, "encoding": encoding}, ZIP: {"schema": _BYTES}}
    if isinstance(body, str):
        return {body: {"schema": _BYTES}}
    return {JSON: {"schema": schemas.of(body, "validation")}}


def _answer(answer: Answer, schemas: _Schemas) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.says}
    if answer.headers:
        described["headers"] = _headers(answer.headers)
    if isinstance(answer.content, str):
        described["content"] = {answer.content: {"schema": _BYTES if answer.content == ZIP else {"type": "string"}}}
    elif answer.content is not None:
        described["content"] = {answer.media: {"schema": schemas.of(answer.content)}}
    return described


def _headers(headers: Mapping[str, str]) -> dict[str, Any]:
    return {name: {"description": says, "schema": {"type": "string"}} for name, says in headers.items()}


def _refusals(errors: Iterable[type[ContractError]], schemas: _Schemas, *, as_problems: bool) -> dict[str, Any]:
    """By status, under which several errors may stand."""
    table = STANDARD if as_problems else STATUS
    by_status: dict[int, list[type[ContractError]]] = {}
    for error in errors:
        by_status.setdefault(int(table[error]), []).append(error)
    refusals = {}
    for status, kinds in by_status.items():
        bodies = [Problem] if as_problems else list(dict.fromkeys(_BODIES.get(kind, Refusal) for kind in kinds))
        choices = [schemas.of(body) for body in bodies]
        told = [_EXAMPLES.get(kind) or kind() for kind in kinds]
        content = {
            "schema": choices[0] if len(choices) == 1 else {"anyOf": choices},
            "examples": {
                type(error).__name__: {
                    "value": Problem.of(error).model_dump(exclude_none=True)
                    if as_problems
                    else {"detail": error.detail}
                }
                for error in told
            },
        }
        says: dict[str, str] = {}
        if any(kind in RETRY_AFTER_SECONDS for kind in kinds):
            says["Retry-After"] = "Seconds"
        if {Unauthorized, KeyRefused} & set(kinds):
            says["WWW-Authenticate"] = "Basic and Bearer"
        refusals[str(status)] = {
            "description": " or ".join(kind.__name__ for kind in kinds),
            **({"headers": _headers(says)} if says else {}),
            "content": {PROBLEM if as_problems else JSON: content},
        }
    return refusals
