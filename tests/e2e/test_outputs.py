"""What a model sees, what it may, and what comes back of what it leaves."""

import re
import stat

import pytest

from tests.e2e.api import Api
from tests.e2e.conftest import COPY, INPUT, ModelMaker
from tests.zips import files_of, modes_of, zip_of

ROOT = b"root:"  # how any passwd begins


def test_all_that_a_model_leaves_comes_back(api: Api, model: ModelMaker) -> None:
    """Folders, empty ones included, empty files, any names, modes."""
    script = """
        mkdir -p /output/a/empty "/output/ünï cödé"
        touch /output/a/nothing
        echo 42 > "/output/ünï cödé/häßlich 漢字 %20.txt"
        chmod 750 /output/a/nothing; chmod 700 /output/a/empty
    """
    output = api.output(model(script), INPUT)
    assert files_of(output) == {
        "a/": b"",
        "a/empty/": b"",
        "a/nothing": b"",
        "ünï cödé/": b"",
        "ünï cödé/häßlich 漢字 %20.txt": b"42\n",
    }
    modes = modes_of(output)
    assert modes["a/nothing"] == stat.S_IFREG | 0o750
    assert modes["a/empty/"] == stat.S_IFDIR | 0o700


def test_links_that_stay_inside_come_back_as_links(api: Api, model: ModelMaker) -> None:
    """An absolute target below /output becomes relative; one that doesn't exist is harmless."""
    script = """
        mkdir /output/a; echo 42 > /output/a/file
        ln -s a/file /output/relative; ln -s /output/a/file /output/a/absolute
        ln -s ../a /output/a/folder; ln -s nothing /output/dangling
    """
    output = api.output(model(script), INPUT)
    links = {name: content for name, content in files_of(output).items() if stat.S_ISLNK(modes_of(output)[name])}
    assert links.keys() == {"relative", "a/absolute", "a/folder", "dangling"}
    assert (links["relative"], links["a/absolute"], links["dangling"]) == (b"a/file", b"../a/file", b"nothing")


@pytest.mark.parametrize(
    "script",
    [
        "ln -s /etc/passwd /output/x",
        "ln -s ../etc/passwd /output/x",
        "ln -s ../../../../../../../../etc/passwd /output/x",
        "ln -s / /output/x",
        "ln -s /input/hello.txt /output/x",
        "ln -s /proc/self/environ /output/x",
        "mkdir /output/a; ln -s a/../.. /output/x",
        "mkdir /output/a; ln -s .. /output/a/up; ln -s a/up/../etc /output/x",
        "mkfifo /output/x",
    ],
)
def test_what_leads_out_is_refused(api: Api, model: ModelMaker, script: str) -> None:
    """The task fails with a reason that names the culprit; nothing is fetched, no byte of a host's file gets out."""
    uid = api.post(model(f"echo fine > /output/fine; {script}"), INPUT)
    answer = api.wait(uid)
    assert answer.status_code == 552
    detail = answer.json()["detail"]
    assert (detail["reason"], detail["exit_code"]) == ("output_invalid", 0)
    assert "/output/x" in detail["message"]
    assert ROOT not in answer.content


def test_the_input_as_the_model_sees_it(api: Api, model: ModelMaker) -> None:
    """Folders, empty ones included, empty files, any names, backslashes as separators."""
    zip = zip_of({"a/empty/": b"", "a/nothing": b"", "ünï cödé 漢字.txt": b"42", "windows\\file": b"x"})
    assert files_of(api.output(model(COPY), zip)) == {
        "a/": b"",
        "a/empty/": b"",
        "a/nothing": b"",
        "windows/": b"",
        "windows/file": b"x",
        "ünï cödé 漢字.txt": b"42",
    }


def test_a_model_may_run_as_any_user(api: Api, model: ModelMaker) -> None:
    """It reads /input and writes /output, and what it hides from others is delivered all the same."""
    script = (
        "cp /input/hello.txt /output/; id -u > /output/id; mkdir /output/own; echo 1 > /output/own/x; chmod 0 /output/*"
    )
    files = files_of(api.output(model(script, user="1234:1234"), INPUT))
    assert (files["id"], files["own/x"]) == (b"1234\n", b"1\n")
    assert files["hello.txt"] == files_of(INPUT)["hello.txt"]


def test_attempts_start_fresh(api: Api, model: ModelMaker) -> None:
    """Nothing of a task is in the next one's folders or in its container."""
    name = model("ls -A /output /tmp > /output/before; touch /tmp/left /output/left")
    for _ in range(2):
        assert files_of(api.output(name, INPUT))["before"] == b"/output:\nbefore\n\n/tmp:\n"


def test_the_exit_code_and_the_log_are_told(api: Api, model: ModelMaker) -> None:
    """Of both streams."""
    detail = api.failure(model("echo to stdout; echo to stderr >&2; exit 42"), INPUT)
    assert (detail["reason"], detail["exit_code"]) == ("exit_nonzero", 42)
    assert {"to stdout", "to stderr"} <= set(detail["message"].splitlines())


def test_of_a_long_log_the_end_is_told(api: Api, model: ModelMaker) -> None:
    """A model that prints a lot can't fill the store or the client's screen."""
    message = api.failure(model("seq 1 100000; exit 1"), INPUT)["message"]
    assert message.splitlines()[-2:] == ["99999", "100000"]
    assert len(message) < 10_000


def test_a_log_of_any_bytes_is_told(api: Api, model: ModelMaker) -> None:
    """Bytes that are no UTF-8, control characters, a line without an end."""
    detail = api.failure(model(r"printf 'bad \377\376 \033[31m \0 ünï no end'; exit 1"), INPUT)
    assert detail["reason"] == "exit_nonzero"
    assert "bad" in detail["message"]
    assert "ünï no end" in detail["message"]


def test_a_command_that_is_not_there_fails(api: Api, model: ModelMaker) -> None:
    """That is the model's fault, and final."""
    detail = api.failure(model("exec /nowhere"), INPUT)
    assert (detail["reason"], detail["exit_code"]) == ("exit_nonzero", 127)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"user": "nobody-of-that-name"}, "nobody-of-that-name"),
        ({"folder": "/bin/busybox"}, "/bin/busybox"),
        ({"cpus": "5000"}, "(?i)range of CPUs"),
    ],
)
def test_what_makes_no_container_fails(
    api: Api, core: Api, model: ModelMaker, wrong: dict[str, str], words: str
) -> None:
    """A user that the image doesn't have, a working directory that is a file, more processors than there are: the
    model's fault as well, told in the engine's words.
    """
    uid = api.post(model("true", **wrong), INPUT)
    detail = api.wait(uid).json()["detail"]
    assert (detail["reason"], detail["exit_code"]) == ("exit_nonzero", None)
    assert re.search(words, detail["message"])
    assert core.get(f"/api/tasks/{uid}").json()["attempt"] == 1


def test_no_output_is_a_failure(api: Api, model: ModelMaker) -> None:
    """An exit code 0 without any result is told apart from a model's own error."""
    detail = api.failure(model("true"), INPUT)
    assert (detail["reason"], detail["exit_code"]) == ("no_output", 0)


def test_an_empty_folder_is_an_output(api: Api, model: ModelMaker) -> None:
    """It may mean something to the client."""
    assert files_of(api.output(model("mkdir /output/nothing-found"), INPUT)) == {"nothing-found/": b""}


def test_time_is_limited(api: Api, model: ModelMaker) -> None:
    """The message says by what, and how far the model got."""
    detail = api.failure(model("echo started; sleep 1000", timeout_seconds="2"), INPUT)
    assert detail["reason"] == "timeout"
    assert "2 seconds" in detail["message"]
    assert "started" in detail["message"]


def test_memory_is_limited(api: Api, core: Api, model: ModelMaker) -> None:
    """Told apart from a model's own failure, and tried once more."""
    uid = api.post(model("echo started; tail /dev/zero", memory_mb="32"), INPUT)
    detail = api.wait(uid).json()["detail"]
    assert (detail["reason"], detail["exit_code"]) == ("out_of_memory", 137)
    assert "started" in detail["message"]
    attempts = core.get(f"/api/tasks/{uid}").json()["attempts"]
    assert [attempt["failure"]["reason"] for attempt in attempts] == ["out_of_memory"] * 2


@pytest.mark.parametrize(
    "script",
    ["dd if=/dev/zero of=/output/x bs=1M count=3", "dd if=/dev/zero of=/output/x bs=1 count=1 seek=10000000000"],
)
def test_the_output_is_limited(api: Api, model: ModelMaker, script: str) -> None:
    """By what a client would have to unzip: a file of holes counts as well."""
    detail = api.failure(model(script, output_mb="2"), INPUT)
    assert detail["reason"] == "output_too_large"


def test_an_image_that_is_nowhere_fails(api: Api, core: Api) -> None:
    """After some tries, with the engine's words."""
    params = {"container_tag": "127.0.0.1:1/nowhere:1", "human_readable_id": "nowhere", "use_gpu": "no"}
    assert core.call("POST", "/api/models/", params=params).status_code == 200
    detail = api.failure("nowhere", INPUT)
    assert detail["reason"] == "image_unavailable"
    assert "127.0.0.1:1/nowhere:1" in detail["message"]
