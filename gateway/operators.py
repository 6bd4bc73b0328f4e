"""What operators may call through a gateway that allows them: with an admin's key, for which core opens itself."""

import re
from typing import Final

from core.calls import Call
from core.client import CoreClient
from core.contract.errors import KeyNotFound, KeyRefused
from core.serving import App
from gateway import auth
from gateway.relay import relay, relay_upload

CALLS: Final = (
    ("GET", "/api/overview"),
    ("GET", "/api/tasks/"),
    ("GET", "/api/agents/"),
    ("GET", "/api/gateways/"),
    ("GET", "/api/audit/"),
    ("PUT", "/api/models/<id>"),
    ("PATCH", "/api/models/<id>"),
    ("DELETE", "/api/models/<id>"),
    ("POST", "/api/keys/"),
    ("GET", "/api/keys/"),
    ("DELETE", "/api/keys/<id>"),
)

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""It becomes a part of core's path: '..' must not get there."""


def add_routes(app: App, core: CoreClient) -> None:
    async def operate(call: Call, id: str = "") -> None:
        key = auth.key_of(call)
        if not key:
            raise KeyRefused
        if id and not _ID.fullmatch(id):
            raise KeyNotFound("There is nothing of this id")
        if call.method == "PUT":
            await relay_upload(call, core, call.path, call.parameters, key=key)
        else:
            await relay(call, core, call.method, call.path, params=call.parameters, key=key)

    for method, rule in CALLS:
        app.direct(method, rule, problems=True)(operate)
