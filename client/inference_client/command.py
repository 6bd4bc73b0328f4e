"""`infer`: an InferenceServer from the command line."""

import sys
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Final

import typer

from inference_client import terminal
from inference_client.answers import Changed, Logged, Priority, Task
from inference_client.work import judge, working

HELP: Final = """Send files to a model on an InferenceServer, watch the task, fetch its result.

Which server: --url, or INFER_URL, or a file infer.toml with
url = "https://HOST:PORT", in ~/.config (on Windows in %APPDATA%),
or where INFER_CONFIG says. Likewise ca, cert, key and patience.

A key is what the server's operator gave out, if the server asks for one.
It is better in INFER_KEY than in --key, which others can see.

Results go to stdout, everything else to stderr. Exit codes:

0 done
1 refused, or another error
2 wrong usage
3 the task failed
4 no such task, model or result, or no longer
5 the server is away, full, or not trusted
6 the task hasn't ended, or not in time
7 not allowed: the key is missing, no longer good, or not for this
130 interrupted
"""

app = typer.Typer(
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(help="List the models, or add one.", invoke_without_command=True)
app.add_typer(models_app, name="models")

Uid = Annotated[str, typer.Argument(metavar="UID", help="What `infer submit` printed.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", help="The result: a zip, NAME.zip, or unpacked, a folder.")
]
Wait = Annotated[bool, typer.Option("-w", "--wait", help="Until the task has ended.")]


@app.callback()
def infer(
    context: typer.Context,
    url: Annotated[str | None, typer.Option(help="The server, https://HOST:PORT.")] = None,
    ca: Annotated[str | None, typer.Option(help="The file (PEM) of the CA that signed its certificate.")] = None,
    cert: Annotated[str | None, typer.Option(help="The file (PEM) of your own, with its key, if it asks.")] = None,
    key: Annotated[
        str | None, typer.Option(help="An API key, if the server asks for one; better in INFER_KEY.")
    ] = None,
    patience: Annotated[str | None, typer.Option(help="Seconds to bear that the server is away: 300.")] = None,
) -> None:
    context.obj = {"url": url, "ca": ca, "cert": cert, "key": key, "patience": patience}


@models_app.callback()
def models(context: typer.Context, as_json: AsJson = False) -> None:
    """List the models, or add one."""
    if context.invoked_subcommand:
        return
    with working(context) as work:
        found = work.client.models()
        terminal.say_json(found) if as_json else terminal.show_models(found)


@models_app.command("add")
def add_model(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="What `infer submit` will call it.")],
    image: Annotated[str, typer.Argument(help="The image's name, as for `docker run`.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(exists=True, help="What its containers find in /model: a folder, a zip, files."),
    ] = None,
    description: Annotated[str, typer.Option()] = "",
    gpu: Annotated[bool, typer.Option(help="Whether it needs one.")] = True,
    as_json: AsJson = False,
) -> None:
    """Register an image as a model, where the operator lets clients do so."""
    with working(context) as work:
        with terminal.transfer_bar("sending") as on_progress:
            model = work.client.add_model(
                name, image, description=description, use_gpu=gpu, files=files or None, on_progress=on_progress
            )
        terminal.say_json(model) if as_json else terminal.say(model.human_readable_id)


@app.command()
def submit(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="One of `infer models`.")],
    files: Annotated[
        list[Path], typer.Argument(exists=True, metavar="FILE|FOLDER|ZIP...", help="One zip goes as it is.")
    ],
    wait: Wait = False,
    output: Output = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Repeatable.")] = None,
    priority: Annotated[Priority | None, typer.Option()] = None,
    ttl: Annotated[float | None, typer.Option(metavar="SECONDS", help="Give it up if it starts no sooner.")] = None,
    timeout: Annotated[int | None, typer.Option(metavar="SECONDS", help="How long it may run.")] = None,
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Called when it has ended.")] = None,
    webhook_secret: Annotated[
        str | None, typer.Option(envvar="INFER_WEBHOOK_SECRET", help="Signs the call. Better in the environment.")
    ] = None,
    uid: Annotated[str | None, typer.Option(help="Go on with one that was interrupted.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send files, or a folder's content, to a model. Prints the task's uid. With -o waits and fetches the result.

    Files are packed into a zip while they are sent, uncompressed: what compresses well is better zipped before.
    """
    labels = _labels(label or [])
    if webhook and not webhook_secret:
        raise typer.BadParameter("needs INFER_WEBHOOK_SECRET, which signs the call", param_hint="--webhook")
    with working(context) as work:
        with work.sending() as on_progress:
            task = work.client.submit(
                model,
                files,
                priority=priority,
                labels=labels,
                ttl_seconds=ttl,
                timeout_seconds=timeout,
                webhook=webhook,
                webhook_secret=webhook_secret,
                uid=uid,
                on_progress=on_progress,
            )
        if not as_json:
            terminal.say(task.uid)
        if wait or output:
            task = work.wait(task.uid)
            if output and task.state == "finished":
                terminal.note(f"The result is in {work.fetch(task.uid, output)}")
        if as_json:
            terminal.say_json(task)
        judge(task)


@app.command()
def status(context: typer.Context, uid: Uid, as_json: AsJson = False) -> None:
    """Show how a task stands."""
    with working(context) as work:
        _show(work.client.status(uid), as_json)


@app.command()
def wait(
    context: typer.Context,
    uid: Uid,
    timeout: Annotated[float | None, typer.Option(metavar="SECONDS", help="Exit with 6 after this long.")] = None,
    as_json: AsJson = False,
) -> None:
    """Wait until a task has ended. Exits with 0 if it finished, with 3 if it failed."""
    with working(context) as work:
        _show_end(work.wait(uid, timeout), as_json)


@app.command()
def logs(
    context: typer.Context,
    uid: Uid,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Until the task has ended.")] = False,
    attempt: Annotated[int | None, typer.Option(help="If not said, the latest; with -f, all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print what a task's container writes. With -f --json each event of the task, one a line."""
    with working(context) as work:
        if not follow:
            text = work.client.log(uid, attempt=attempt)
            terminal.say_json({"uid": uid, "text": text}) if as_json else sys.stdout.write(text)
            return
        for event in work.client.events(uid):
            if isinstance(event, Logged) and attempt not in (None, event.attempt):
                continue
            if as_json:
                terminal.say_json({"event": type(event).__name__.lower(), **vars(event)}, indent=None)
            elif isinstance(event, Logged):
                sys.stdout.write(event.text)
                sys.stdout.flush()
            elif isinstance(event, Changed):
                terminal.note(f"-- {event.task.state}")


@app.command()
def fetch(context: typer.Context, uid: Uid, output: Output = None, as_json: AsJson = False) -> None:
    """Fetch a task's result, by default as UID.zip. What was interrupted goes on where it stopped."""
    with working(context) as work:
        fetched = str(work.fetch(uid, output))
        terminal.say_json({"uid": uid, "output": fetched}) if as_json else terminal.say(fetched)


@app.command()
def cancel(context: typer.Context, uid: Uid, as_json: AsJson = False) -> None:
    """End a task that waits or runs."""
    with working(context) as work:
        _show(work.client.cancel(uid), as_json)


@app.command()
def retry(context: typer.Context, uid: Uid, wait: Wait = False, as_json: AsJson = False) -> None:
    """Run a failed task again, on the same files."""
    with working(context) as work:
        task = work.client.retry(uid)
        _show_end(work.wait(uid), as_json) if wait else _show(task, as_json)


@app.command()
def delete(context: typer.Context, uid: Uid, as_json: AsJson = False) -> None:
    """Remove a task with all of its data; one that runs is cancelled."""
    with working(context) as work:
        work.client.delete(uid)
        terminal.say_json({"uid": uid, "deleted": True}) if as_json else terminal.say(uid)


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a Windows console can't show every name
    app()


def _show(task: Task, as_json: bool) -> None:
    terminal.say_json(task) if as_json else terminal.show_task(task)


def _show_end(task: Task, as_json: bool) -> None:
    """Why a task failed is the error's to say."""
    if as_json or task.state != "failed":
        _show(task, as_json)
    judge(task)


def _labels(given: list[str]) -> dict[str, str]:
    labels = {}
    for label in given:
        key, equals, value = label.partition("=")
        if not key or not equals:
            raise typer.BadParameter(f"{label!r} isn't KEY=VALUE", param_hint="--label")
        labels[key] = value
    return labels
