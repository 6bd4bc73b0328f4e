"""Queries and bodies as our types; what is wrong with a query in FastAPI's shape, as version 1 answered."""

from collections.abc import Mapping
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from core.contract.errors import InvalidParameters, InvalidRequest

Parameters = TypeVar("Parameters", bound=BaseModel)
Body = TypeVar("Body", bound=BaseModel)


def parse(kind: type[Parameters], values: Mapping[str, object]) -> Parameters:
    """Unknown parameters are ignored. Raises InvalidParameters naming each that is missing or wrong."""
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise InvalidParameters(
            [
                {"loc": ["query", *fault["loc"]], "msg": "field required", "type": "value_error.missing"}
                if fault["type"] == "missing"
                else {"loc": ["query", *fault["loc"]], "msg": fault["msg"], "type": f"value_error.{fault['type']}"}
                for fault in error.errors()
            ]
        ) from error


def parse_body(kind: type[Body], body: str | bytes) -> Body:
    """Raises InvalidRequest."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise InvalidRequest(f"The body is not a {kind.__name__}: {error}") from error
