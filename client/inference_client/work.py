"""A command at work: its client, the steps that commands share, and how its errors and Ctrl-C end."""

import logging
import shlex
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import typer

from inference_client import terminal
from inference_client.answers import OnTransfer, Task, Transfer
from inference_client.client import Client
from inference_client.errors import (
    InferenceError,
    NotAllowed,
    NotConfigured,
    NotFinished,
    NotFound,
    NotInTime,
    Refused,
    TargetError,
    TaskFailed,
    Unavailable,
    Unreachable,
)
from inference_client.settings import Settings

EXIT_CODES: Final[Mapping[type[InferenceError], int]] = {
    NotConfigured: 2,
    TaskFailed: 3,
    NotFound: 4,
    Unreachable: 5,
    Unavailable: 5,
    NotFinished: 6,
    NotInTime: 6,
    NotAllowed: 7,
}
"""The help and README.md say them."""

OTHER_ERROR: Final = 1
SECRETS: Final = ("--key", "--webhook-secret")
INTERRUPTED: Final = 130


@contextmanager
def working(context: typer.Context) -> Iterator["Work"]:
    """An error is a sentence on stderr and an exit code; after Ctrl-C and what may pass another says how to go on."""
    work = None
    logging.basicConfig(handlers=[terminal.Warnings()], level=logging.WARNING)
    try:
        settings = Settings.read(context.obj)
        with Client(
            settings.url,
            ca=settings.ca,
            cert=settings.cert,
            key=settings.key,
            patience_seconds=settings.patience_seconds,
        ) as client:
            work = Work(client, context.obj)
            yield work
    except InferenceError as error:
        terminal.note(f"infer: {error}")
        if isinstance(error, Refused) and error.status >= 500 and error.request_id:
            terminal.note(f"infer: the operator finds this in the logs as {error.request_id}")
        if isinstance(error, (Unreachable, Unavailable, TargetError)) and work and work.how_to_go_on:
            terminal.note(f"infer: {work.how_to_go_on}")
        raise typer.Exit(exit_code(error)) from None
    except KeyboardInterrupt:
        terminal.note(f"infer: interrupted. {work.how_to_go_on if work else ''}".rstrip())
        raise typer.Exit(INTERRUPTED) from None


def exit_code(error: InferenceError) -> int:
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), OTHER_ERROR)


@dataclass
class Work:
    client: Client
    flags: Mapping[str, str | None]
    how_to_go_on: str = ""

    @contextmanager
    def sending(self) -> Iterator[OnTransfer]:
        """Shows an upload, and notes how to go on with it."""
        with terminal.transfer_bar("sending") as show:

            def note(transfer: Transfer) -> None:
                again = [] if transfer.uid in sys.argv else ["--uid", transfer.uid]
                self.how_to_go_on = f"To go on: {typed([*sys.argv[1:], *again])}"
                show(transfer)

            yield note

    def wait(self, uid: str, timeout_seconds: float | None = None) -> Task:
        self.how_to_go_on = (
            f"The task goes on: {', '.join(self._typed(verb, uid) for verb in ('wait', 'fetch', 'cancel'))}"
        )
        with terminal.task_bar() as show:
            on_change = show if terminal.is_watched() else None
            return self.client.wait(uid, timeout_seconds=timeout_seconds, on_change=on_change)

    def fetch(self, uid: str, output: Path | None) -> Path:
        """The zip where it was put, or the folder into which it was unpacked."""
        target = output or Path(f"{uid}.zip")
        self.how_to_go_on = f"To go on: {self._typed('fetch', uid, '-o', str(target))}"
        is_zip = target.suffix.lower() == ".zip"
        with terminal.transfer_bar("fetching") as show:
            fetched = self.client.fetch(uid, target if is_zip else target / f"{uid}.zip", on_progress=show)
        if is_zip:
            return fetched
        try:
            with zipfile.ZipFile(fetched) as archive:
                archive.extractall(target)
            fetched.unlink()
        except (OSError, zipfile.BadZipFile) as error:
            raise InferenceError(f"{fetched} can't be unpacked: {error}") from error
        return target

    def _typed(self, *words: str) -> str:
        """Another command to the same server."""
        flags = [f"--{name}={value}" for name, value in self.flags.items() if value is not None]
        return typed([*flags, *words])


def judge(task: Task) -> None:
    """Raises TaskFailed for one that failed."""
    if task.state == "failed":
        raise TaskFailed(f"The task failed ({task.reason}): {task.message}".rstrip())


def typed(words: Sequence[str]) -> str:
    """A command, for the shell, with dots where a secret stood: terminals are looked over, and their output is kept."""
    shown = ["infer"]
    for word in words:
        name, equals, _ = word.partition("=")
        if name in SECRETS and equals:
            shown.append(f"{name}=...")
        else:
            shown.append("..." if shown[-1] in SECRETS else word)
    return shlex.join(shown)
