"""Tasks: posted, asked for, fetched."""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.contract.errors import (
    AttemptNotFound,
    InputGone,
    InvalidParameters,
    ModelDisabled,
    ModelNotFound,
    OutputGone,
    TaskExists,
    TaskFailed,
    TaskNotFinished,
    TaskNotFound,
    TooManyRequests,
    TransitionRefused,
)
from core.contract.options import KEY, Options
from core.contract.parameters import Listening, Page, StatusChange, Submission, WhichAttempt
from core.contract.status import TaskStatus
from core.contract.task import Task
from core.openapi.operation import DOWNLOAD, UPLOAD_ERRORS, ZIP, Answer, At, Operation, Ranges, Secret


class Wait(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    wait: float | None = Field(default=None, ge=0, examples=[30])
    """Answer as soon as the task has ended, or after so many seconds; 60 are the most."""


class Waiting(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    prefer: str | None = Field(default=None, alias="Prefer", examples=["wait=30"])
    """`wait=30` is `?wait=30` (RFC 7240)."""


class LastEvent(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    last_event_id: str | None = Field(default=None, alias="Last-Event-ID", examples=["1795392502785-0"])
    """Of the last event that was heard."""


class Fetch(Ranges, Waiting):
    pass


class Key(Secret):
    idempotency_key: str | None = Field(
        default=None, alias="Idempotency-Key", pattern=KEY.pattern, examples=["6a1f0d7c-9c0c-4d53-8a11-9f2c6f0e7b6d"]
    )
    """Sent again with the same key it is the same task. It is as secret as the uid."""


class Event(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    event: Literal["state", "progress", "log"]
    id: str
    data: str = Field(json_schema_extra={"contentMediaType": "application/json"})
    """JSON."""


_STATUS: Final = {200: Answer(TaskStatus, "How it stands")}
_NOT_THERE: Final = (TaskNotFinished, TaskFailed, OutputGone, TaskNotFound, InvalidParameters)

OPERATIONS: Final = (
    Operation(
        "submit_task",
        "post",
        "/api/tasks/",
        "Post a zip for a model; the answer is the task's uid. The parameter may also be called `human_readable_id`",
        {200: Answer(str, "The uid: to know it is to be allowed to read the task")},
        (ModelNotFound, ModelDisabled, TaskExists, *UPLOAD_ERRORS),
        (Submission, Options),
        Key,
        body=ZIP,
    ),
    Operation(
        "put_task",
        "put",
        "/api/tasks/{uid}",
        "Post a zip under a uid of your own: sent again it is the same task. Choose 43 random ones of A-Za-z0-9_-",
        {
            200: Answer(TaskStatus, "It was there: the same zip for the same model with the same options"),
            201: Answer(TaskStatus, "It is new"),
        },
        (ModelNotFound, ModelDisabled, TaskExists, *UPLOAD_ERRORS),
        (Submission, Options),
        Secret,
        body=ZIP,
        tells_problems=True,
    ),
    Operation(
        "status",
        "get",
        "/api/tasks/{uid}/status",
        "How a task stands",
        _STATUS,
        (TaskNotFound, InvalidParameters),
        (Wait,),
        Waiting,
        tells_problems=True,
    ),
    Operation(
        "listen",
        "get",
        "/api/tasks/{uid}/events",
        "Hear what goes on with a task, as server-sent events: `state` with a TaskStatus, `progress` as in there, and"
        " `log` with `attempt` and `text`. A final state comes last. Who comes back with the id of its last event hears"
        " what came after it",
        {
            200: Answer(Event, "Events, until the task has ended", media="text/event-stream"),
            204: Answer(None, "The end was the last event: there is nothing more to come"),
        },
        (TaskNotFound,),
        (Listening,),
        LastEvent,
        tells_problems=True,
    ),
    Operation(
        "read_log",
        "get",
        "/api/tasks/{uid}/log",
        "What the container of an attempt has printed until now, as far as it is kept",
        {200: Answer("text/plain")},
        (TaskNotFound, AttemptNotFound, InvalidParameters),
        (WhichAttempt,),
        tells_problems=True,
    ),
    Operation(
        "fetch_output",
        "get",
        "/api/tasks/{uid}",
        "Fetch the output zip, or learn why there is none (yet)",
        DOWNLOAD,
        _NOT_THERE,
        (Wait,),
        Fetch,
        at=At.GATEWAY,
    ),
    Operation(
        "delete_task",
        "delete",
        "/api/tasks/{uid}",
        "Delete a task and all that belongs to it; a running one is cancelled",
        {200: Answer(Task, "As it was")},
        (TaskNotFound,),
    ),
    Operation(
        "list_tasks",
        "get",
        "/api/tasks/",
        "List tasks, the newest first",
        {200: Answer(list[Task])},
        (InvalidParameters,),
        (Page,),
        at=At.CORE,
    ),
    Operation(
        "show_task",
        "get",
        "/api/tasks/{uid}",
        "A task with all its attempts",
        {200: Answer(Task)},
        (TaskNotFound,),
        at=At.CORE,
    ),
    Operation(
        "cancel_task",
        "post",
        "/api/tasks/{uid}/cancel",
        "Cancel a task: if it runs, its container is gone within seconds",
        _STATUS,
        (TaskNotFound, TransitionRefused),
        tells_problems=True,
    ),
    Operation(
        "retry_task",
        "post",
        "/api/tasks/{uid}/retry",
        "Try a failed task again, with the same input and all its tries",
        _STATUS,
        (TaskNotFound, TransitionRefused, InputGone, TooManyRequests),
        tells_problems=True,
    ),
    Operation(
        "set_status",
        "put",
        "/api/tasks/",
        "Set a task's status, as consumers of version 1 do: -1 pending, 2 running, 1 finished, 0 failed",
        {200: Answer(Task)},
        (TaskNotFound, InvalidParameters, TransitionRefused),
        (StatusChange,),
        at=At.CORE,
    ),
    Operation(
        "fetch_input",
        "get",
        "/api/tasks/inputs/{uid}",
        "The posted zip, as long as the task may need it",
        DOWNLOAD,
        (TaskNotFound, InputGone),
        headers=Ranges,
        at=At.CORE,
    ),
    Operation(
        "fetch_output",
        "get",
        "/api/tasks/outputs/{uid}",
        "Fetch the output zip, or learn why there is none (yet), as clients do at the gateway",
        DOWNLOAD,
        _NOT_THERE,
        (Wait,),
        Fetch,
        at=At.CORE,
    ),
    Operation(
        "deliver_output",
        "post",
        "/api/tasks/outputs/{uid}",
        "Deliver an output zip, as consumers of version 1 do: that finishes the task",
        {200: Answer(Task)},
        (TaskNotFound, TransitionRefused, *UPLOAD_ERRORS),
        body=ZIP,
        at=At.CORE,
    ),
)
