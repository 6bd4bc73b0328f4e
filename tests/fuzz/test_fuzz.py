"""The fuzzers' properties hold for what they begin with and some of what they would make of it. `just fuzz` goes on."""

import random
from pathlib import Path

import pytest

from tests.fuzz.run import Plan, fuzz
from tests.fuzz.targets import TARGETS
from tests.lacking import cannot_run

MUTATED = 300


@pytest.mark.parametrize("name", TARGETS)
def test_holds(name: str) -> None:
    """Without atheris: the same inputs each time, on every Python."""
    target, chance = TARGETS[name], random.Random(1)
    seeds = list(target.seeds())
    for seed in seeds:
        target.check(seed)
    for _ in range(MUTATED):
        target.check(mutated(chance.choice(seeds), chance, target.words))


def mutated(seed: bytes, chance: random.Random, words: tuple[bytes, ...]) -> bytes:
    """One to four pieces of it replaced by others."""
    changed = bytearray(seed)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(0, len(changed))
        piece = chance.choice([chance.randbytes(1), chance.randbytes(4), b"\0\0", b"\xff\xff\xff\xff", *words])
        changed[at : at + chance.choice([0, len(piece), len(piece), 16])] = piece
    return bytes(changed)


def test_fuzzes(tmp_path: Path) -> None:
    """atheris runs a target, keeps what reaches something new, and tells how much that was."""
    try:
        import atheris  # noqa: F401
    except ImportError:
        cannot_run("atheris has no wheel for this Python or machine: nothing is fuzzed by coverage here")
    result = fuzz("events", Plan(tmp_path, runs=500, seed=1))
    assert result.is_good, result.broken
    assert result.executions == 500
    assert result.coverage > 0
    assert result.corpus > 1
