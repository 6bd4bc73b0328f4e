"""`just keys`: the API keys of the system that runs here, made, listed and revoked at its core."""

import argparse
import json
import re
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from core.contract.key import Scope
from deploy import dashboard, preparation
from deploy.compose import DeploymentError, say

CALL_SECONDS: Final = 10
_PASTED: Final = re.compile(r"(?:isk_)?([0-9a-f]{12})(?:_|$)")


@dataclass(frozen=True)
class Core:
    url: str
    token: Path
    trust: ssl.SSLContext | None = None
    requires_keys: bool = False
    who_says_more: str = "just logs core"

    @classmethod
    def running(cls) -> "Core":
        """Raises DeploymentError."""
        url, token = dashboard.core()
        if token.parent != preparation.SECRETS:  # the demo's, of which the doctor knows nothing
            return cls(url, token, dashboard.trust())
        return cls(url, token, dashboard.trust(), preparation.requires_keys(), "just doctor")

    def ask(self, method: str, path: str) -> Any:
        """Raises DeploymentError in core's words."""
        authorization = f"Bearer {self.token.read_text().split()[0]}"
        request = urllib.request.Request(  # noqa: S310
            f"{self.url}{path}", method=method, headers={"Authorization": authorization}
        )
        try:
            with urllib.request.urlopen(request, timeout=CALL_SECONDS, context=self.trust) as answer:  # noqa: S310
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise DeploymentError(json.load(error)["detail"]) from None
        except OSError as error:
            raise DeploymentError(
                f"Core doesn't answer at {self.url}: {error}. {self.who_says_more} says more"
            ) from None


def make(core: Core, arguments: argparse.Namespace) -> None:
    """The key is the only line on stdout, for whoever puts it into a file."""
    wanted = {
        "name": arguments.name,
        "scope": arguments.scope or [Scope.SUBMIT],
        "posts_per_minute": arguments.posts_per_minute,
        "tasks_at_once": arguments.tasks_at_once,
        "expires_days": arguments.expires_days,
    }
    given = {name: value for name, value in wanted.items() if value is not None}
    made = core.ask("POST", f"/api/keys/?{urlencode(given, doseq=True)}")
    sys.stderr.write(f"{_line(made)}\nThe key, which nobody can show again:\n")
    sys.stderr.flush()
    say(made["key"])
    if not core.requires_keys:
        sys.stderr.write("Keys aren't required yet: API_KEYS=required for core makes them so.\n")


def show(core: Core, _: argparse.Namespace) -> None:
    for key in core.ask("GET", "/api/keys/"):
        say(_line(key))


def revoke(core: Core, arguments: argparse.Namespace) -> None:
    say(_line(core.ask("DELETE", f"/api/keys/{id_in(arguments.id)}")))


def id_in(pasted: str) -> str:
    """Of a key that leaked its secret goes no further, not into a log either. Raises DeploymentError."""
    if found := _PASTED.match(pasted.strip()):
        return found[1]
    raise DeploymentError("This is no key's id: just keys list shows them")


def _line(key: dict[str, Any]) -> str:
    def day(name: str) -> str:
        return str(key[name])[:10]

    notes = [
        f"revoked {day('revoked')}" if key["revoked"] else "",
        f"expires {day('expires')}" if key["expires"] else "",
        f"used {day('last_used')}" if key["last_used"] else "never used",
        f"{key['living_tasks'] or 0} of {key['tasks_at_once']} tasks" if key["tasks_at_once"] else "",
        f"{key['posts_per_minute']} posts a minute" if key["posts_per_minute"] else "",
    ]
    return f"{key['id']}  {','.join(key['scopes']):<20}  {key['name']}  ({', '.join(filter(None, notes))})"


def main(words: Sequence[str] | None = None, find: Callable[[], Core] = Core.running) -> int:
    parser = argparse.ArgumentParser(prog="just keys", description=__doc__)
    commands = parser.add_subparsers(required=True)
    making = commands.add_parser("make", help="make a key, and show it, once")
    making.add_argument("name", help="whose it is, or what for")
    making.add_argument(
        "--scope", action="append", choices=[scope.value for scope in Scope], help="submit by default; may be repeated"
    )
    making.add_argument("--posts-per-minute", metavar="N", help="of tasks, uploads and models")
    making.add_argument("--tasks-at-once", metavar="N", help="pending and running ones")
    making.add_argument("--expires-days", metavar="N", help="from now; else it is good until it is revoked")
    making.set_defaults(command=make)
    commands.add_parser("list", help="show all keys, without what opens").set_defaults(command=show)
    revoking = commands.add_parser("revoke", help="make a key open nothing any more")
    revoking.add_argument("id", help="the middle part of isk_ID_…, as in the list; the whole key does as well")
    revoking.set_defaults(command=revoke)
    arguments = parser.parse_args(words)
    try:
        arguments.command(find(), arguments)
    except DeploymentError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
