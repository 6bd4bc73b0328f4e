"""What an operator does to a set-up: the recipes' programs, and what the doctor says to type."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.compose.conftest import Site
from tests.lab import bases

JUST: Final = (str(Path(sys.executable).with_name("just")), "--no-deps", "--set", "python", sys.executable)
"""The recipes as they are, but in this Python: setup would only make a .venv like the one that the tests run in."""

Finding = Mapping[str, str]


def run(site: Site, *command: str) -> subprocess.CompletedProcess[str]:
    return site.host.run(*command, cwd=site.folder, env={"DOCKER_CONFIG": str(bases.compose_plugin())})


def doctor(site: Site, *environment: str) -> list[Finding]:
    """What `just doctor --json` finds; its exit code says whether something is broken."""
    said = run(site, "env", *environment, *JUST, "doctor", "--json")
    found: list[Finding] = json.loads(said.stdout)
    assert said.returncode == any(finding["level"] == "broken" for finding in found), said.stderr
    return found


def broken(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding["level"] == "broken"]


def follow(site: Site, fix: str) -> None:
    """Types what the fix has in backquotes, up to its first alternative: lines go into .env, commands to a shell.
    What only says more isn't typed.
    """
    for typed in _typed(fix):
        if re.fullmatch(r"[A-Z_]+=.*", typed):
            write_env(site, typed)
        else:
            shell = f'just() {{ {shlex.join(JUST)} "$@"; }}; sudo() {{ "$@"; }}; {typed}'
            said = run(site, "bash", "-c", shell)
            assert said.returncode == 0, f"{typed}: {said.stdout}{said.stderr}"


def write_env(site: Site, line: str) -> None:
    """In place of the line of that name, if there is one."""
    file = site.folder / ".env"
    name = line.partition("=")[0]
    others = [other for other in file.read_text().splitlines() if not other.startswith(f"{name}=")]
    file.write_text("\n".join([*others, line, ""]))


def _typed(fix: str) -> Iterator[str]:
    for part in re.split(r",? or ", fix)[0].split(";"):
        if not re.search(r"\bsays (why|more)", part):
            yield from re.findall(r"`([^`]+)`", part)
