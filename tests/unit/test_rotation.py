"""Another token for core, step by step."""

import time
from pathlib import Path

import pytest

from deploy import rotation
from deploy.compose import DeploymentError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "core_token"
    file.write_text("old\n")
    return file


def test_on_a_swarm_what_failed_goes_on(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same token, wherever it stopped; until all have it the old one isn't taken out."""
    monkeypatch.setattr(rotation, "LOOK_SECONDS", 0.0)
    assert rotation.take(file)
    old, new = file.read_text().split()
    assert old == "old"
    file.write_text("old\n")  # the process died before it wrote this
    for _ in range(2):  # the swarm's update failed
        assert rotation.take(file)
        assert file.read_text().split() == [old, new]
        with pytest.raises(DeploymentError, match="goes on"):
            rotation.end(file)
    rotation.exchange(file)
    assert not rotation.take(file)
    assert file.read_text().split() == [new, old]
    with pytest.raises(DeploymentError, match="goes on"):
        rotation.end(file)
    file.with_name("core_token.new").unlink()
    with pytest.raises(DeploymentError, match="--end"):
        rotation.take(file)
    rotation.end(file)
    assert file.read_text().split() == [new]
    assert list(file.parent.iterdir()) == [file]


def test_the_new_token_of_a_swarm_is_nobody_elses_to_read(file: Path) -> None:
    rotation.take(file)
    assert file.with_name("core_token.new").stat().st_mode & 0o777 == 0o600


def test_an_old_token_opens_until_all_have_seen_the_new_one(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However soon the one command follows the other."""
    monkeypatch.setattr(rotation, "LOOK_SECONDS", 0.2)
    began = time.time()
    rotation.begin(file)
    new, _ = file.read_text().split()
    rotation.end(file)
    assert time.time() - began >= 0.35
    assert file.read_text().split() == [new]
