"""Core's token is exchanged while the system works."""

from collections.abc import Iterator, Sequence

import pytest

from demo.stack import Stack
from deploy import rotation
from deploy.compose import DeploymentError
from tests.e2e.api import Api
from tests.e2e.conftest import AGENTS, INPUT
from tests.waiting import eventually

SENDERS = ("gateway", *AGENTS)


def _write(stack: Stack, tokens: Sequence[str]) -> None:
    """Returns when everybody knows."""
    earlier = [_changes(stack, name) for name in SENDERS]
    rotation.write(stack.token_file, tokens)
    eventually(lambda: all(_changes(stack, name) > n for name, n in zip(SENDERS, earlier, strict=True)))


def _changes(stack: Stack, name: str) -> int:
    return stack.log(name).read_text().count("token.changed")


@pytest.fixture
def old(stack: Stack) -> Iterator[str]:
    """The token, which is the only one again afterwards."""
    token = stack.token_file.read_text().strip()
    yield token
    _write(stack, [token, *stack.token_file.read_text().split()[:1]])
    rotation.write(stack.token_file, [token])


def test_a_token_is_exchanged_while_tasks_run(stack: Stack, api: Api, copying: str, old: str) -> None:
    """Gateway and agents go over to the new one; the old one opens core until it is taken out, and then no more."""

    def opens(token: str) -> bool:
        return Api.private(stack.core_url, token).get("/api/overview").status_code == 200

    rotation.begin(stack.token_file)
    new, _ = stack.token_file.read_text().split()
    assert opens(new)
    assert opens(old)
    assert api.output(copying, INPUT)
    with pytest.raises(DeploymentError, match="--end"):
        rotation.begin(stack.token_file)
    eventually(lambda: all(_changes(stack, name) for name in SENDERS))
    rotation.end(stack.token_file)
    assert opens(new)
    eventually(lambda: not opens(old))
    assert api.output(copying, INPUT)
