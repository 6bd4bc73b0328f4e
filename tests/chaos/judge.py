"""What came of all tasks, and whether any of it is a defect."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from core.contract import queues
from tests.chaos.load import DONE, ENDS, FAILED, NOT_FOUND, Client, Story
from tests.chaos.system import AGENTS, SLOTS, System
from tests.leaks import Leaks
from tests.waiting import eventually

LOOKERS = 8
PAGE = "10000"
PROCESSES_SECONDS = 30.0
LISTENING_SECONDS = 150.0
"""A slot may pause for a minute, and take another to see that its queue was deleted."""

SWEPT_SECONDS = 300.0
"""Above all that a crash may leave for a while: blobs for 3 minutes, index entries for 3, containers for 1."""

TERMINAL = ("finished", "failed")
DIED = re.compile(r"exited: (?:core|gateway|agent)\S* \(exit status [1-9].*")
"""supervisord's words for a process of ours that ended by itself; one that was killed has no exit status."""


@dataclass
class Verdict:
    """`defects` has a line for each, under the defect's name; there should be none."""

    accepted: int
    finished: int
    withdrawn: int
    nobodys: int
    """Tasks whose posts were answered by nothing: made, and known to nobody."""
    second_tries: int
    """Attempts beyond the first of a task."""
    failures: Counter[str] = field(default_factory=Counter)
    """Reason → how many tasks failed for it."""
    errors: Counter[str] = field(default_factory=Counter)
    """Event → how often the services logged it as an error. Most are the faults'; a traceback among them is not."""
    defects: dict[str, list[str]] = field(default_factory=dict)
    stories: list[Story] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not any(self.defects.values())


def judged(system: System, clients: Sequence[Client]) -> Verdict:
    """Looks at each task once more, then deletes all of them: nothing may be left."""
    given_up = _given_up(system)
    stories = [client.story for client in clients]
    accepted = [client for client in clients if client.story.uid]
    with ThreadPoolExecutor(LOOKERS) as lookers:
        list(lookers.map(Client.look_again, accepted))
    tasks = _tasks(system)
    known = {story.uid for story in stories}
    nobodys = [task for task in tasks if task["uid"] not in known]
    failed = Counter(task["failure"]["reason"] for task in tasks if task["state"] == "failed")
    with Leaks(system.stack) as leaks:
        deaf = _deaf(leaks)
        left_behind = _left_behind(system, leaks, tasks)
    return Verdict(
        accepted=len(accepted),
        finished=sum(story.end is not None and story.end.status == DONE for story in stories),
        withdrawn=sum(story.withdrawn for story in stories),
        nobodys=len(nobodys),
        second_tries=sum(max(task["attempt"] - 1, 0) for task in tasks),
        failures=failed,
        errors=Counter(error["event"] for error in _errors(system)),
        defects={
            "lost": [_told(story) for story in stories if _is_lost(story)],
            "wrong": [_told(story) for story in stories if story.end and not story.end.is_right],
            "doubled": [_told(story) for story in stories if _is_doubled(story)],
            "stuck": [_told(story) for story in stories if _is_stuck(story)]
            + [f"nobody's: {task}" for task in nobodys if task["state"] not in TERMINAL],
            "failed": [_told(story) for story in stories if _has_failed(story)]
            + [f"nobody's: {task}" for task in nobodys if task["state"] == "failed"],
            "never accepted": [_told(story) for story in stories if not story.uid],
            "odd answers": [_told(story) for story in stories if story.odd],
            "tracebacks": [str(error) for error in _errors(system) if "exception" in error] + _unlogged(system),
            "died by itself": DIED.findall(system.stack.log("supervisord").read_text()),
            "given up": given_up,
            "deaf slots": deaf,
            "left behind": left_behind,
        },
        stories=stories,
    )


def _has_failed(story: Story) -> bool:
    """Though the model never does, and the infrastructure may as often as it is tried."""
    end = story.end
    return end is not None and end.status == FAILED and not (story.withdrawn and end.is_cancelled)


def _is_lost(story: Story) -> bool:
    ends = [end.status for end in (story.end, story.later) if end]
    return not story.withdrawn and any(status not in (DONE, FAILED) for status in ends if status in ENDS)


def _is_doubled(story: Story) -> bool:
    """Two ends, or an end that was taken back."""
    if story.end is None or story.later is None or story.end == story.later:
        return False
    return not (story.withdrawn and story.later.status == NOT_FOUND)


def _is_stuck(story: Story) -> bool:
    """Or ended too late, or nobody can tell."""
    return story.uid is not None and (story.end is None or story.later is None or story.later.status not in ENDS)


def _told(story: Story) -> str:
    ends = f"end {story.end}, later {story.later}, odd {story.odd}"
    return f"{story.uid} (order {story.order.name}): {ends}, seen {story.seen}"


def _errors(system: System) -> Iterator[dict[str, Any]]:
    for log in system.stack.logs():
        for line in log.read_text(errors="replace").splitlines():
            if '"level": "error"' in line:
                with suppress(json.JSONDecodeError):  # a process that was killed in the middle of it
                    yield json.loads(line)


def _unlogged(system: System) -> list[str]:
    """Errors of forgotten asyncio tasks, as Python writes them; aiohttp forgets its writer when a connection is cut."""
    found = []
    for log in system.stack.logs():
        lines = log.read_text(errors="replace").splitlines()
        pairs = zip(lines, [*lines[1:], ""], strict=True)
        found += [f"{log.name}: {future}" for line, future in pairs if "never retrieved" in line]
    return [line for line in found if "ClientRequest.write_bytes" not in line]


def _given_up(system: System) -> list[str]:
    """Processes that supervisord doesn't bring back."""

    def missing() -> list[str]:
        return [f"{process.name}: {process.state}" for process in system.stack.status() if process.state != "RUNNING"]

    return _remaining(missing, within_seconds=PROCESSES_SECONDS)


def _tasks(system: System) -> list[dict[str, Any]]:
    with system.private() as core:
        answer = core.call("GET", "/api/tasks/", params={"limit": PAGE})
        answer.raise_for_status()
        tasks: list[dict[str, Any]] = answer.json()
        return tasks


def _left_behind(system: System, leaks: Leaks, tasks: Sequence[dict[str, Any]]) -> list[str]:
    with system.private() as core:
        for task in tasks:
            core.delete(task["uid"]).raise_for_status()
    return _remaining(leaks.found, within_seconds=SWEPT_SECONDS)


def _deaf(leaks: Leaks) -> list[str]:
    """Slots that don't listen, though there is nothing else for them to do."""
    slots = len(AGENTS) * SLOTS

    def missing() -> list[str]:
        listening = leaks.consumers(queues.UNFINISHED)
        return [] if listening == slots else [f"{listening} of {slots} slots listen"]

    return _remaining(missing, within_seconds=LISTENING_SECONDS)


def _remaining(find: Callable[[], list[str]], *, within_seconds: float) -> list[str]:
    """What is found to the last, empty as soon as nothing is."""
    found: list[str] = []

    def is_empty() -> bool:
        found[:] = find()
        return not found

    with suppress(AssertionError):
        eventually(is_empty, within_seconds=within_seconds)
    return found
