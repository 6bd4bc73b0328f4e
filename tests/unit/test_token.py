"""Core's token is exchanged while everything runs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from core import token as tokens
from core.calls import offered_in
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


SPOILT: dict[str, Callable[[Path], object]] = {
    "gone": Path.unlink,
    "empty": lambda file: file.write_text("\n"),
    "not text": lambda file: file.write_bytes(b"\xff\xfe"),
    "three": lambda file: file.write_text("token other another"),
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=SPOILT)
def test_a_file_without_a_token_changes_nothing(file: Path, spoil: Callable[[Path], object]) -> None:
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


def test_a_token_that_is_set_itself_is_one_whatever_it_holds() -> None:
    """No word of it opens anything."""
    known = CoreToken(core_token=SecretStr("the correct horse battery")).tokens
    assert known.sent == "the correct horse battery"
    opened = [known.opens(f"{offered}") for offered in ("the", "battery", "the correct", "the correct horse battery")]
    assert opened == [False, False, False, True]


def test_a_file_holds_two_at_the_most(file: Path) -> None:
    """It is told what to do, and not what they are."""
    with pytest.raises(ValidationError, match="holds 4 words") as refused:
        _from(file, "the correct horse battery")
    assert "openssl rand" in str(refused.value)
    assert "battery" not in str(refused.value)


@pytest.mark.parametrize("content", ["abc= new", "bmV3 b2xkIQ==", "a/b+c== d/e+f="])
def test_a_file_of_base64_is_offered_as_it_is(file: Path, content: str) -> None:
    offered = offered_in(f"Bearer {content}")
    assert offered == content
    assert _from(file, content).tokens.opens(offered)
    assert _from(file, content.split()[1]).tokens.opens(offered)
