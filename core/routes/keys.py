"""API keys: made, listed, revoked, by operators."""

import structlog
from pydantic import TypeAdapter

from core.calls import Call
from core.contract.errors import KeyNotFound
from core.contract.key import KEY_ID, Key, WantedKey
from core.dispatch import Dispatch
from core.routes.parameters import parse
from core.serving import App

log = structlog.get_logger()


def add_routes(app: App, dispatch: Dispatch) -> None:
    @app.direct("POST", "/api/keys/", problems=True)
    async def make(call: Call) -> None:
        scopes = [value for name, value in call.parameters if name == "scope"]
        made = await dispatch.store.api_keys.make(
            parse(WantedKey, {**call.args, **({"scope": scopes} if scopes else {})})
        )
        call.about = made.id
        log.info("key.made", key=made.id, scopes=made.scopes, by=call.caller.key_id or call.caller.name)
        await call.answer(201, made.model_dump_json().encode())

    @app.direct("GET", "/api/keys/", problems=True)
    async def every_key(call: Call) -> None:
        found = await dispatch.store.quotas.shown(await dispatch.store.api_keys.all())
        await call.answer(200, TypeAdapter(list[Key]).dump_json(found))

    @app.direct("DELETE", "/api/keys/<id>", problems=True)
    async def revoke(call: Call, id: str) -> None:
        if not KEY_ID.fullmatch(id):
            raise KeyNotFound
        key = await dispatch.store.api_keys.revoke(id)
        await dispatch.store.quotas.forget(id)
        log.info("key.revoked", key=id, by=call.caller.key_id or call.caller.name)
        await call.answer(200, key.model_dump_json().encode())
