"""A swarm of three hosts: tasks are spread, a host is cut off and comes back, and everything is replaced under load."""

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
import requests

from deploy.compose import OF_STACK
from tests.e2e.api import NOT_YET, Api
from tests.swarm.conftest import Core, Swarm
from tests.waiting import eventually
from tests.zips import zip_of

pytestmark = pytest.mark.timeout(900)

TASKS = 100
FAIR_SHARE = 30
LOST_SECONDS = 60
CUT_SECONDS = 15
IMPATIENT_SECONDS = 3
FINISHED = "finished"
TRY_LATER = "503"
POSTERS = 3
WORDS = ("attempt.refused", "lease.lost")


def _zip(seconds: float) -> bytes:
    return zip_of({"seconds": str(seconds).encode()})


@dataclass
class Load:
    """Posts tasks and fetches their results until `stop`, without a break, as several clients do."""

    swarm: Swarm
    model: str
    seen: Counter[str] = field(default_factory=Counter)
    """Answers by their status, lost connections by their error, and tasks that finished."""
    stop: threading.Event = field(default_factory=threading.Event)
    counting: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def running(self) -> Iterator["Load"]:
        threads = [threading.Thread(target=self._client, name=f"client-{number}") for number in range(POSTERS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.stop.set()
            for thread in threads:
                thread.join()

    def _client(self) -> None:
        api = self.swarm.client()
        with self.swarm.switch.entered(), api.session:
            while not self.stop.is_set():
                self._one_task(api)

    def _one_task(self, api: Api) -> None:
        parameters = {"model_human_readable_id": self.model}
        posted = self._ask(lambda: api.call("POST", "/api/tasks/", params=parameters, zip=_zip(0.1)))
        if posted is None or posted.status_code != 200:
            return
        deadline = time.monotonic() + LOST_SECONDS
        while time.monotonic() < deadline:
            answer = self._ask(lambda: api.get(f"/api/tasks/{posted.json()}"))
            if answer is not None and answer.status_code == 200:
                self._count(FINISHED)
                return
            time.sleep(0.1)
        self._count("unfinished")

    def _ask(self, request: Callable[[], requests.Response]) -> requests.Response | None:
        """None: there was no answer."""
        try:
            answer = request()
        except requests.RequestException as error:
            self._count(repr(error)[:200])
            return None
        self._count(str(answer.status_code))
        return answer

    def _count(self, what: str) -> None:
        with self.counting:
            self.seen[what] += 1


def _posted(api: Api, model: str, seconds: float) -> str:
    """As a client does it: who is told to come back later comes back."""

    def uid() -> str:
        answer = api.call("POST", "/api/tasks/", params={"model_human_readable_id": model}, zip=_zip(seconds))
        assert answer.status_code in (200, 503), answer.text
        return str(answer.json()) if answer.status_code == 200 else ""

    return eventually(uid)


def test_tasks_are_spread(swarm: Swarm, api: Api, core: Core, model: str, say: Callable[[str], None]) -> None:
    """Both agents do a fair part."""
    started = time.monotonic()
    uids = [_posted(api, model, 0.1) for _ in range(TASKS)]
    assert [api.wait_for_end(uid, within_seconds=300) for uid in uids] == [200] * TASKS
    parts = Counter(agent for uid in uids for agent in core.agents(uid))
    say(f"{TASKS} tasks in {time.monotonic() - started:.0f} s: {dict(parts)}")
    assert parts.keys() == {"host-2", "host-3"}
    assert min(parts.values()) >= FAIR_SHARE


def test_the_first_host_is_well(swarm: Swarm) -> None:
    """The doctor knows the swarm's containers for ours."""
    found = json.loads(swarm.run(f"{sys.executable} -m deploy.doctor --json"))
    assert [finding for finding in found if finding["level"] == "broken"] == []
    assert {"ports", "answers", "redis", "rabbitmq", "agents"} <= {finding["check"] for finding in found}


@pytest.mark.usefixtures("model")
def test_a_backup(swarm: Swarm) -> None:
    """Of the swarm's Redis, where it runs; Compose's ways to change anything are shut there."""
    assert "1 models and" in swarm.run("just backup backups/one")
    for command in ("just up", "just reset-soft --yes", "just restore backups/one --yes"):
        assert "This host runs the swarm's system" in swarm.run(f"! {command}")


def test_a_host_is_cut_off(swarm: Swarm, api: Api, core: Core, model: str, say: Callable[[str], None]) -> None:
    """Another one does its task, its own late result is refused, and when it is back it gets tasks again."""
    uids = [_posted(api, model, CUT_SECONDS) for _ in range(2)]
    eventually(lambda: {agent for uid in uids for agent in core.agents(uid)} == {"host-2", "host-3"})
    [lost] = [uid for uid in uids if core.agents(uid) == ["host-3"]]
    with swarm.switch.cut(3):
        started = time.monotonic()
        result = eventually(lambda: _result(swarm, lost), within_seconds=LOST_SECONDS)
        say(f"finished elsewhere {time.monotonic() - started:.0f} s after the cut")
    healed = time.monotonic()
    eventually(lambda: any(word in swarm.agent_log("host-3") for word in WORDS), within_seconds=LOST_SECONDS)
    say(f"its late result refused {time.monotonic() - healed:.0f} s after it was back")
    assert eventually(lambda: _result(swarm, lost)) == result
    assert core.agents(lost) == ["host-3", "host-2"]

    eventually(lambda: core.agents(_done(swarm, model)) == ["host-3"], within_seconds=120)
    say(f"works again {time.monotonic() - healed:.0f} s after it was back")


def _result(swarm: Swarm, uid: str) -> bytes | None:
    """On a connection of its own, and impatient: one of the gateways may be the lost host's."""
    client = swarm.client()
    with client.session as session:
        try:
            answer = session.get(f"{client.url}/api/tasks/{uid}", timeout=IMPATIENT_SECONDS)
        except requests.RequestException:
            return None
    return answer.content if answer.status_code == 200 else None


def _done(swarm: Swarm, model: str) -> str:
    client = swarm.client()
    with client.session:
        uid = _posted(client, model, 0.1)
        assert client.wait_for_end(uid) == 200
    return uid


@pytest.mark.usefixtures("api")
def test_a_rolling_update(swarm: Swarm, model: str, say: Callable[[str], None]) -> None:
    """Core, gateway and agents are replaced one after the other. No task fails, and no client's request, except that on
    a machine that is too busy one is told to come back later.
    """
    swarm.run(f"echo former | docker secret create --label {OF_STACK.removeprefix('label=')} core_token-former -")
    with Load(swarm, model).running() as load:
        eventually(lambda: load.seen[FINISHED] > POSTERS)
        started = time.monotonic()
        swarm.follow("An update")
        took = time.monotonic() - started
        before = load.seen[FINISHED]
        eventually(lambda: load.seen[FINISHED] > before + POSTERS)
    say(f"updated in {took:.0f} s under load: {dict(load.seen)}")
    tags = swarm.run("docker service ls --format '{{.Image}}' | grep inference-server/")
    assert tags.count(":2.0.1") == len(tags.split()) == 3
    assert "former" not in swarm.run("docker secret ls")
    assert load.seen.keys() <= {"200", str(NOT_YET), TRY_LATER, FINISHED}


def test_an_agent_by_hand(swarm: Swarm, api: Api, core: Core, model: str) -> None:
    """As version 1 started it, on the first host, which has no agent of the swarm's."""
    swarm.follow("An agent by hand")
    uids = [_posted(api, model, 2) for _ in range(6)]
    assert [api.wait_for_end(uid, within_seconds=60) for uid in uids] == [200] * 6
    assert "by-hand" in {agent for uid in uids for agent in core.agents(uid)}
    swarm.run("docker stop gpu_agent && docker rm gpu_agent")


def test_a_host_goes(swarm: Swarm, api: Api, core: Core, model: str) -> None:
    """What its agent runs may end there, and everything else is another's."""
    uids = [_posted(api, model, 8) for _ in range(3)]
    eventually(lambda: {agent for uid in uids for agent in core.agents(uid)} == {"host-2", "host-3"})
    running = [uid for uid in uids if core.agents(uid) == ["host-3"]]
    swarm.follow("A host goes")
    assert [api.wait_for_end(uid) for uid in uids] == [200] * 3
    assert [core.agents(uid) for uid in running] == [["host-3"]] * len(running)
    eventually(lambda: "host-3" not in swarm.run("docker stack ps --filter desired-state=running inference-server"))
    assert core.agents(_done(swarm, model)) == ["host-2"]
