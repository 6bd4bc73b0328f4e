"""What agents and gateways call at core, and the lists of them."""

from typing import Final

from core.contract.agent import Agent, AgentReport, Wanted
from core.contract.errors import (
    ContractError,
    InvalidParameters,
    InvalidRequest,
    InvalidZip,
    ModelDisabled,
    ModelNotFound,
    StoreFull,
    TaskNotFound,
    TooLarge,
    TransitionRefused,
)
from core.contract.gateway import Gateway, GatewayReport
from core.contract.http import Admission, Asked, Claim, ClaimRequest, Noted, Outcome, Staged
from core.contract.live import Said
from core.contract.parameters import AdmissionRequest
from core.contract.task import Failure
from core.openapi.operation import Answer, At, Operation

_OF_ATTEMPT: Final[tuple[type[ContractError], ...]] = (TaskNotFound, TransitionRefused, InvalidParameters)
_BODY: Final[tuple[type[ContractError], ...]] = (InvalidRequest, TooLarge)
_DONE: Final = {204: Answer(None)}

OPERATIONS: Final = (
    Operation(
        "list_agents",
        "get",
        "/api/agents/",
        "List the agents that were there within a day, their GPUs and what is wrong",
        {200: Answer(list[Agent])},
        at=At.CORE,
    ),
    Operation(
        "report_agent",
        "post",
        "/api/agents/",
        "An agent says who it is",
        {200: Answer(Wanted, "For what it may listen")},
        _BODY,
        body=AgentReport,
        at=At.CORE,
    ),
    Operation(
        "list_gateways",
        "get",
        "/api/gateways/",
        "List the gateways that were there within a day, and when their certificates expire",
        {200: Answer(list[Gateway])},
        at=At.CORE,
        tells_problems=True,
    ),
    Operation(
        "report_gateway",
        "post",
        "/api/gateways/",
        "A gateway says who it is",
        _DONE,
        _BODY,
        body=GatewayReport,
        at=At.CORE,
        tells_problems=True,
    ),
    Operation(
        "admit",
        "get",
        "/api/admission",
        "Ask for room before a large body is sent",
        {200: Answer(Admission)},
        (ModelNotFound, ModelDisabled, InvalidParameters, TooLarge, StoreFull),
        (AdmissionRequest,),
        at=At.CORE,
    ),
    Operation(
        "claim_task",
        "post",
        "/api/tasks/{uid}/claim",
        "An agent takes a pending task, under a lease",
        {200: Answer(Claim)},
        (TaskNotFound, TransitionRefused, ModelNotFound, *_BODY),
        body=ClaimRequest,
        at=At.CORE,
    ),
    Operation(
        "stage_task",
        "post",
        "/api/tasks/{uid}/stage",
        "An agent makes a pending task ready before it has a slot for it",
        {200: Answer(Staged)},
        (TaskNotFound, TransitionRefused, ModelNotFound),
        at=At.CORE,
    ),
    Operation(
        "renew_lease",
        "post",
        "/api/tasks/{uid}/attempts/{attempt}/renew",
        "An attempt is still at it",
        _DONE,
        _OF_ATTEMPT,
        (Noted,),
        at=At.CORE,
    ),
    Operation(
        "tell",
        "post",
        "/api/tasks/{uid}/attempts/{attempt}/events",
        "What an attempt's container has printed, and how far it says it is",
        _DONE,
        (TransitionRefused, *_BODY, StoreFull),
        body=Said,
        at=At.CORE,
    ),
    Operation(
        "finish_attempt",
        "post",
        "/api/tasks/{uid}/attempts/{attempt}/output",
        "An attempt delivers its output: that finishes the task",
        _DONE,
        (*_OF_ATTEMPT, InvalidZip, *_BODY, StoreFull),
        (Noted,),
        body="application/octet-stream",
        at=At.CORE,
    ),
    Operation(
        "fail_attempt",
        "post",
        "/api/tasks/{uid}/attempts/{attempt}/failure",
        "An attempt has failed: the task has, or is tried again",
        _DONE,
        (*_OF_ATTEMPT, *_BODY),
        (Noted,),
        body=Failure,
        at=At.CORE,
    ),
    Operation(
        "release_attempt",
        "post",
        "/api/tasks/{uid}/attempts/{attempt}/release",
        "An agent that is stopped hands the task back",
        _DONE,
        _OF_ATTEMPT,
        at=At.CORE,
    ),
    Operation(
        "list_outcomes",
        "post",
        "/api/tasks/outcomes",
        "What the clients who ask for these tasks' outputs are to be told",
        {200: Answer(list[Outcome])},
        _BODY,
        body=Asked,
        at=At.CORE,
    ),
    Operation(
        "hear_endings",
        "get",
        "/api/tasks/ended",
        "A line with the uid of each task that ends, as it happens; empty ones while there is none",
        {200: Answer("text/plain")},
        at=At.CORE,
    ),
)
