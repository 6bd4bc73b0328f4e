"""Another token for core, while everything runs: for a while both open it."""

import argparse
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path

from core.token import LOOK_SECONDS
from deploy import swarm
from deploy.compose import ENVIRONMENT, DeploymentError, on_swarm, say
from deploy.keys import Core


def rotate(arguments: argparse.Namespace) -> None:
    """On a swarm each step replaces all services, one after the other: there a secret's content doesn't change."""
    core = Core.running()
    file, is_swarm = core.token, ENVIRONMENT.exists() and on_swarm()
    if arguments.end:
        end(file)
    elif not is_swarm:
        begin(file)
    elif take(file):
        swarm.update(arguments)
        exchange(file)
    if is_swarm:
        swarm.update(arguments)
        _note(file).unlink(missing_ok=True)
    else:
        core.ask("GET", "/api/overview")  # with the token that is sent now: it raises if core doesn't see it
    say(
        f"Only the new token opens core: {os.path.relpath(file)} has it."
        if arguments.end
        else f"""{os.path.relpath(file)} has the new token, and behind it the old one: both open core.
Give the new one to whoever keeps a copy: agents elsewhere, scripts. Then: just rotate-token --end"""
    )


def begin(file: Path) -> None:
    """Both open, and the new one is sent. Raises DeploymentError while an earlier rotation hasn't ended: three would be
    valid.
    """
    write(file, [secrets.token_urlsafe(), _only(file)])


def take(file: Path) -> bool:
    """Both open, and the old one is sent still: on a swarm not all see the new one at once. A rotation that failed goes
    on. False: the new one is sent already. Raises DeploymentError as `begin`.
    """
    note = _note(file)
    if not (note.exists() and note.read_text()):
        _only(file)
        note.touch(mode=0o600)
        note.write_text(secrets.token_urlsafe())
    new, known = note.read_text(), _tokens(file)
    if new not in known:
        write(file, [*known, new])
    return known[0] != new


def exchange(file: Path) -> None:
    """What was only taken is sent."""
    write(file, _tokens(file)[::-1])


def end(file: Path) -> None:
    """When whoever looks at the file has had the time to. Raises DeploymentError when there is nothing to end, or not
    yet: on a swarm somebody may send the old token still.
    """
    if _note(file).exists():
        raise DeploymentError("The last rotation got stuck before all had the new token: just rotate-token goes on.")
    tokens = _tokens(file)
    if len(tokens) == 1:
        raise DeploymentError(
            "There is one token only: just rotate-token makes another. If a swarm's update failed: just swarm-update."
        )
    seconds = file.stat().st_mtime + 2 * LOOK_SECONDS - time.time()
    time.sleep(min(max(seconds, 0), 2 * LOOK_SECONDS))
    write(file, tokens[:1])


def write(file: Path, tokens: Sequence[str]) -> None:
    """In one step, and in its place: containers that have the file mounted would keep another one that got its name."""
    with file.open("r+") as opened:
        opened.write(" ".join(tokens) + "\n")
        opened.truncate()


def _only(file: Path) -> str:
    tokens = _tokens(file)
    if len(tokens) > 1:
        raise DeploymentError("The last rotation hasn't ended: just rotate-token --end takes the old token out.")
    return tokens[0]


def _note(file: Path) -> Path:
    """Holds the new token while not all of a swarm have been told to send it."""
    return file.with_name(f"{file.name}.new")


def _tokens(file: Path) -> list[str]:
    return file.read_text().split()
