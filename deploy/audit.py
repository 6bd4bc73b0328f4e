"""The audit log, for operators to read."""

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from deploy.keys import Core

FILTERS: Final = ("since", "task", "key", "limit")


def show(arguments: argparse.Namespace) -> None:
    """A line for each entry, the newest last, where one looks first. Raises DeploymentError."""
    chosen = {name: value for name in FILTERS if (value := getattr(arguments, name))}
    for entry in reversed(Core.running().ask("GET", f"/api/audit/?{urlencode(chosen)}")):
        sys.stdout.write(f"{json.dumps(entry) if arguments.json else line(entry)}\n")


def line(entry: Mapping[str, Any]) -> str:
    who = f"{entry['who']} ({entry['key']})" if entry["key"] else entry["who"]
    parts = (entry["time"][:19], entry["address"], who, entry["action"], entry["what"], entry["about"], entry["status"])
    return "  ".join(str(part) for part in parts if part)
