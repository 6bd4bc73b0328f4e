"""The Python API: `Client`, which blocks, and `AsyncClient`, with the same methods."""

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing
from json import loads
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from inference_client.answers import (
    Changed,
    Event,
    Logged,
    Model,
    OnTransfer,
    Priority,
    Progress,
    Progressed,
    Task,
    Transfer,
)
from inference_client.blocking import blocking, blocking_iterator, run
from inference_client.downloads import Download, writing
from inference_client.errors import Gone, Invalid, NotFinished, NotInTime, TaskFailed, Unreachable
from inference_client.eventstream import Message, messages
from inference_client.session import PASSING, Patience, Session, task_path
from inference_client.sources import Given, source
from inference_client.uploads import ZIP, Upload, body_of
from inference_client.wire import AsyncWire, BlockingWire, Call, Wire, trust

PATIENCE_SECONDS: Final = 300.0
WAIT_SECONDS: Final = 30.0
"""How long the server is asked to keep a question open; with somebody who watches, shorter, to see what changes."""

WATCH_SECONDS: Final = 2.0
SHORTEST_WAIT_SECONDS: Final = 1.0
"""A server that is about to stop answers at once."""

SILENT_STREAM_SECONDS: Final = 45.0
"""A stream of events says something every 15 seconds."""


def _nobody(_: Transfer) -> None:
    """Nobody watches."""


class Operations:
    """All that can be asked of a server, over either wire. Raises `InferenceError`s (errors.py).

    A call that is safe to repeat is repeated while the server is away, until it has been for `patience_seconds`; the
    very first one isn't, for the address may be wrong.
    """

    def __init__(self, wire: Wire, patience_seconds: float) -> None:
        self._wire = wire
        self._session = Session(wire, patience_seconds)

    async def models(self) -> list[Model]:
        return [Model.of(model) for model in await self._session.json(Call("GET", "/api/models/"))]

    async def add_model(
        self,
        name: str,
        container_tag: str,
        *,
        description: str = "",
        use_gpu: bool = True,
        files: Given | None = None,
        on_progress: OnTransfer = _nobody,
    ) -> Model:
        """Registers an image, with the files that its containers find in /model. Conflict: there is one of that name.

        Only where the operator lets clients register models, else NotAllowed.
        """
        params = {"human_readable_id": name, "container_tag": container_tag, "description": description}
        params |= {"use_gpu": str(use_gpu).lower(), "model_available": str(files is not None).lower()}
        call = Call("POST", "/api/models/", list(params.items()))
        if files is not None:
            zip = await self._wire.beside(source, files)
            call = Call("POST", "/api/models/", call.params, ZIP, body_of(zip, name, on_progress))
        return Model.of(await self._session.json(call, repeat=False))

    async def submit(
        self,
        model: str,
        files: Given,
        *,
        priority: Priority | None = None,
        labels: Mapping[str, str] | None = None,
        ttl_seconds: float | None = None,
        timeout_seconds: int | None = None,
        webhook: str | None = None,
        webhook_secret: str | None = None,
        uid: str | None = None,
        on_progress: OnTransfer = _nobody,
    ) -> Task:
        """Sends files to a model: a zip as it is (its path or its bytes), a folder's content, or several files.

        Goes on after any cut. `on_progress` hears the uid as soon as there is one: with it, another call goes on where
        this one was interrupted, or finds that all is done. A uid of one's own is for zips of up to 8 MB.

        `ttl_seconds` bounds how long the task may wait for its start, `timeout_seconds` how long it may run, below the
        model's own limit. The webhook's secret signs its calls.
        """
        secret = webhook_secret or ""
        if not (secret.isascii() and secret.isprintable() and secret == secret.strip()):
            raise Invalid("The webhook's secret can't be sent: it has characters that no header has, or spaces around")
        zip = await self._wire.beside(source, files)
        options = {"priority": priority, "ttl_seconds": ttl_seconds, "timeout_seconds": timeout_seconds}
        params = [("model_human_readable_id", model)]
        params += [(name, str(value)) for name, value in options.items() if value is not None]
        params += [("label", f"{key}={value}") for key, value in (labels or {}).items()]
        params += [("webhook", webhook)] if webhook else []
        headers = {"Webhook-Secret": webhook_secret} if webhook_secret else {}
        return await self.status(await Upload(self._session, zip, params, headers, on_progress).run(uid))

    async def status(self, uid: str) -> Task:
        return await self._look(uid, 0)

    async def wait(
        self,
        uid: str,
        *,
        timeout_seconds: float | None = None,
        on_change: Callable[[Task], None] | None = None,
    ) -> Task:
        """The task as it has ended, well or not. NotInTime: it hasn't within so many seconds. `on_change` hears how it
        stands at first, and then each time that it stands otherwise.
        """
        deadline = time.monotonic() + timeout_seconds if timeout_seconds is not None else math.inf
        longest = WAIT_SECONDS if on_change is None else WATCH_SECONDS
        seconds, known = 0.0, None
        while True:
            asked = time.monotonic()
            task = await self._look(uid, seconds)
            if task != known and on_change:
                on_change(task)
            if task.has_ended:
                return task
            now = time.monotonic()
            if now >= deadline:
                raise NotInTime(f"{uid} is still {task.state} after {timeout_seconds:g} seconds")
            await self._wire.pause(max(0.0, asked + min(seconds, SHORTEST_WAIT_SECONDS) - now))
            seconds, known = min(longest, deadline - now), task

    async def _look(self, uid: str, wait_seconds: float) -> Task:
        call = Call("GET", task_path(uid, "status"), [("wait", f"{wait_seconds:.1f}")])
        return Task.of(await self._session.json(call))

    async def events(self, uid: str, *, after: str = "") -> AsyncGenerator[Event, None]:
        """What happens to the task, until its end: how it stands at first and at each change, what it says of its
        progress, and its log's lines. `after` an event's id: what came since, as far as that is kept.
        """
        patience = self._session.patience()
        ended = False
        while not ended:
            headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": after} if after else {})
            call = Call("GET", task_path(uid, "events"), (), headers, silent_seconds=SILENT_STREAM_SECONDS)
            try:
                async with self._session.exchange(call) as answer:
                    if answer.status == 204:
                        return
                    async with aclosing(messages(_heard(answer.pieces, patience))) as stream:
                        async for message in stream:
                            after = message.id or after
                            if event := _event(message):
                                ended = isinstance(event, Changed) and event.task.has_ended
                                yield event
                if not ended:
                    raise Unreachable("The stream of events ended before the task did")
            except PASSING as error:
                await patience.wait(error)

    async def log(self, uid: str, *, attempt: int | None = None) -> str:
        """What the container wrote, as far as it is kept, of the latest attempt or of that one."""
        params = [("attempt", str(attempt))] if attempt is not None else []
        _, body = await self._session.call(Call("GET", task_path(uid, "log"), params))
        return body.decode(errors="replace")

    async def fetch(self, uid: str, to: str | PathLike[str], *, on_progress: OnTransfer = _nobody) -> Path:
        """The result, as a zip of that name, or in that folder, where it is called after the uid.

        Goes on after any cut, and where another call, of another process too, was interrupted. NotFinished, TaskFailed
        and Gone say why there is none, TargetError why it can't be written.
        """
        task = await self.status(uid)
        if task.state == "failed":
            raise TaskFailed(f"{uid} failed ({task.reason}): {task.message}")
        if not task.has_ended:
            raise NotFinished(f"{uid} is {task.state}: there is no result yet")
        if task.output_bytes is None:
            raise Gone(f"The result of {uid} is no longer kept")
        target = Path(to)
        with writing(target):
            is_folder = await self._wire.beside(target.is_dir)
        target = target / f"{uid}.zip" if is_folder else target
        await Download(self._session, uid, target, on_progress).run()
        return target

    async def cancel(self, uid: str) -> Task:
        """Ends a task that waits or runs. Conflict: it has ended."""
        return Task.of(await self._session.json(Call("POST", task_path(uid, "cancel"))))

    async def retry(self, uid: str) -> Task:
        """Runs a failed task again, on the same files. Conflict: it hasn't failed. Gone: the files are kept no more."""
        return Task.of(await self._session.json(Call("POST", task_path(uid, "retry")), repeat=False))

    async def delete(self, uid: str) -> None:
        """Removes a task and all of its data; one that runs is cancelled."""
        await self._session.call(Call("DELETE", task_path(uid)), repeat=False)


class AsyncClient(Operations):
    """`async with AsyncClient("https://…", ca="ca.crt") as client: await client.models()`

    For asyncio. `ca` is the file of who may sign the server's certificate, `cert` that of the client's own with its
    key, and `key` an API key, for a server that asks for one.
    """

    def __init__(
        self,
        url: str,
        *,
        ca: str | PathLike[str] | None = None,
        cert: str | PathLike[str] | None = None,
        key: str | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        super().__init__(AsyncWire(url, trust(ca, cert), key), patience_seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._wire.close()


class Client:
    """`with Client("https://…", ca="ca.crt") as client: client.models()`

    `ca` is the file of who may sign the server's certificate, `cert` that of the client's own with its key, and `key`
    an API key, for a server that asks for one. For one thread.
    """

    def __init__(
        self,
        url: str,
        *,
        ca: str | PathLike[str] | None = None,
        cert: str | PathLike[str] | None = None,
        key: str | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._wire = BlockingWire(url, trust(ca, cert), key)
        self._operations = Operations(self._wire, patience_seconds)

    models = blocking(Operations.models)
    add_model = blocking(Operations.add_model)
    submit = blocking(Operations.submit)
    status = blocking(Operations.status)
    wait = blocking(Operations.wait)
    events = blocking_iterator(Operations.events)
    log = blocking(Operations.log)
    fetch = blocking(Operations.fetch)
    cancel = blocking(Operations.cancel)
    retry = blocking(Operations.retry)
    delete = blocking(Operations.delete)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        run(self._wire.close())


async def _heard(pieces: AsyncIterator[bytes], patience: Patience) -> AsyncGenerator[bytes, None]:
    """Whatever comes, if only a comment, shows that the server is there, however long nothing happens to the task."""
    async for piece in pieces:
        patience.reset()
        yield piece


def _event(message: Message) -> Event | None:
    """None: of a kind that a later server has."""
    fields = loads(message.data)
    match message.kind:
        case "state":
            return Changed(message.id, Task.of(fields))
        case "progress":
            return Progressed(message.id, Progress.of(fields))
        case "log":
            return Logged(message.id, fields["attempt"], fields["text"])
        case _:
            return None
