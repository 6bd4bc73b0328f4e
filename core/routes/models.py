"""Models: registered, listed, and fetched with their zips."""

from pydantic import TypeAdapter
from quart import Blueprint, Response, request

from core.contract.errors import ModelHasNoZip, ModelNotFound
from core.contract.model import Limits, Model, ModelSpec
from core.dispatch import Dispatch
from core.routes.downloads import zip_response
from core.routes.parameters import parse
from core.routes.uploads import announced, posted_zip
from core.serving import json_response


async def register_model(dispatch: Dispatch) -> Response:
    """The gateway lets only the parameters of ModelSpec through; limits come from operators."""
    spec, limits = parse(ModelSpec, request.args), parse(Limits, request.args)
    zip = await posted_zip(request, max_bytes=dispatch.max_upload_bytes)
    model = await dispatch.add_model(spec, limits, zip, announced(request))
    return json_response(model.model_dump_json())


def blueprint(dispatch: Dispatch) -> Blueprint:
    routes = Blueprint("models", __name__, url_prefix="/api/models")

    @routes.post("/")
    async def add() -> Response:
        return await register_model(dispatch)

    @routes.get("/")
    async def every() -> Response:
        return json_response(TypeAdapter(list[Model]).dump_json(await dispatch.store.models.all()).decode())

    @routes.get("/human_readable_id/<path:human_readable_id>")
    async def by_name(human_readable_id: str) -> Response:
        return json_response((await dispatch.model(human_readable_id)).model_dump_json())

    @routes.get("/<uid>")
    async def by_uid(uid: str) -> Response:
        return json_response((await _model(uid)).model_dump_json())

    @routes.get("/zips/<uid>")
    async def model_zip(uid: str) -> Response:
        model = await _model(uid)
        if model.zip is None:
            raise ModelHasNoZip
        return zip_response(dispatch.store.blobs, model.zip, filename=f"{uid}.zip")

    async def _model(uid: str) -> Model:
        model = await dispatch.store.models.by_uid(uid)
        if model is None:
            raise ModelNotFound
        return model

    return routes
