"""The audit log, for operators to read."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

from core.contract.audit import Action
from core.contract.parameters import MOST_ENTRIES
from deploy.keys import Core, id_in

NEWEST: Final = 100
"""So many are shown, unless something is looked for."""


def show(arguments: argparse.Namespace, find: Callable[[], Core] = Core.running) -> None:
    """A line for each entry, the newest last, where one looks first. Raises DeploymentError."""
    key = id_in(arguments.key) if arguments.key else None
    filters = {"since": arguments.since, "task": arguments.task, "key": key}
    wanted = {name: value for name, value in filters.items() if value}
    limit = arguments.limit or (MOST_ENTRIES if wanted else NEWEST)
    found = find().ask("GET", f"/api/audit/?{urlencode({**wanted, 'limit': limit})}")
    for entry in reversed(found):
        sys.stdout.write(f"{json.dumps(entry) if arguments.json else line(entry)}\n")
    if len(found) == limit:
        more = "; --limit N shows more" * (limit < MOST_ENTRIES)
        sys.stderr.write(f"The newest {limit}{more}.\n")


def line(entry: Mapping[str, Any]) -> str:
    who = f"{entry['who']} ({entry['key']})" if entry["key"] else entry["who"]
    did = entry["action"]
    if entry["status"] >= HTTPStatus.BAD_REQUEST and did != Action.ACCESS_REFUSED:
        did += " failed"
    parts = (entry["time"][:19], entry["address"], who, did, entry["what"], entry["about"], entry["status"])
    return "  ".join(str(part) for part in parts if part)
