"""What an operator sees at a glance."""

from core.calls import Call
from core.dispatch import Dispatch
from core.overview import overview
from core.serving import App


def add_routes(app: App, dispatch: Dispatch) -> None:
    @app.direct("GET", "/api/overview", problems=True)
    async def shown(call: Call) -> None:
        await call.answer(200, (await overview(dispatch)).model_dump_json().encode())
