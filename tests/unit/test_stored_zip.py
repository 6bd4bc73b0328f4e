"""The zip that is made while it is sent: its length known before, its bytes the same from any offset."""

import io
import os
import random
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inference_client import SourceError, storedzip
from inference_client.sources import source
from inference_client.storedzip import StoredZip, members

from core.contract import zips
from tests.zips import files_of

NAMES = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="/\0\\:", exclude_categories=["Cs", "Cc"]), min_size=1)
    .map(lambda name: name[:20])
    .filter(lambda name: name not in (".", "..")),
    min_size=1,
    max_size=3,
).map("/".join)
LIMITS = zips.ZipLimits(max_total_bytes=2**40, max_ratio=200, max_entries=1000, verify_bytes=2**30)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def make(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


@given(files=st.dictionaries(NAMES, st.binary(max_size=2000), min_size=1, max_size=5), data=st.data())
def test_length_and_bytes(files: dict[str, bytes], data: st.DataObject) -> None:
    """What was predicted comes, from each offset, in this process or another; `zipfile` and the server read it."""
    names = list(files)
    files = {name: files[name] for name in names if not any(other.startswith(f"{name}/") for other in names)}
    with TemporaryDirectory() as place:
        folder = Path(place)
        make(folder, files)
        zip = StoredZip(members([folder]))
        whole = b"".join(zip.read())
        assert len(whole) == zip.size
        assert files_of(whole) == files
        zips.check(io.BytesIO(whole), LIMITS)
        start = data.draw(st.integers(0, len(whole)))
        assert b"".join(zip.read(start)) == whole[start:]
        assert b"".join(StoredZip(members([folder])).read(start)) == whole[start:]


def test_the_middle_of_a_file_is_found_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the last mark before it, not from the file's start."""
    monkeypatch.setattr(storedzip, "MARK_BYTES", 1000)
    make(folder, {"a": random.Random(1).randbytes(10_500), "b": b"b"})
    zip = StoredZip(members([folder]))
    reading = zip.read()
    begun = b"".join(next(reading) for _ in range(8))
    start = len(begun) - 100
    assert begun[start:] + b"".join(zip.read(len(begun))) == b"".join(zip.read(start))
    assert files_of(begun + b"".join(zip.read(len(begun))))["b"] == b"b"


def test_large_ones(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What 32 bits can't say stands in the fields of Zip64."""
    monkeypatch.setattr(storedzip, "LARGE", 1000)
    files = {"a": b"a" * 999, "b": b"b" * 5000, "c/d": b"d", "e": b"e" * 1000}
    make(folder, files)
    zip = StoredZip(members([folder]))
    whole = b"".join(zip.read())
    assert len(whole) == zip.size
    assert files_of(whole) == files
    assert zips.check(io.BytesIO(whole), LIMITS)
    assert whole.count(b"PK\6\6") == 1


def test_many_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond 65535 entries, too."""
    monkeypatch.setattr(storedzip, "MANY", 3)
    files = {str(number): b"" for number in range(3)}
    make(folder, files)
    whole = b"".join(StoredZip(members([folder])).read())
    assert files_of(whole) == files
    assert zips.check(io.BytesIO(whole), LIMITS)


def test_what_changes_meanwhile_is_refused(folder: Path) -> None:
    """Half of the old and half of the new would arrive."""
    make(folder, {"a": b"a" * 600_000})
    for size in (10, 600_000):
        make(folder, {"a": b"a" * 600_000})
        os.utime(folder / "a", ns=(1, 1))
        reading = StoredZip(members([folder])).read()
        assert b"a" in [next(reading), next(reading)][1]
        make(folder, {"a": b"b" * size})
        with pytest.raises(SourceError, match="changed"):
            list(reading)


def test_what_cannot_be_sent(folder: Path) -> None:
    """Is said before a byte is."""
    make(folder, {"one/same": b"", "two/same": b""})
    (folder / "empty").mkdir()
    make(folder, {"loop/a": b"", "named/back\\slash": b""})
    (folder / "loop" / "link").symlink_to(folder / "loop")
    os.mkfifo(folder / "two" / "pipe")
    for paths, words in {
        (folder / "one" / "same", folder / "two" / "same"): "would both be same",
        (folder / "two",): "neither a file nor a folder",
        (folder / "empty",): "no file",
        (folder / "loop",): "never end",
        (folder / "named",): "backslash",
        (folder / "nothing",): "can't be read",
        (): "nothing to send",
    }.items():
        with pytest.raises(SourceError, match=words):
            source(paths)


def test_links_and_empty_folders(folder: Path) -> None:
    """What a link leads to is sent, under the link's name; an empty folder arrives as one."""
    make(folder, {"elsewhere/a": b"a", "sent/b": b"b"})
    (folder / "sent" / "c").symlink_to(folder / "elsewhere")
    (folder / "sent" / "empty").mkdir()
    whole = b"".join(source(folder / "sent").read())
    assert files_of(whole) == {"b": b"b", "c/a": b"a", "empty/": b""}
