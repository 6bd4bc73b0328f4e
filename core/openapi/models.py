"""Models: registered and listed."""

from typing import Final

from core.contract.errors import Forbidden, ModelExists, ModelHasNoZip, ModelNotFound
from core.contract.model import Limits, Model, ModelSpec
from core.openapi.operation import DOWNLOAD, UPLOAD_ERRORS, ZIP, Answer, At, Operation, Ranges

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
        at=At.CORE,
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
        headers=Ranges,
        at=At.CORE,
    ),
)
