"""Models: registered, listed, and fetched with their zips."""

from pydantic import TypeAdapter
from quart import Response

from core.calls import Call
from core.contract.audit import Action
from core.contract.errors import ModelHasNoZip, ModelNotFound
from core.contract.model import Limits, Model, ModelSpec
from core.contract.parameters import Switch
from core.dispatch import Dispatch
from core.registry import Registry
from core.routes.downloads import answer_zip
from core.routes.parameters import parse
from core.routes.uploads import announced, posted_zip
from core.serving import App, json_response


async def register_model(call: Call, dispatch: Dispatch) -> None:
    """Limits and privileges come from operators: of others' calls they don't count."""
    spec, limits = parse(ModelSpec, call.args), parse(Limits, call.args if call.caller.is_admin else {})
    zip = await posted_zip(call, max_bytes=dispatch.max_upload_bytes)
    call.did = Action.MODEL_ADDED
    model = await dispatch.add_model(spec, limits, zip, announced(call))
    call.about = model.uid
    await call.answer(200, model.model_dump_json().encode())


def add_routes(app: App, dispatch: Dispatch) -> None:
    registry = Registry(dispatch)

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

    @app.direct("PUT", "/api/models/<uid>", problems=True)
    async def revise(call: Call, uid: str) -> None:
        """What isn't given stays as it was."""
        seen = await registry.seen(uid)
        values = {**seen.model.model_dump(), **call.args}
        zip = await posted_zip(call, max_bytes=dispatch.max_upload_bytes)
        if zip is not None:
            values["model_available"] = call.args.get("model_available", True)
        spec, limits = parse(ModelSpec, values), parse(Limits, values)
        model = await registry.revise(seen, spec, limits, zip, announced(call))
        await call.answer(200, model.model_dump_json().encode())

    @app.direct("PATCH", "/api/models/<uid>", problems=True)
    async def switch(call: Call, uid: str) -> None:
        model = await registry.enable(uid, enabled=parse(Switch, call.args).enabled)
        await call.answer(200, model.model_dump_json().encode())

    @app.direct("DELETE", "/api/models/<uid>", problems=True)
    async def delete(call: Call, uid: str) -> None:
        await call.answer(200, (await registry.delete(uid)).model_dump_json().encode())

    @app.direct("GET", "/api/models/zips/<uid>")
    async def model_zip(call: Call, uid: str) -> None:
        """Agents name the one that they want: the model's may be another one by now."""
        named = call.args.get("zip")
        zip = await dispatch.store.blobs.owned(named, uid) if named else (await _model(uid)).zip
        if zip is None:
            raise ModelHasNoZip
        await answer_zip(call, dispatch.store.blobs, zip, filename=f"{uid}.zip")

    async def _model(uid: str) -> Model:
        model = await dispatch.store.models.by_uid(uid)
        if model is None:
            raise ModelNotFound
        return model
