"""What a person sees: results on stdout, everything else on stderr, bars only where somebody watches."""

import dataclasses
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from inference_client.answers import Model, OnTransfer, Task, Transfer

LONGEST_LINE: Final = 10_000
out: Final = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else LONGEST_LINE)
"""For tables. What goes into a pipe or a file isn't broken into lines."""

err: Final = Console(stderr=True, highlight=False, emoji=False)

COLORS: Final = {"pending": "yellow", "running": "cyan", "finished": "green", "failed": "red"}


class Warnings(logging.Handler):
    """The client's: a server that is away, and when it is tried again."""

    def emit(self, record: logging.LogRecord) -> None:
        err.print(f"[yellow]{escape(record.getMessage())}[/]", soft_wrap=True)


def is_watched() -> bool:
    return err.is_terminal


def say(text: str) -> None:
    """As it is, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def note(text: str) -> None:
    err.print(text, markup=False, soft_wrap=True)


def say_json(value: object, *, indent: int | None = 2) -> None:
    say(json.dumps(_plain(value), indent=indent, ensure_ascii=False))


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime) else value


def show_models(models: Sequence[Model]) -> None:
    table = Table("model", "image", "GPU", "description", box=None, pad_edge=False)
    for model in models:
        name = escape(model.human_readable_id) + ("" if model.enabled else " [red](disabled)[/]")
        about = model.description.partition("\n")[0]
        table.add_row(name, escape(model.container_tag), "yes" if model.use_gpu else "", escape(about))
    out.print(table)


def show_task(task: Task) -> None:
    """Everything that says something."""
    table = Table.grid("", "", padding=(0, 2))
    rows: dict[str, Any] = {
        "task": task.uid,
        "model": task.model,
        "state": f"[{COLORS[task.state]}]{described(task)}[/]",
        "why": task.message and escape(f"{task.reason}: {task.message}"),
        "labels": escape(", ".join(f"{key}={value}" for key, value in task.labels.items())),
        "created": _local(task.created),
        "started": _local(task.started),
        "finished": _local(task.finished),
        "attempts": len(task.attempts) if len(task.attempts) > 1 else None,
        "input": _size(task.input_bytes),
        "output": _size(task.output_bytes),
    }
    for name, value in rows.items():
        if value:
            table.add_row(f"[dim]{name}[/]", str(value))
    out.print(table)


def described(task: Task) -> str:
    """In a few words, safe as markup."""
    words: list[str] = [task.state]
    if task.state == "pending" and task.waits_for:
        words.append(f"needs {task.waits_for}")
    elif task.state == "pending" and task.position is not None:
        words.append(f"{task.position} before it" if task.position else "next in line")
    elif task.state == "running" and task.progress:
        if task.progress.fraction is not None:
            words.append(f"{task.progress.fraction:.0%}")
        words.append(task.progress.message)
    return escape(", ".join(filter(None, words)))


def _local(time: datetime | None) -> str | None:
    return time.astimezone().strftime("%Y-%m-%d %H:%M:%S") if time else None


def _size(number: int | None) -> str | None:
    return f"{number:,} bytes" if number is not None else None


@contextmanager
def transfer_bar(words: str) -> Iterator[OnTransfer]:
    """How much, how fast, how long to go."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(compact=True), console=err, disable=not is_watched()) as bars:
        bar = bars.add_task(words, total=None)

        def show(transfer: Transfer) -> None:
            bars.update(bar, completed=transfer.done_bytes, total=transfer.total_bytes)

        yield show


@contextmanager
def task_bar() -> Iterator[Callable[[Task], None]]:
    """How the task stands, and how far the model says that it is."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, disable=not is_watched()) as bars:
        bar = bars.add_task("", total=None)

        def show(task: Task) -> None:
            fraction = task.progress.fraction if task.progress and task.state == "running" else None
            bars.update(bar, description=f"[{COLORS[task.state]}]{described(task)}[/]", completed=fraction or 0)
            bars.update(bar, total=1 if fraction is not None or task.has_ended else None)

        yield show
