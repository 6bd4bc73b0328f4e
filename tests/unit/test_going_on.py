"""What the client makes of a server that is slow, goes away or has forgotten, and of a disk that takes no more."""

import asyncio
import itertools
import json
import os
import random
import resource
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from inference_client import AsyncClient, Changed, Conflict, Logged, NotFound, TargetError, Unreachable
from inference_client.settings import Settings
from inference_client.uploads import SMALL_BYTES
from inference_client.work import typed

from demo.stack import REPOSITORY

UID = "u" * 43
TASK = f"/api/tasks/{UID}"
RESULT = random.Random(1).randbytes(2**20)
STATUS = {"uid": UID, "model": "m", "state": "finished", "created": "2026-01-01T00:00:00Z"}
PATIENCE_SECONDS = 0.2
LONG_SECONDS = 3 * PATIENCE_SECONDS
"""A client's patience would be at its end."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "localhost")


@asynccontextmanager
async def serving(**handlers: Handler) -> AsyncIterator[str]:
    """The address of a server with these answers, and with plain ones to what it has no others for."""

    async def status(_: web.Request) -> web.Response:
        return web.json_response({**STATUS, "output_bytes": len(RESULT)})

    async def models(_: web.Request) -> web.Response:
        return web.json_response([])

    paths = {
        "models": "/api/models/",
        "status": f"{TASK}/status",
        "result": TASK,
        "put": "/api/tasks/{uid}",
        "events": f"{TASK}/events",
    }
    app = web.Application()
    for name, handler in {"models": models, "status": status, **handlers}.items():
        app.router.add_route("PUT" if name == "put" else "*", paths[name], handler)
    async with TestServer(app, host="localhost") as server:
        yield f"http://localhost:{server.port}"


@asynccontextmanager
async def client_of(**handlers: Handler) -> AsyncIterator[AsyncClient]:
    async with serving(**handlers) as url, AsyncClient(url, patience_seconds=PATIENCE_SECONDS) as client:
        yield client


def cut(call: web.Request) -> None:
    assert call.transport
    call.transport.abort()


async def begin_result(call: web.Request) -> tuple[web.StreamResponse, bytes]:
    """The head of an answer that has the result from where the client asks for it, and what is to follow."""
    rest = RESULT[call.http_range.start or 0 :]
    answer = web.StreamResponse(status=206 if call.http_range.start else 200, headers={"ETag": '"e"'})
    answer.content_length = len(rest)
    await answer.prepare(call)
    return answer, b"" if call.method == "HEAD" else rest


async def result(call: web.Request) -> web.StreamResponse:
    answer, rest = await begin_result(call)
    await answer.write(rest)
    return answer


async def test_two_fetch_one_result(tmp_path: Path) -> None:
    """At a time, into one file: it is the result."""
    both = asyncio.Barrier(2)

    async def together(call: web.Request) -> web.StreamResponse:
        if call.method == "GET":
            await both.wait()
        return await result(call)

    target = tmp_path / "result.zip"
    async with client_of(result=together) as client:
        await asyncio.gather(client.fetch(UID, target), client.fetch(UID, target))
    assert target.read_bytes() == RESULT
    assert list(tmp_path.iterdir()) == [target]


async def test_a_third_begins_when_the_first_is_done(tmp_path: Path) -> None:
    """The second, which filled the first's file with it, doesn't give what the third has begun the result's name."""
    begun, goes = [[asyncio.Event() for _ in range(3)] for _ in range(2)]
    turns = itertools.count()

    async def in_turn(call: web.Request) -> web.StreamResponse:
        if call.method == "GET":
            turn = next(turns)
            begun[turn].set()
            await goes[turn].wait()
        return await result(call)

    target = tmp_path / "result.zip"
    async with client_of(result=in_turn) as client, asyncio.TaskGroup() as group:

        async def begin(turn: int) -> asyncio.Task[Path]:
            fetching = group.create_task(client.fetch(UID, target))
            await begun[turn].wait()
            return fetching

        async def finish(turn: int, fetching: asyncio.Task[Path]) -> None:
            goes[turn].set()
            assert (await fetching).read_bytes() == RESULT

        first, second = await begin(0), await begin(1)
        await finish(0, first)
        third = await begin(2)
        await finish(1, second)
        await finish(2, third)
    assert list(tmp_path.iterdir()) == [target]


async def test_what_is_longer_than_the_result(tmp_path: Path) -> None:
    """Something else wrote to what had arrived: it is thrown away, not taken for the result."""
    goes = asyncio.Event()

    async def cut_at_first(call: web.Request) -> web.StreamResponse:
        answer, rest = await begin_result(call)
        if goes.is_set() or call.method == "HEAD":
            await answer.write(rest)
        elif rest == RESULT:
            await answer.write(rest[: len(rest) // 2])
            cut(call)
        else:
            cut(call)
        return answer

    async with client_of(result=cut_at_first) as client:
        with pytest.raises(Unreachable):
            await client.fetch(UID, tmp_path / "result.zip")
        [part] = tmp_path.iterdir()
        assert RESULT.startswith(part.read_bytes())
        part.write_bytes(RESULT + b"more")
        goes.set()
        with pytest.raises(Conflict, match="again"):
            await client.fetch(UID, tmp_path / "result.zip")
        assert not list(tmp_path.iterdir())
        assert (await client.fetch(UID, tmp_path)).read_bytes() == RESULT


@contextmanager
def file_in_the_way(folder: Path) -> Iterator[Path]:
    (folder / "file").touch()
    yield folder / "file" / "result.zip"


@contextmanager
def no_room(folder: Path) -> Iterator[Path]:
    """For half of the result."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(RESULT) // 2, hard))
    try:
        yield folder / "result.zip"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("place", [file_in_the_way, no_room])
async def test_a_place_that_can_not_be_written(
    place: Callable[[Path], AbstractContextManager[Path]],
    tmp_path: Path,
) -> None:
    """Says so; and what had arrived when the disk was full needn't be sent again."""
    asked_from: list[int | None] = []

    async def noting(call: web.Request) -> web.StreamResponse:
        asked_from.append(call.http_range.start)
        return await result(call)

    async with client_of(result=noting) as client:
        with place(tmp_path) as target, pytest.raises(TargetError, match=f"{target} can't be written"):
            await client.fetch(UID, target)
        assert (await client.fetch(UID, tmp_path / "result.zip")).read_bytes() == RESULT
    assert place is file_in_the_way or asked_from[-1] == len(RESULT) // 2


async def test_a_stream_in_which_nothing_happens() -> None:
    """For longer than the client is patient, and cut more than once: as long as there are signs of life it goes on."""
    last_ids: list[str | None] = []

    async def quiet(call: web.Request) -> web.StreamResponse:
        last_ids.append(call.headers.get("Last-Event-ID"))
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(call)
        if len(last_ids) == 1:
            await answer.write(b'event: log\nid: 1-0\ndata: {"attempt": 1, "text": "one"}\n\n')
        if len(last_ids) == 3:
            await answer.write(f"event: state\nid: 2-0\ndata: {json.dumps(STATUS)}\n\n".encode())
            return answer
        await asyncio.sleep(LONG_SECONDS)
        await answer.write(b":\n\n")
        cut(call)
        return answer

    async with client_of(events=quiet) as client:
        events = [event async for event in client.events(UID)]
    assert [type(event) for event in events] == [Logged, Changed]
    assert last_ids == [None, "1-0", "1-0"]


async def test_a_call_that_takes_long() -> None:
    """Is made again when it is cut, though it took longer than the client is patient."""
    sent: list[bytes] = []

    async def slow(call: web.Request) -> web.Response:
        sent.append(await call.read())
        if len(sent) == 1:
            await asyncio.sleep(LONG_SECONDS)
            cut(call)
        return web.json_response(STATUS, status=201)

    async with client_of(put=slow) as client:
        await client.models()
        assert (await client.submit("m", b"zip", uid=UID)).uid == UID
    assert sent == [b"zip", b"zip"]


async def test_a_large_upload_that_the_server_forgot() -> None:
    """Isn't sent in one request, which couldn't go on after a cut; if the task is there, all is done."""
    puts: list[web.Request] = []

    async def put(call: web.Request) -> web.Response:
        puts.append(call)
        return web.json_response(STATUS)

    async def none(_: web.Request) -> web.Response:
        return web.json_response({"detail": "No task"}, status=404)

    async def there(_: web.Request) -> web.Response:
        return web.json_response({**STATUS, "input_bytes": SMALL_BYTES + 1})

    large = bytes(SMALL_BYTES + 1)
    async with client_of(put=put, status=none) as client:
        with pytest.raises(NotFound, match="without --uid"):
            await client.submit("m", large, uid=UID)
    async with client_of(put=put, status=there) as client:
        assert (await client.submit("m", large, uid=UID)).uid == UID
        with pytest.raises(Conflict, match="leave the uid out"):
            await client.submit("m", large + b"1", uid=UID)
    assert not puts


async def infer(*words: str, cwd: Path, **environment: str) -> tuple[int | None, str, str]:
    """Its exit code, stdout and stderr."""
    environment = {"PYTHONPATH": str(REPOSITORY / "client"), "HOME": str(cwd), "PATH": os.environ["PATH"]} | environment
    command = [sys.executable, "-m", "inference_client", *words]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=cwd, env=environment, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_says_how_to_go_on(tmp_path: Path) -> None:
    """Also when the server stays away, and nobody's secret."""
    (tmp_path / "a").write_bytes(b"a")

    async def away(call: web.Request) -> web.Response:
        await call.read()
        cut(call)
        return web.Response()

    async with serving(put=away) as url:
        code, out, err = await infer("--url", url, "--key=abc", "submit", "m", "a", cwd=tmp_path)
    assert (code, out) == (5, "")
    assert f"To go on: infer --url {url} --key=... submit m a --uid " in err
    async with serving(result=result) as url:
        code, out, err = await infer("--url", url, "fetch", UID, "-o", "a", cwd=tmp_path)
    assert (code, out) == (1, "")
    assert f"To go on: infer --url={url} fetch {UID} -o a" in err
    assert "Traceback" not in err


async def test_secrets_that_can_not_be_used(tmp_path: Path) -> None:
    """A webhook needs one; and what a header can't have isn't said again."""
    (tmp_path / "a").touch()
    submit = ("--url", "http://localhost:1", "submit", "m", "a", "--webhook", "https://localhost/")
    code, _, err = await infer(*submit, cwd=tmp_path)
    assert (code, "INFER_WEBHOOK_SECRET" in err) == (2, True)
    for secret in ("sécret", "secret\n", "se\ncret"):
        assert await infer(*submit, cwd=tmp_path, INFER_WEBHOOK_SECRET=secret) == (
            1,
            "",
            "infer: The webhook's secret can't be sent: it has characters that no header has, or spaces around\n",
        )
    for key in ("clé", "secret\nof two lines", "secret word"):
        assert await infer("models", cwd=tmp_path, INFER_URL="http://localhost:1", INFER_KEY=key) == (
            2,
            "",
            "infer: The key has characters that no key has\n",
        )


async def test_a_key_with_its_files_last_newline(tmp_path: Path) -> None:
    async def models(request: web.Request) -> web.Response:
        return web.json_response([], status=200 if request.headers["Authorization"] == "Bearer abc" else 401)

    async with serving(models=models) as url:
        assert (await infer("models", cwd=tmp_path, INFER_URL=url, INFER_KEY="abc\n"))[0] == 0


def test_a_key_that_others_may_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "infer.toml"
    file.write_text('url = "https://localhost"\nkey = "abc"\n')
    for mode in (0o640, 0o600):
        file.chmod(mode)
        assert Settings.read({}, {"INFER_CONFIG": str(file)}).key == "abc"
    assert [record.getMessage() for record in caplog.records] == [
        f"{file} has a key, and others on this machine may read it: chmod 600 {file}"
    ]


async def test_the_log_of_one_attempt(tmp_path: Path) -> None:
    """Followed, too."""

    async def events(_: web.Request) -> web.Response:
        logged = [{"attempt": number, "text": f"in {number}\n"} for number in (1, 2)]
        text = "".join(f"event: log\ndata: {json.dumps(data)}\n\n" for data in logged)
        return web.Response(text=f"{text}event: state\ndata: {json.dumps(STATUS)}\n\n")

    async with serving(events=events) as url:
        assert (await infer("--url", url, "logs", "-f", "--attempt", "2", UID, cwd=tmp_path))[:2] == (0, "in 2\n")


def test_secrets_are_not_repeated() -> None:
    """In what is to be typed again."""
    words = ["--key", "abc", "submit", "m", "a b", "--webhook-secret=def", "--uid", UID]
    assert typed(words) == f"infer --key ... submit m 'a b' --webhook-secret=... --uid {UID}"


def test_a_setting_that_is_empty(tmp_path: Path) -> None:
    """Is one that isn't set."""
    environment = {"INFER_CONFIG": "", "INFER_URL": "https://localhost", "XDG_CONFIG_HOME": str(tmp_path)}
    assert Settings.read({}, environment).url == "https://localhost"
