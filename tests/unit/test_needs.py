"""What tasks need, and what is said of it when nobody has it."""

import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from core.agents import lack
from core.contract import VERSION, queues
from core.contract.agent import Agent, Gpu
from core.contract.http import ClaimRequest, Noted
from core.contract.model import Limits, Model
from core.contract.needs import ANY, Need
from core.contract.options import Priority

ONE, PAIR = Need(gpu_count=1), Need(gpu_count=2)
LARGE, LARGE_PAIR = Need(gpu_count=1, gpu_memory_mb=40_000), Need(gpu_count=2, gpu_memory_mb=40_000)
NAMES = {ANY: "", ONE: "", PAIR: "2", LARGE: "1x40000mb", LARGE_PAIR: "2x40000mb"}


@pytest.mark.parametrize(("need", "name"), NAMES.items())
def test_a_need_beyond_any_gpu_has_a_name_and_a_queue(need: Need, name: str) -> None:
    """The others are rung where version 1's consumers listen."""
    assert need.name == name
    assert queues.for_need("jobs", need) == (f"jobs.gpu.{name}" if name else "jobs")
    assert queues.for_need("jobs", need, Priority.HIGH) == (f"jobs.gpu.{name}.high" if name else "jobs.high")
    if name:
        assert Need.named(name) == need


@pytest.mark.parametrize("name", ["", "x", "2x", "2x40000", "-1", "2x40000mb "])
def test_what_is_no_needs_name(name: str) -> None:
    """It isn't taken for another one's."""
    with pytest.raises(ValueError, match="no need's name"):
        Need.named(name)


def test_without_gpus_a_model_needs_none() -> None:
    """Whatever its limits would be."""
    models = [
        Model(id=1, uid="u", human_readable_id="m", container_tag="m:1", use_gpu=use_gpu) for use_gpu in (True, False)
    ]
    assert [model.need for model in models] == [ONE, ANY]


@pytest.mark.parametrize("limits", [{"gpu_count": 0}, {"gpu_count": 17}, {"gpu_memory_mb": 0}])
def test_limits_that_make_no_sense(limits: dict[str, int]) -> None:
    """They are refused when the model is registered."""
    with pytest.raises(ValidationError):
        Limits.model_validate(limits)


def test_an_agent_of_the_last_version_asks_in_fewer_words() -> None:
    """It serves what any GPU meets, and says nothing of its driver."""
    request = ClaimRequest.model_validate_json('{"agent": "a/GPU-1", "host": "h", "gpus": ["GPU-1"], "claim_id": "c"}')
    assert (request.serves, request.driver) == (ANY, "")
    assert Noted.model_validate({"image": "i"}) == Noted(image="i", gpus=None)


@pytest.mark.parametrize("gpus", [None, (), ("GPU-1",), ("GPU-1", "GPU-2")])
def test_what_an_attempt_noted_travels_in_a_query(gpus: tuple[str, ...] | None) -> None:
    """None yet known, and none had, are two things."""
    noted = Noted(image="i@sha256:1", gpus=gpus)
    assert Noted.model_validate(noted.query) == noted


def test_agents_tell_the_version_that_the_project_has() -> None:
    """Operators see who has been updated."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["version"] == VERSION


COLLECTED = datetime.now(UTC)


def _agent(*gpus: Gpu, name: str = "a", silent_seconds: float = 0, **problems: str) -> Agent:
    """As seen when the tests were collected, which may be long before they run."""
    seen = COLLECTED - timedelta(seconds=silent_seconds)
    return Agent(name=name, seen=seen, gpus=gpus, problems=problems)


SMALL, BIG = Gpu(uuid="GPU-1", memory_mb=24_576), Gpu(uuid="GPU-2", memory_mb=81_920)
UNWELL = Gpu(uuid="GPU-3", memory_mb=81_920, problem="vanished")


@pytest.mark.parametrize(
    ("need", "agents", "words"),
    [
        (ANY, [], "an agent: none is there"),
        (ANY, [_agent(silent_seconds=60)], "an agent: none is there"),
        (ANY, [_agent()], None),
        (ANY, [_agent(disk="is full")], "an agent that takes tasks: a: is full"),
        (ANY, [_agent(disk="is full"), _agent()], None),
        (ONE, [], "a GPU: no agent with a GPU is there"),
        (ONE, [_agent()], "a GPU: no agent with a GPU is there"),
        (ONE, [_agent(), _agent(SMALL)], None),
        (ONE, [_agent(UNWELL)], "a GPU that is well: a: GPU-3: vanished"),
        (ONE, [_agent(UNWELL, SMALL)], None),
        (PAIR, [_agent(), _agent(SMALL, BIG)], None),
        (PAIR, [_agent(SMALL), _agent(BIG)], "2 GPUs: the largest agent there has 1 with 24576 MB"),
        (PAIR, [_agent(BIG, UNWELL)], "2 GPUs that are well: a: GPU-3: vanished"),
        (PAIR, [_agent(SMALL, BIG, host="is paused")], "an agent with 2 GPUs that takes tasks: a: is paused"),
        (LARGE, [_agent(SMALL, SMALL)], "a GPU with 40000 MB: the largest agent there has 2 with 24576 MB"),
        (LARGE, [_agent(Gpu(uuid="GPU-4"))], "a GPU with 40000 MB: the largest agent there has 1 of unknown memory"),
        (
            LARGE_PAIR,
            [_agent(SMALL, SMALL, SMALL), _agent(SMALL, SMALL, BIG)],
            "2 GPUs with 40000 MB each: the largest agent there has 2 with 24576 MB and 1 with 81920 MB",
        ),
        (LARGE_PAIR, [_agent(BIG, BIG)], None),
    ],
)
def test_what_a_task_waits_for(need: Need, agents: list[Agent], words: str | None) -> None:
    """What an operator has to know; nothing when an agent that is there can serve it."""
    age = datetime.now(UTC) - COLLECTED
    assert lack(need, [agent.model_copy(update={"seen": agent.seen + age}) for agent in agents]) == words
