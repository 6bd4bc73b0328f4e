"""What a check found."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    """It works, and won't for ever."""
    BROKEN = "broken"


@dataclass(frozen=True)
class Finding:
    level: Level
    seen: str
    fix: str = ""
    """What to do; what is to be typed, a command or a line of .env, stands in `backquotes`."""


def ok(seen: str) -> Finding:
    return Finding(Level.OK, seen)


def warning(seen: str, fix: str) -> Finding:
    return Finding(Level.WARNING, seen, fix)


def broken(seen: str, fix: str) -> Finding:
    return Finding(Level.BROKEN, seen, fix)
