"""Who listens to a task while what tells it dies, or stands still."""

from contextlib import suppress

import requests

from demo.stack import Stack
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT, ModelMaker
from tests.e2e.events import COUNTS, LINES, Event, listening, printed, to_the_end, until_a_line
from tests.faults.gates import runs
from tests.faults.kills import frozen, kill, wait_until_back
from tests.waiting import eventually


def test_nothing_is_lost_when_servers_die(api: Api, stack: Stack, model: ModelMaker) -> None:
    """Who listens again from the last event on hears each line once."""
    uid = api.post(model(COUNTS), INPUT)
    heard: list[Event] = []
    for name in ("core", "gateway"):
        with listening(api, uid, heard[-1].id if heard else "") as events:
            heard += until_a_line(events)
            kill(stack, name)
            with suppress(requests.exceptions.ChunkedEncodingError):
                heard += events
        wait_until_back(stack, name)
    heard += to_the_end(api, stack, uid, heard[-1].id)
    assert printed(heard) == "".join(LINES)
    assert heard[-1].data["state"] == "finished"


def test_a_core_that_stands_still_holds_no_container_up(api: Api, stack: Stack, model: ModelMaker) -> None:
    """What was printed meanwhile, and last, is told when it is back."""
    uid = api.post(model("echo begun; sleep 1; yes more | head -c 100000; echo end; echo > /output/done"), INPUT)
    with listening(api, uid) as events:
        list(until_a_line(events))
    with frozen(stack, "core"):
        eventually(lambda: not runs(stack, uid, 1))
    assert api.wait(uid).status_code == 200
    log = api.get(f"/api/tasks/{uid}/log").text
    assert (log[:6], log[-9:], len(log)) == ("begun\n", "more\nend\n", 6 + 100_000 + 4)
