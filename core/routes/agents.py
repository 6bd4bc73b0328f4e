"""What agents call beside version 1's API, the lists of them and of gateways, and a gateway's question before a large
body.
"""

from pydantic import TypeAdapter
from quart import Response, request

from core.calls import Call
from core.contract.agent import Agent, AgentReport
from core.contract.gateway import Gateway, GatewayReport
from core.contract.http import ClaimRequest, Noted
from core.contract.parameters import AdmissionRequest
from core.contract.task import Failure
from core.dispatch import Dispatch
from core.routes.parameters import Body, parse, parse_body
from core.serving import App, json_response


def add_routes(app: App, dispatch: Dispatch) -> None:
    @app.get("/api/admission")
    async def admit() -> Response:
        asked = parse(AdmissionRequest, request.args)
        return json_response((await dispatch.admit(model=asked.model, size=asked.size)).model_dump_json())

    @app.post("/api/agents/")
    async def hear() -> Response:
        return json_response((await dispatch.heard(await _body(AgentReport))).model_dump_json())

    @app.get("/api/agents/")
    async def every_agent() -> Response:
        """Those that were there within a day."""
        return json_response(TypeAdapter(list[Agent]).dump_json(await dispatch.store.agents.all()).decode())

    @app.direct("POST", "/api/gateways/", problems=True)
    async def hear_gateway(call: Call) -> None:
        body = b"".join([piece async for piece in call.pieces()])
        await dispatch.store.gateways.note(parse_body(GatewayReport, body))
        await call.answer(204, headers=())

    @app.direct("GET", "/api/gateways/", problems=True)
    async def every_gateway(call: Call) -> None:
        """Those that were there within a day."""
        await call.answer(200, TypeAdapter(list[Gateway]).dump_json(await dispatch.store.gateways.all()))

    @app.post("/api/tasks/<uid>/claim")
    async def claim(uid: str) -> Response:
        return json_response((await dispatch.claim(uid, await _body(ClaimRequest))).model_dump_json())

    @app.post("/api/tasks/<uid>/stage")
    async def stage(uid: str) -> Response:
        return json_response((await dispatch.stage(uid)).model_dump_json())

    @app.post("/api/tasks/<uid>/attempts/<int:attempt>/renew")
    async def renew(uid: str, attempt: int) -> Response:
        await dispatch.renew(uid, attempt, noted=_noted())
        return Response("", 204)

    @app.direct("POST", "/api/tasks/<uid>/attempts/<int:attempt>/output")
    async def finish(call: Call, uid: str, attempt: int) -> None:
        await dispatch.finish(uid, attempt, call.pieces(), noted=parse(Noted, call.args))
        await call.answer(204, headers=())

    @app.post("/api/tasks/<uid>/attempts/<int:attempt>/failure")
    async def fail(uid: str, attempt: int) -> Response:
        await dispatch.fail(uid, attempt, await _body(Failure), noted=_noted())
        return Response("", 204)

    @app.post("/api/tasks/<uid>/attempts/<int:attempt>/release")
    async def release(uid: str, attempt: int) -> Response:
        await dispatch.release(uid, attempt)
        return Response("", 204)


def _noted() -> Noted:
    return parse(Noted, request.args)


async def _body(kind: type[Body]) -> Body:
    return parse_body(kind, await request.get_data())
