"""How the service is."""

from typing import Final

from pydantic import BaseModel

from core.contract.audit import AuditEntry
from core.contract.errors import InvalidParameters
from core.contract.http import Readiness
from core.contract.overview import Overview
from core.contract.parameters import AuditPage
from core.openapi.operation import Answer, At, Operation


class Hello(BaseModel):
    message: str


class Alive(BaseModel):
    status: str


OPERATIONS: Final = (
    Operation("greet", "get", "/", "Hello world", {200: Answer(Hello, "To a browser: the page")}, is_open=True),
    Operation("health", "get", "/healthz", "Whether the process lives", {200: Answer(Alive)}, is_open=True),
    Operation(
        "readiness",
        "get",
        "/readyz",
        "Whether tasks are taken now",
        {200: Answer(Readiness, "They are"), 503: Answer(Readiness, "They are not; `missing` says why")},
        is_open=True,
    ),
    Operation(
        "overview",
        "get",
        "/api/overview",
        "The system at a glance",
        {200: Answer(Overview)},
        at=At.CORE,
        tells_problems=True,
    ),
    Operation(
        "read_audit",
        "get",
        "/api/audit/",
        "Who did what, the newest first",
        {200: Answer(list[AuditEntry])},
        (InvalidParameters,),
        (AuditPage,),
        at=At.CORE,
        tells_problems=True,
    ),
    Operation(
        "metrics",
        "get",
        "/metrics",
        "Figures for Prometheus",
        {200: Answer("text/plain")},
        at=At.CORE,
    ),
)
