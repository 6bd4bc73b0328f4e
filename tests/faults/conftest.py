"""A stack of the fault tests' own, impatient, and the check that nothing is left behind."""

from collections.abc import Iterator

import pytest
from redis import Redis

from demo.stack import Stack
from tests.conftest import SETTINGS, started
from tests.e2e.conftest import ModelMaker, all_leaks, api, copying, core, images, leaks, model, no_agents, waiting
from tests.faults.gates import GATED

__all__ = ["all_leaks", "api", "copying", "core", "images", "leaks", "model", "no_agents", "waiting"]

LEASE_SECONDS = 6
"""A core that was killed is back in two, and an agent renews each second."""


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The whole system with two agents without GPUs. What is killed is started again by itself."""
    settings = {**SETTINGS, "LEASE_SECONDS": str(LEASE_SECONDS)}
    timeout = {"consumer_timeout": 10_000, "channel_tick_interval": 1_000}
    with started(tmp_path_factory, agents=2, settings=settings, rabbitmq_settings=timeout) as stack:
        yield stack


@pytest.fixture(scope="session")
def redis(stack: Stack) -> Iterator[Redis]:
    with Redis.from_url(stack.redis_url) as redis:
        yield redis


@pytest.fixture(scope="session")
def gated(model: ModelMaker) -> str:
    """A model that gives back what it got when its gate is opened."""
    return model(GATED)
