"""What the checks saw, as Markdown, written as it comes: a run that is cut short leaves what it has."""

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Report:
    file: Path
    failures: list[str] = field(default_factory=list)
    checks: int = 0

    def say(self, line: str = "") -> None:
        print(line, flush=True)
        with self.file.open("a") as file:
            file.write(line + "\n")

    @contextmanager
    def section(self, title: str) -> Iterator[None]:
        """What breaks in one section fails it, and the next one begins."""
        self.say(f"\n### {title}\n")
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what this check has shown
            traceback.print_exc(file=sys.stdout)
            self.check(f"{title}: runs to its end", holds=False, seen=f"{type(error).__name__}: {error}")

    def check(self, claim: str, *, holds: bool, seen: object = "") -> None:
        self.checks += 1
        if not holds:
            self.failures.append(claim)
        self.say(f"- {'pass' if holds else '**FAIL**'}: {claim}" + (f" ({seen})" if str(seen) else ""))

    def end(self) -> int:
        """The exit code."""
        failed = "".join(f"\n- {claim}" for claim in self.failures)
        self.say(f"\n**{self.checks - len(self.failures)} of {self.checks} checks passed.**{failed}")
        return 1 if self.failures else 0
