"""How far a model says it is: a line of its log, `progress: 42% words` or `progress: 0.42 words`, words or none."""

import re
from datetime import UTC, datetime
from typing import Final

from core.contract.task import Progress

WORDS_CHARACTERS: Final = 1000
"""A line with more is none."""

_PROGRESS: Final = re.compile(
    # The word stands first, and then that a line begins with it, for speed: most of what is printed is something else.
    r"progress:(?<![^\r\n]progress:)[ \t]*"
    r"(?:(?P<percent>\d{1,3}(?:\.\d{1,9})?)[ \t]*%|(?P<fraction>[01]?\.\d{1,9}|[01]))"
    rf"(?:[ \t]+(?P<words>[^\r\n]{{0,{WORDS_CHARACTERS}}}))?(?=[\r\n])"
)


class ProgressLines:
    """Looks for them in what comes in pieces. A carriage return ends a line too, as progress bars have it."""

    def __init__(self) -> None:
        self._begun = ""

    def latest_in(self, text: str) -> Progress | None:
        """Of the lines that end in it."""
        came = self._begun + text
        end = 1 + max(came.rfind("\n"), came.rfind("\r"))
        self._begun = came[end:][: 2 * WORDS_CHARACTERS]
        latest = None
        for found in _PROGRESS.finditer(came, 0, end):
            latest = _progress(found) or latest
        return latest


def _progress(found: re.Match[str]) -> Progress | None:
    fraction = float(found["percent"]) / 100 if found["percent"] else float(found["fraction"])
    if fraction > 1:
        return None
    return Progress(fraction=fraction, message=(found["words"] or "").strip(), at=datetime.now(UTC))
