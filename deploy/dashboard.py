"""Where the operator's page is, and what opens it."""

import argparse
import os
import ssl
import sys
import webbrowser
from pathlib import Path

from core.routes.dashboard import PATH
from demo.__main__ import demo_stack
from deploy import preparation
from deploy.compose import ENVIRONMENT, DeploymentError, core_trust, core_url, on_swarm, running, say

PORT_ON_SWARM = 7000
"""Of the core for operators, as README starts it."""


def show(_: argparse.Namespace) -> None:
    """In a browser, too, where this machine has a screen."""
    url, token = core()
    page, port = f"{url}{PATH}", url.rpartition(":")[2]
    say(f"""{page}
The browser asks for a name, any will do, and for a password: that is the token in {os.path.relpath(token)}.
From another machine: ssh -L {port}:127.0.0.1:{port} to this one, then the same address there.""")
    if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        webbrowser.open(page)


def core() -> tuple[str, Path]:
    """Where the one is that runs here, and the file with its token. Raises DeploymentError."""
    token = preparation.SECRETS / "core_token"
    if "core" in running():
        settings = preparation.settings()
        return core_url(settings["OPERATOR_PORT"], settings.get("COMPOSE_FILE", "")), token
    demo = demo_stack()
    if demo.is_up():
        return core_url(demo.ports.core, ""), demo.token_file
    if ENVIRONMENT.exists() and on_swarm():
        return core_url(PORT_ON_SWARM, ""), token
    raise DeploymentError("Nothing runs: just up or just demo starts it.")


def trust() -> ssl.SSLContext | None:
    """Of whoever calls that core."""
    files = preparation.settings().get("COMPOSE_FILE", "") if ENVIRONMENT.exists() else ""
    return core_trust(files, preparation.SECRETS)
