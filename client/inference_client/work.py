"""A command at work: its client, the steps that commands share, and how its errors and Ctrl-C end."""

import logging
import shlex
import sys
import zipfile
from collections.abc import Iterator, Mapping
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
    NotFinished,
    NotFound,
    NotInTime,
    Refused,
    TaskFailed,
    Unavailable,
    Unreachable,
)
from inference_client.settings import NotConfigured, Settings

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
INTERRUPTED: Final = 130


@contextmanager
def working(context: typer.Context) -> Iterator["Work"]:
    """An error is a sentence on stderr and an exit code, and Ctrl-C says how to go on."""
    work = None
    logging.basicConfig(handlers=[terminal.Warnings()], level=logging.WARNING)
    try:
        settings = Settings.read(context.obj)
        with Client(
            settings.url, ca=settings.ca, key=settings.key, patience_seconds=settings.patience_seconds
        ) as client:
            work = Work(client)
            yield work
    except InferenceError as error:
        terminal.note(f"infer: {error}")
        if isinstance(error, Refused) and error.status >= 500 and error.request_id:
            terminal.note(f"infer: the operator finds this in the logs as {error.request_id}")
        raise typer.Exit(exit_code(error)) from None
    except KeyboardInterrupt:
        terminal.note(f"infer: interrupted. {work.how_to_go_on if work else ''}".rstrip())
        raise typer.Exit(INTERRUPTED) from None


def exit_code(error: InferenceError) -> int:
    return next((code for kind, code in EXIT_CODES.items() if isinstance(error, kind)), OTHER_ERROR)


@dataclass
class Work:
    client: Client
    how_to_go_on: str = ""

    @contextmanager
    def sending(self) -> Iterator[OnTransfer]:
        """Shows an upload, and notes how to go on with it."""
        with terminal.transfer_bar("sending") as show:

            def note(transfer: Transfer) -> None:
                again = "" if transfer.uid in sys.argv else f" --uid {transfer.uid}"
                self.how_to_go_on = f"To go on: {_typed()}{again}"
                show(transfer)

            yield note

    def wait(self, uid: str, timeout_seconds: float | None = None) -> Task:
        self.how_to_go_on = f"The task goes on: infer wait {uid}, infer fetch {uid}, infer cancel {uid}"
        with terminal.task_bar() as show:
            on_change = show if terminal.is_watched() else None
            return self.client.wait(uid, timeout_seconds=timeout_seconds, on_change=on_change)

    def fetch(self, uid: str, output: Path | None) -> Path:
        """The zip where it was put, or the folder into which it was unpacked."""
        target = output or Path(f"{uid}.zip")
        self.how_to_go_on = f"To go on: {shlex.join(['infer', 'fetch', uid, '-o', str(target)])}"
        is_zip = target.suffix.lower() == ".zip"
        with terminal.transfer_bar("fetching") as show:
            fetched = self.client.fetch(uid, target if is_zip else target / f"{uid}.zip", on_progress=show)
        if is_zip:
            return fetched
        try:
            with zipfile.ZipFile(fetched) as archive:
                archive.extractall(target)
        except (OSError, zipfile.BadZipFile) as error:
            raise InferenceError(f"{fetched} can't be unpacked: {error}") from error
        fetched.unlink()
        return target


def judge(task: Task) -> None:
    """Raises TaskFailed for one that failed."""
    if task.state == "failed":
        raise TaskFailed(f"The task failed ({task.reason}): {task.message}".rstrip())


def _typed() -> str:
    """This command, for the shell."""
    return shlex.join(["infer", *sys.argv[1:]])
