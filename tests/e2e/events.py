"""Server-sent events as a client reads them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from demo.stack import Stack
from tests.e2e.api import CALL_SECONDS, Api
from tests.faults.gates import GATED, open_gate

FINAL = ("finished", "failed")
LINES = [f"line {number}\n" for number in range(1, 41)]
COUNTS = f"for number in $(seq {len(LINES)}); do echo line $number; sleep 0.1; done; {GATED}"
"""A model that prints a line every now and then, and ends when its gate is opened."""


@dataclass(frozen=True)
class Event:
    name: str
    id: str
    data: dict[str, Any]

    @property
    def is_final(self) -> bool:
        return self.name == "state" and self.data["state"] in FINAL


@contextmanager
def listening(api: Api, uid: str, last_id: str = "") -> Iterator[Iterator[Event]]:
    """What is told of the task, from that event on, as it comes."""
    headers = {"Last-Event-ID": last_id} if last_id else {}
    url = f"{api.url}/api/tasks/{uid}/events"
    with api.session.get(url, headers=headers, stream=True, timeout=CALL_SECONDS) as answer:
        assert answer.status_code == 200, answer.text
        assert answer.headers["Content-Type"] == "text/event-stream"
        yield _events(answer.iter_lines(chunk_size=None))


def until_a_line(events: Iterator[Event]) -> Iterator[Event]:
    for event in events:
        yield event
        if event.name == "log":
            return


def to_the_end(api: Api, stack: Stack, uid: str, last_id: str) -> Iterator[Event]:
    """Opens the gate when all lines are printed."""
    with listening(api, uid, last_id) as events:
        for event in events:
            yield event
            if event.name == "log" and LINES[-1] in event.data["text"]:
                open_gate(stack, uid, 1)


def told(api: Api, uid: str, last_id: str = "") -> list[Event]:
    """All of it, until the answer ends."""
    with listening(api, uid, last_id) as events:
        return list(events)


def printed(events: list[Event]) -> str:
    return "".join(event.data["text"] for event in events if event.name == "log")


def _events(lines: Iterator[bytes]) -> Iterator[Event]:
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.decode().partition(": ")
        if name:
            fields[name] = value
        elif "data" in fields:
            yield Event(fields["event"], fields["id"], json.loads(fields["data"]))
            fields = {}
