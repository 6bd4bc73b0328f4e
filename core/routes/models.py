"""Models: registered, listed, and fetched with their zips."""

from pydantic import TypeAdapter
from quart import Response

from core.calls import Call
from core.contract.errors import ModelHasNoZip, ModelNotFound
from core.contract.model import Limits, Model, ModelSpec
from core.dispatch import Dispatch
from core.routes.downloads import answer_zip
from core.routes.parameters import parse
from core.routes.uploads import announced, posted_zip
from core.serving import App, json_response


async def register_model(call: Call, dispatch: Dispatch) -> None:
    """The gateway lets only the parameters of ModelSpec through; limits come from operators."""
    spec, limits = parse(ModelSpec, call.args), parse(Limits, call.args)
    zip = await posted_zip(call, max_bytes=dispatch.max_upload_bytes)
    model = await dispatch.add_model(spec, limits, zip, announced(call))
    await call.answer(200, model.model_dump_json().encode())


def add_routes(app: App, dispatch: Dispatch) -> None:
    @app.direct("POST", "/api/models/")
    async def add(call: Call) -> None:
        await register_model(call, dispatch)

    @app.get("/api/models/")
    async def every_model() -> Response:
        return json_response(TypeAdapter(list[Model]).dump_json(await dispatch.store.models.all()).decode())

    @app.get("/api/models/human_readable_id/<path:human_readable_id>")
    async def model_by_name(human_readable_id: str) -> Response:
        return json_response((await dispatch.model(human_readable_id)).model_dump_json())

    @app.get("/api/models/<uid>")
    async def model_by_uid(uid: str) -> Response:
        return json_response((await _model(uid)).model_dump_json())

    @app.direct("GET", "/api/models/zips/<uid>")
    async def model_zip(call: Call, uid: str) -> None:
        model = await _model(uid)
        if model.zip is None:
            raise ModelHasNoZip
        await answer_zip(call, dispatch.store.blobs, model.zip, filename=f"{uid}.zip")

    async def _model(uid: str) -> Model:
        model = await dispatch.store.models.by_uid(uid)
        if model is None:
            raise ModelNotFound
        return model
