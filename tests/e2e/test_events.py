"""What goes on with a task, told while it goes on; and its log, kept."""

import time
from pathlib import Path

import pytest
import requests

from demo.stack import Stack
from tests.bench.processes import Processes
from tests.e2e.api import Api
from tests.e2e.conftest import INPUT, ModelMaker
from tests.e2e.events import COUNTS, LINES, Event, listening, printed, to_the_end, told, until_a_line
from tests.faults.gates import open_gate
from tests.waiting import eventually

BEGIN = "one\nprogress: 25% Größe\n"
DRAINED_SECONDS = 10
"""Far less than a server waits for requests that don't end."""

FLOOD_BYTES = 50_000_000
LOG_BYTES = 2**20
"""LOG_KB by itself."""


@pytest.fixture(scope="session")
def talking(model: ModelMaker) -> str:
    """A model that prints, waits for its gate, and prints again."""
    begins = r"printf 'one\nprogress: 25%% Größe\n'"
    ends = r"printf 'progress: 0.75\r'; echo words >&2; cp -R /input/. /output/"
    return model(f"{begins}; until [ -e /output/opened ]; do sleep 0.05; done; {ends}")


def test_all_is_told_while_it_happens(api: Api, stack: Stack, talking: str) -> None:
    """The first word is how the task stands, the last one how it ended, behind all that was printed."""
    uid = api.post(talking, INPUT)
    events: list[Event] = []
    with listening(api, uid) as coming:
        for event in coming:
            events.append(event)
            if event.name == "log" and printed(events) == BEGIN:
                open_gate(stack, uid, 1)
    states = [event.data["state"] for event in events if event.name == "state"]
    assert states in (["pending", "running", "finished"], ["running", "finished"])
    assert events[0].name == "state"
    assert [event.is_final for event in events] == [False] * (len(events) - 1) + [True]
    text = printed(events)
    assert text.startswith(BEGIN)
    assert sorted(text.removeprefix(BEGIN).split("words\n")) == ["", "progress: 0.75\r"]  # two outputs have no order
    progress = [(event.data["fraction"], event.data["message"]) for event in events if event.name == "progress"]
    assert progress == [(0.25, "Größe"), (0.75, "")]
    assert api.get(f"/api/tasks/{uid}/status").json()["progress"]["fraction"] == 0.75


def test_who_comes_back_hears_the_rest(api: Api, core: Api, model: ModelMaker) -> None:
    """From any event on, at the gateway and at core, by header or parameter; and that there is none, with a 204."""
    uid = api.post(model("echo one; sleep 1; echo two; sleep 1; echo three; exit 3"), INPUT)
    events = told(api, uid)
    assert printed(events) == "one\ntwo\nthree\n"
    for at, event in enumerate(events[:-1]):
        for client in (api, core):
            assert printed(told(client, uid, event.id)) == printed(events[at + 1 :])
    assert printed(told(api, uid, "nobody's")) == printed(events)
    end = events[-1].id
    assert api.get(f"/api/tasks/{uid}/events", Last_Event_ID=end).status_code == 204
    assert api.call("GET", f"/api/tasks/{uid}/events", params={"last_event_id": end}).status_code == 204


def test_a_task_that_is_tried_again_has_another_end(api: Api, model: ModelMaker) -> None:
    """Whoever heard of the first one hears the second one's log, and that alone."""
    uid = api.post(model("echo again; exit 3"), INPUT)
    first = told(api, uid)
    assert api.call("POST", f"/api/tasks/{uid}/retry").status_code == 200
    second = told(api, uid, first[-1].id)
    assert [event.data for event in second if event.name == "log"] == [{"attempt": 2, "text": "again\n"}]
    assert second[-1].is_final
    assert second[-1].id != first[-1].id


def test_the_log_is_kept(api: Api, core: Api, model: ModelMaker) -> None:
    """As long as the task is; of the latest attempt, or of another one."""
    uid = api.post(model("echo said; cp -R /input/. /output/"), INPUT)
    assert api.wait(uid).status_code == 200
    for client in (api, core):
        answer = client.get(f"/api/tasks/{uid}/log")
        assert (answer.status_code, answer.text) == (200, "said\n")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert client.call("GET", f"/api/tasks/{uid}/log", params={"attempt": "1"}).text == "said\n"
        _is_problem(client.call("GET", f"/api/tasks/{uid}/log", params={"attempt": "2"}), 404)
        _is_problem(client.call("GET", f"/api/tasks/{uid}/log", params={"attempt": "none"}), 422)
    api.delete(uid)
    for path in ("log", "events"):
        _is_problem(api.get(f"/api/tasks/{uid}/{path}"), 404)


def test_a_task_without_words(api: Api, copying: str, waiting: str) -> None:
    """Before it starts, and when it has ended, its log is empty."""
    uids = [api.post(waiting, INPUT), api.post(copying, INPUT)]
    events = told(api, uids[1])
    assert {event.name for event in events} == {"state"}
    for uid in uids:
        assert (api.get(f"/api/tasks/{uid}/log").status_code, api.get(f"/api/tasks/{uid}/log").text) == (200, "")


def test_who_listens_hears_of_what_others_do(api: Api, core: Api, waiting: str) -> None:
    """A task that never starts is cancelled; of one that is deleted there is nothing more to hear."""
    cancelled, deleted = api.post(waiting, INPUT), api.post(waiting, INPUT)
    with listening(api, cancelled) as events:
        first = next(events)
        assert (first.data["state"], first.data["position"] is None) == ("pending", False)
        core.call("POST", f"/api/tasks/{cancelled}/cancel").raise_for_status()
        assert list(events)[-1].data["reason"] == "cancelled"
    with listening(api, deleted) as events:
        next(events)
        api.delete(deleted)
        assert list(events) == []


def test_a_flood_is_bounded(api: Api, stack: Stack, model: ModelMaker) -> None:
    """A container that prints 50 MB as fast as it can ends well; the end of its log is kept, and nobody holds more."""
    flooding = model(
        f"yes 'a line that is printed very often' | head -c {FLOOD_BYTES}; echo; echo end; echo > /output/done"
    )
    names = ("gateway", "core", "agent-1", "agent-2")
    processes = Processes({name: stack.pid(name) for name in names})
    api.wait(api.post(model("echo warm; echo > /output/done"), INPUT))
    processes.forget_peaks()
    before = processes.peak_mib()
    uid = api.post(flooding, INPUT)
    events = told(api, uid)
    assert events[-1].data["state"] == "finished"
    assert printed(events).endswith("\nend\n")
    text = api.get(f"/api/tasks/{uid}/log").text
    assert text.endswith("\nend\n")
    assert len(text) <= LOG_BYTES
    assert {name: peak - before[name] for name, peak in processes.peak_mib().items() if peak - before[name] > 40} == {}


def test_nothing_is_lost_over_a_restart(api: Api, stack: Stack, model: ModelMaker) -> None:
    """Who listens again from the last event on hears each line once; and servers that are stopped wait for nobody."""
    uid = api.post(model(COUNTS), INPUT)
    heard: list[Event] = []
    for name in ("core", "gateway"):
        with listening(api, uid, heard[-1].id if heard else "") as events:
            heard += until_a_line(events)
            began = time.monotonic()
            stack.stop(name)
            assert time.monotonic() - began < DRAINED_SECONDS
            heard += events
        stack.start(name)
    heard += to_the_end(api, stack, uid, heard[-1].id)
    assert printed(heard) == "".join(LINES)
    assert heard[-1].data["state"] == "finished"


def test_who_goes_away_leaves_nothing(api: Api, stack: Stack, waiting: str) -> None:
    """Neither at the gateway nor at core."""
    uid = api.post(waiting, INPUT)
    pids = [stack.pid(name) for name in ("gateway", "core")]
    before = sum(map(_open_files, pids))
    for _ in range(20):
        with listening(api, uid) as events:
            next(events)
    eventually(lambda: sum(map(_open_files, pids)) <= before + 4)


def _open_files(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _is_problem(answer: requests.Response, status: int) -> None:
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["status"] == status
