"""What goes on with a task, as events and as its log; and what agents have to say of it."""

from contextlib import aclosing
from typing import Final

from pydantic import ValidationError

from core.access import while_good
from core.calls import Call
from core.contract.errors import AttemptNotFound, InvalidRequest, TooLarge
from core.contract.live import Said
from core.contract.parameters import WhichAttempt
from core.dispatch import Dispatch
from core.live import Live, Place
from core.routes.parameters import parse
from core.serving import App

EVENTS: Final = (("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache, no-transform"))
LOG: Final = (("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-cache"))
LAST_EVENT_ID: Final = "last-event-id"

SAID_BYTES: Final = 2**20
"""A batch of an attempt's log, as JSON."""


def add_routes(app: App, dispatch: Dispatch, live: Live) -> None:
    @app.direct("GET", "/api/tasks/<uid>/events", problems=True)
    async def events(call: Call, uid: str) -> None:
        """204 for who has heard it all: a browser's EventSource asks no more then."""
        place = Place.of(call.header(LAST_EVENT_ID) or call.args.get("last_event_id", ""))
        if await live.has_told_all(uid, place):
            await call.answer(204, headers=())
        elif call.method == "HEAD":
            await call.answer(200, headers=EVENTS)
        else:
            async with aclosing(live.events(uid, place)) as pieces:
                await call.stream(200, EVENTS, while_good(dispatch, call.caller, pieces))

    @app.direct("GET", "/api/tasks/<uid>/log", problems=True)
    async def printed(call: Call, uid: str) -> None:
        """Of the latest attempt, or of another one."""
        task, wanted = await dispatch.task(uid), parse(WhichAttempt, call.args).attempt
        if wanted is not None and wanted not in {attempt.number for attempt in task.attempts}:
            raise AttemptNotFound
        if call.method == "HEAD":
            return await call.answer(200, headers=LOG)
        async with aclosing(dispatch.store.logs.of_attempt(uid, wanted or task.attempt)) as texts:
            await call.stream(200, LOG, (text.encode() async for text in texts))

    @app.direct("POST", "/api/tasks/<uid>/attempts/<int:attempt>/events")
    async def tell(call: Call, uid: str, attempt: int) -> None:
        if call.content_length is None or call.content_length > SAID_BYTES:
            raise TooLarge.over(SAID_BYTES)
        try:
            said = Said.model_validate_json(b"".join([piece async for piece in call.pieces()]))
        except ValidationError as error:
            raise InvalidRequest(f"The body is not a {Said.__name__}: {error}") from error
        await dispatch.tell(uid, attempt, said)
        await call.answer(204, headers=())
