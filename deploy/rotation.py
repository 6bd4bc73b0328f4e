"""Another token for core, while everything runs: for a while both open it."""

import argparse
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from deploy import swarm
from deploy.compose import ENVIRONMENT, DeploymentError, on_swarm, say
from deploy.keys import Core


def rotate(arguments: argparse.Namespace) -> None:
    """On a swarm each step replaces all services, one after the other: there a secret's content doesn't change."""
    core = Core.running()
    file, is_swarm = core.token, ENVIRONMENT.exists() and on_swarm()
    if arguments.end:
        end(file)
    elif is_swarm:
        begin(file, is_sent=False)
        swarm.update(arguments)
        exchange(file)
    else:
        begin(file, is_sent=True)
    if is_swarm:
        swarm.update(arguments)
    else:
        core.ask("GET", "/api/overview")  # with the token that is sent now: it raises if core doesn't see it
    say(
        f"Only the new token opens core: {os.path.relpath(file)} has it."
        if arguments.end
        else f"""{os.path.relpath(file)} has the new token, and behind it the old one: both open core.
Give the new one to whoever keeps a copy: agents elsewhere, scripts. Then: just rotate-token --end"""
    )


def begin(file: Path, *, is_sent: bool) -> None:
    """Raises DeploymentError while an earlier one hasn't ended: three would be valid."""
    old = _tokens(file)
    if len(old) > 1:
        raise DeploymentError("The last rotation hasn't ended: just rotate-token --end takes the old token out.")
    new = secrets.token_urlsafe()
    write(file, [new, *old] if is_sent else [*old, new])


def exchange(file: Path) -> None:
    """What was only taken is sent."""
    write(file, _tokens(file)[::-1])


def end(file: Path) -> None:
    """Raises DeploymentError when there is nothing to end."""
    tokens = _tokens(file)
    if len(tokens) == 1:
        raise DeploymentError("There is one token only: just rotate-token makes another.")
    write(file, tokens[:1])


def write(file: Path, tokens: Sequence[str]) -> None:
    """In one step, and in its place: containers that have the file mounted would keep another one that got its name."""
    with file.open("r+") as opened:
        opened.write(" ".join(tokens) + "\n")
        opened.truncate()


def _tokens(file: Path) -> list[str]:
    return file.read_text().split()
