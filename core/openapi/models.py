"""Models: registered, listed, changed."""

from typing import Final

from pydantic import BaseModel, ConfigDict

from core.contract.errors import (
    Forbidden,
    InvalidParameters,
    ModelChanged,
    ModelExists,
    ModelHasNoZip,
    ModelNotFound,
)
from core.contract.model import ImageReference, Limits, Model, ModelSpec
from core.contract.parameters import Switch
from core.openapi.operation import DOWNLOAD, UPLOAD_ERRORS, ZIP, Answer, At, Operation, Ranges


class Revised(BaseModel):
    """As ModelSpec, without what stays."""

    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())

    container_tag: ImageReference | None = None
    description: str | None = None
    model_available: bool | None = None
    """False: without the zip that it has."""


class Wanted(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)

    zip: str | None = None
    """The id of the one that the model had when its task was claimed."""


_REVISE: Final = (
    "Make a new revision of a model: what isn't given stays as it was, and what it needs of GPUs can't change. Tasks"
    " that run keep theirs, tasks that wait get the new one"
)

OPERATIONS: Final = (
    Operation("list_models", "get", "/api/models/", "List the models", {200: Answer(list[Model])}),
    Operation(
        "register_model",
        "post",
        "/api/models/",
        "Register a model, with a zip if model_available; only if the operator allows it",
        {200: Answer(Model)},
        (Forbidden, ModelExists, *UPLOAD_ERRORS),
        (ModelSpec,),
        body=ZIP,
        at=At.GATEWAY,
    ),
    Operation(
        "register_model",
        "post",
        "/api/models/",
        "Register a model, with a zip if model_available, and say how it may run",
        {200: Answer(Model)},
        (ModelExists, *UPLOAD_ERRORS),
        (ModelSpec, Limits),
        body=ZIP,
        at=At.CORE,
    ),
    Operation(
        "show_model",
        "get",
        "/api/models/{uid}",
        "A model",
        {200: Answer(Model)},
        (ModelNotFound,),
        at=At.GATEWAY,
        tells_problems=True,
    ),
    Operation(
        "show_model",
        "get",
        "/api/models/{uid}",
        "A model",
        {200: Answer(Model)},
        (ModelNotFound,),
        at=At.CORE,
    ),
    Operation(
        "revise_model",
        "put",
        "/api/models/{uid}",
        _REVISE,
        {200: Answer(Model)},
        (ModelNotFound, ModelChanged, *UPLOAD_ERRORS),
        (Revised, Limits),
        body=ZIP,
        at=At.CORE,
        tells_problems=True,
    ),
    Operation(
        "switch_model",
        "patch",
        "/api/models/{uid}",
        "Let a model take new tasks, or not; those that wait go on",
        {200: Answer(Model)},
        (ModelNotFound, InvalidParameters),
        (Switch,),
        at=At.CORE,
        tells_problems=True,
    ),
    Operation(
        "delete_model",
        "delete",
        "/api/models/{uid}",
        "Delete a model: tasks that run go on, tasks that wait fail",
        {200: Answer(Model, "As it was")},
        (ModelNotFound,),
        at=At.CORE,
        tells_problems=True,
    ),
    Operation(
        "find_model",
        "get",
        "/api/models/human_readable_id/{human_readable_id}",
        "A model by its name",
        {200: Answer(Model)},
        (ModelNotFound,),
        at=At.CORE,
    ),
    Operation(
        "fetch_model_zip",
        "get",
        "/api/models/zips/{uid}",
        "A model's zip",
        DOWNLOAD,
        (ModelNotFound, ModelHasNoZip),
        (Wanted,),
        headers=Ranges,
        at=At.CORE,
    ),
)
