"""Tasks: posted, asked for, fetched."""

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from core.contract.errors import (
    InputGone,
    InvalidParameters,
    ModelNotFound,
    OutputGone,
    TaskFailed,
    TaskNotFinished,
    TaskNotFound,
    TransitionRefused,
)
from core.contract.parameters import Page, StatusChange, Submission
from core.contract.task import Task
from core.openapi.operation import DOWNLOAD, UPLOAD_ERRORS, ZIP, Answer, At, Operation, Ranges


class Wait(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    wait: float | None = Field(default=None, ge=0, examples=[30])
    """Answer as soon as the task has ended, or after so many seconds; 60 are the most."""


class Fetch(Ranges):
    prefer: str | None = Field(default=None, alias="Prefer", examples=["wait=30"])
    """`wait=30` is `?wait=30` (RFC 7240)."""


_NOT_THERE: Final = (TaskNotFinished, TaskFailed, OutputGone, TaskNotFound, InvalidParameters)

OPERATIONS: Final = (
    Operation(
        "submit_task",
        "post",
        "/api/tasks/",
        "Post a zip for a model; the answer is the task's uid. The parameter may also be called `human_readable_id`",
        {200: Answer(str, "The uid: to know it is to be allowed to read the task")},
        (ModelNotFound, *UPLOAD_ERRORS),
        (Submission,),
        body=ZIP,
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
        {200: Answer(Task)},
        (TaskNotFound, TransitionRefused),
        at=At.CORE,
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
