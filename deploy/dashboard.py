"""Where the operator's page is, and what opens it."""

import argparse
import os
import sys
import webbrowser
from pathlib import Path

from core.routes.dashboard import PATH
from demo.__main__ import demo_stack
from deploy import preparation
from deploy.compose import ENVIRONMENT, DeploymentError, on_swarm, running, say

PORT_ON_SWARM = 7000
"""Of the core for operators, as README starts it."""


def show(_: argparse.Namespace) -> None:
    """In a browser, too, where this machine has a screen."""
    port, token = core()
    page = f"http://127.0.0.1:{port}{PATH}"
    say(f"""{page}
The browser asks for a name, any will do, and for a password: that is the token in {os.path.relpath(token)}.
From another machine: ssh -L {port}:127.0.0.1:{port} to this one, then the same address there.""")
    if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(page)


def core() -> tuple[str | int, Path]:
    """The port of the one that runs here, and the file with its token. Raises DeploymentError."""
    token = preparation.SECRETS / "core_token"
    if "core" in running():
        return preparation.settings()["OPERATOR_PORT"], token
    demo = demo_stack()
    if demo.is_up():
        return demo.ports.core, demo.token_file
    if ENVIRONMENT.exists() and on_swarm():
        return PORT_ON_SWARM, token
    raise DeploymentError("Nothing runs: just up or just demo starts it.")
