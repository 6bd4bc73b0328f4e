"""The audit log, for operators."""

from typing import Final

from pydantic import TypeAdapter

from core.calls import Call
from core.contract.audit import AuditEntry
from core.contract.parameters import AuditPage
from core.dispatch import Dispatch
from core.routes.parameters import parse
from core.serving import App

_ENTRIES: Final = TypeAdapter(list[AuditEntry])


def add_routes(app: App, dispatch: Dispatch) -> None:
    @app.direct("GET", "/api/audit/", problems=True)
    async def entries(call: Call) -> None:
        page = parse(AuditPage, call.args)
        found = await dispatch.store.audit.page(since=page.since, limit=page.limit, wanted=page.is_wanted)
        await call.answer(200, _ENTRIES.dump_json(found))
