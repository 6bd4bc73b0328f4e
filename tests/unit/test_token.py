"""Core's token is exchanged while everything runs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from core import token as tokens
from core.client import CoreAccess
from core.token import CoreToken


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "token"


def _from(file: Path, content: str) -> CoreToken:
    file.write_text(content)
    return CoreToken(core_token_file=file)


@pytest.mark.parametrize("content", ["new old", "new\nold\n", " new\r\n\r\nold\r\n"])
def test_of_two_either_opens_and_the_first_is_sent(file: Path, content: str) -> None:
    known = _from(file, content).tokens
    assert [known.opens(offered) for offered in ("new", "old", "", "ne", "newold", "neither")] == [
        True,
        True,
        *[False] * 4,
    ]
    assert known.sent == "new"


def test_who_sends_the_file_as_it_is_is_let_in(file: Path) -> None:
    """As Prometheus does, and scripts with `$(cat …)`; also by who knows only one of the two by now."""
    assert _from(file, "new old").tokens.opens("new old")
    assert _from(file, "new").tokens.opens("new old")
    assert not _from(file, "new").tokens.opens("old older new")


def test_a_new_one_opens_at_once(file: Path) -> None:
    """Whoever saw the file before core did isn't refused."""
    known = _from(file, "old").tokens
    assert known.opens("old")
    file.write_text("new old")
    assert known.opens("new")


def test_an_old_one_stops_to_open(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = _from(file, "new old").tokens
    assert known.opens("old")
    file.write_text("new")
    monkeypatch.setattr(tokens, "LOOK_SECONDS", 0.0)
    assert not known.opens("old")
    assert known.opens("new")


def test_the_new_one_is_sent_from_then_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = _from(file, "old").tokens
    assert known.sent == "old"
    monkeypatch.setattr(tokens, "LOOK_SECONDS", 0.0)
    file.write_text("new old")
    assert known.sent == "new"


@pytest.mark.parametrize("spoil", [Path.unlink, lambda file: file.write_text("\n")], ids=["gone", "empty"])
def test_a_file_without_a_token_changes_nothing(file: Path, spoil: Callable[[Path], None]) -> None:
    known = _from(file, "token").tokens
    spoil(file)
    assert not known.opens("other")
    assert known.opens("token")


def test_a_token_that_is_set_itself_goes_before(file: Path) -> None:
    file.write_text("of the file")
    access = CoreAccess(core_token=SecretStr("own"), core_token_file=file)
    assert access.tokens.sent == "own"
    assert not access.tokens.opens("of")


def test_there_must_be_one(file: Path) -> None:
    with pytest.raises(ValidationError, match="CORE_TOKEN_FILE"):
        _from(file, " \n")
