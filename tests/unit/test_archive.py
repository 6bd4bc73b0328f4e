"""Zip to folder and back, for folders that a hostile container may have filled."""

import io
import os
import socket
import stat
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, ZIP_STORED, ZipFile, ZipInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.contract.errors import InvalidZip
from core.contract.zips import ZipLimits, check
from core.settings import Settings
from gpu_agent import folders
from gpu_agent.archive import extract, zip_folder
from gpu_agent.folders import OutputRefused, OutputTooLarge, empty, remove_tree
from tests.lacking import needs_root

ROOM = 1 << 30
LIMITS = ZipLimits(max_total_bytes=ROOM, max_ratio=100, max_entries=10_000, verify_bytes=ROOM)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    folder.mkdir()
    return folder


def zipped(folder: Path) -> ZipFile:
    data = b"".join(zip_folder(folder, max_total_bytes=ROOM))
    archive = ZipFile(io.BytesIO(data))
    assert archive.testzip() is None
    return archive


def modes(archive: ZipFile) -> dict[str, int]:
    return {info.filename: info.external_attr >> 16 for info in archive.infolist()}


def unzip(data: bytes, folder: Path, *, max_total_bytes: int = ROOM, max_entries: int = 1000) -> None:
    extract(io.BytesIO(data), folder, max_total_bytes=max_total_bytes, max_entries=max_entries)


def zip_of(*entries: tuple[str, int, bytes], method: int = ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", method) as archive:
        for name, mode, content in entries:
            info = ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = method
            archive.writestr(info, content)
    return buffer.getvalue()


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..")
)
FILES = st.tuples(st.binary(max_size=100), st.integers(0o400, 0o777).map(lambda mode: mode | 0o400))
TREES = st.recursive(FILES, lambda below: st.dictionaries(NAMES, below, max_size=4), max_leaves=12)
Tree = tuple[bytes, int] | dict[str, "Tree"]


def plant(folder: Path, tree: dict[str, Tree]) -> None:
    for name, below in tree.items():
        place = folder / name
        if isinstance(below, dict):
            place.mkdir()
            plant(place, below)
        else:
            place.write_bytes(below[0])
            place.chmod(below[1])


def flat(tree: dict[str, Tree], prefix: str = "") -> dict[str, tuple[bytes, int] | None]:
    entries: dict[str, tuple[bytes, int] | None] = {}
    for name, below in tree.items():
        if isinstance(below, dict):
            entries[f"{prefix}{name}/"] = None
            entries |= flat(below, f"{prefix}{name}/")
        else:
            entries[prefix + name] = below
    return entries


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(NAMES, TREES, max_size=4))
def test_everything_comes_back(tree: dict[str, Tree]) -> None:
    """Names, bytes, modes, empty files and empty folders are in the zip as they were in the folder; always alike."""
    with tempfile.TemporaryDirectory() as folder:
        plant(Path(folder), tree)
        first, second = (b"".join(zip_folder(Path(folder), max_total_bytes=ROOM)) for _ in range(2))
        assert first == second
        with ZipFile(io.BytesIO(first)) as archive:
            found = {
                info.filename: None if info.is_dir() else (archive.read(info), stat.S_IMODE(info.external_attr >> 16))
                for info in archive.infolist()
            }
        assert found == flat(tree)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), FILES, min_size=1, max_size=4))
def test_an_output_can_be_an_input(files: dict[str, tuple[bytes, int]]) -> None:
    """What one model has written, the next can be sent."""
    with tempfile.TemporaryDirectory() as root:
        source, target = Path(root, "source"), Path(root, "target")
        source.mkdir()
        target.mkdir()
        plant(source, {"ä": {"empty": {}, **files}})
        data = b"".join(zip_folder(source, max_total_bytes=ROOM))
        check(io.BytesIO(data), LIMITS)
        unzip(data, target)
        assert {path.name for path in (target / "ä").iterdir()} == {"empty", *files}
        for name, (content, mode) in files.items():
            assert (target / "ä" / name).read_bytes() == content
            assert stat.S_IMODE((target / "ä" / name).stat().st_mode) == mode | 0o444


def test_pieces_are_bounded(output: Path) -> None:
    """A large file streams in pieces of about 1 MiB, many small ones in pieces of 256 KiB."""
    content = os.urandom(5 << 20)
    (output / "large").write_bytes(content)
    for number in range(1000):
        (output / f"small{number}").write_bytes(content[:1000])
    pieces = list(zip_folder(output, max_total_bytes=ROOM))
    assert all(256 << 10 <= len(piece) < (1 << 20) + (256 << 10) for piece in pieces[:-1])
    with ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.read("large") == content


@pytest.mark.parametrize(
    ("content", "method"),
    [
        (b"", ZIP_STORED),
        (b"x", ZIP_STORED),
        (b"text " * 300_000, ZIP_DEFLATED),
        (os.urandom(3 << 20), ZIP_STORED),
        (os.urandom(1 << 20) + bytes(2 << 20), ZIP_DEFLATED),
        (bytes(1 << 20) + os.urandom(2 << 20), ZIP_DEFLATED),
    ],
    ids=["nothing", "little", "text", "noise", "noise first", "noise after"],
)
def test_what_shrinks_is_deflated(output: Path, content: bytes, method: int) -> None:
    """And the rest is stored."""
    (output / "a").write_bytes(content)
    archive = zipped(output)
    info = archive.getinfo("a")
    assert archive.read(info) == content
    assert info.compress_type == method
    assert info.compress_size < len(content) if method == ZIP_DEFLATED else info.compress_size == len(content)


def test_no_output_is_a_bomb(output: Path) -> None:
    """An empty mask would shrink a thousandfold, and then be refused as the next model's input."""
    (output / "mask").touch()
    os.truncate(output / "mask", 32 << 20)
    data = b"".join(zip_folder(output, max_total_bytes=ROOM))
    assert len(data) < (32 << 20) // 90
    check(io.BytesIO(data), replace(LIMITS, max_ratio=Settings.model_fields["max_zip_ratio"].default))


def test_a_size_beyond_the_limit_takes_zip64(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the file becomes. The limit is 4 GiB."""
    monkeypatch.setattr("zipfile.ZIP64_LIMIT", 1 << 20)
    (output / "large").write_bytes(bytes(2 << 20))
    data = b"".join(zip_folder(output, max_total_bytes=ROOM))
    assert data.count(b"\xff\xff\xff\xff" * 2) == 2, "in the file's header and in the directory"
    check(io.BytesIO(data), LIMITS)
    with ZipFile(io.BytesIO(data)) as archive:
        assert archive.read("large") == bytes(2 << 20)


def test_times_are_kept_within_what_a_zip_can_say(output: Path) -> None:
    """Times are UTC, and clamped to 1980 to 2107."""
    for name, moment in (("old", -1), ("new", 1_700_000_000), ("late", 2**33)):
        (output / name).touch()
        os.utime(output / name, (moment, moment))
    times = {info.filename: info.date_time for info in zipped(output).infolist()}
    assert times["old"] == (1980, 1, 1, 0, 0, 0)
    assert times["new"] == (2023, 11, 14, 22, 13, 20)
    assert times["late"][0] == 2107


def test_setuid_bits_are_dropped(output: Path) -> None:
    """Nobody gets a setuid file from a zip."""
    (output / "a").touch()
    (output / "a").chmod(0o6755)
    assert modes(zipped(output)) == {"a": stat.S_IFREG | 0o755}


def test_names_that_are_not_utf8_are_kept_readable(output: Path) -> None:
    """Bytes that are not UTF-8 become %XX, in a link's target as well."""
    Path(os.fsdecode(os.fsencode(output) + b"/r\xe9sultat \xc3\xa9")).write_text("x")
    (output / "link").symlink_to(os.fsdecode(b"r\xe9sultat \xc3\xa9"))
    archive = zipped(output)
    assert archive.namelist() == ["link", "r%E9sultat é"]
    assert archive.read("link").decode() == "r%E9sultat é"


def test_names_that_become_equal_are_refused(output: Path) -> None:
    """A zip never has two entries of one name."""
    (output / "a%E9").touch()
    Path(os.fsdecode(os.fsencode(output) + b"/a\xe9")).touch()
    with pytest.raises(OutputRefused, match="not UTF-8"):
        zip_folder(output, max_total_bytes=ROOM)


@pytest.mark.parametrize(
    ("place", "target", "stored"),
    [
        ("link", "file", "file"),
        ("link", "./a/../file", "./a/../file"),
        ("a/b/link", "../../file", "../../file"),
        ("a/b/link", "/output/file", "../../file"),
        ("link", "/output/a//b", "a/b"),
        ("link", "/output", "."),
        ("a/link", "/output/", ".."),
        ("link", "nowhere/at/all", "nowhere/at/all"),
        ("link", "link", "link"),
        ("link", "deep/file", "deep/file"),
        ("link", "absolute/b/../../file", "absolute/b/../../file"),
    ],
)
def test_links_that_stay_inside_are_stored(output: Path, place: str, target: str, stored: str) -> None:
    """A link is stored as a link, relative to where it stands, also if it leads nowhere."""
    (output / "a/b").mkdir(parents=True)
    (output / "file").write_text("x")
    (output / "deep").symlink_to("a/b")
    (output / "absolute").symlink_to("/output/a")
    (output / place).symlink_to(target)
    archive = zipped(output)
    assert archive.read(place).decode() == stored
    assert modes(archive)[place] == stat.S_IFLNK | 0o777


@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("link", "/etc/passwd"),
        ("link", "/"),
        ("link", "/outputs/x"),
        ("link", "//etc/passwd"),
        ("link", "/output/../etc/passwd"),
        ("link", ".."),
        ("link", "../output/file"),
        ("link", "a/../../x"),
        ("a/b/link", "../../../x"),
        ("link", "up/../../x"),
        ("link", "deep/../../../x"),
        ("a/b/link", "../../up/up/up/.."),
        ("a/b/link", "../../absolute/../.."),
        ("a/b/link", "nowhere/../../../../x"),
    ],
)
def test_links_that_lead_out_are_refused(output: Path, place: str, target: str) -> None:
    """A link is refused when it leads out by its own words, or by way of another link."""
    (output / "a/b").mkdir(parents=True)
    (output / "a/b/up").symlink_to("../..")
    (output / "up").symlink_to("a/..")
    (output / "deep").symlink_to("a/b")
    (output / "absolute").symlink_to("/output/a")
    (output / place).symlink_to(target)
    with pytest.raises(OutputRefused, match=f"/output/{place}' leads out"):
        zip_folder(output, max_total_bytes=ROOM)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def make_device(path: Path) -> None:
    needs_root("make devices")
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero


@pytest.mark.parametrize("make", [os.mkfifo, make_socket, make_device])
def test_special_files_are_refused(output: Path, make: Callable[[Path], None]) -> None:
    """What is neither file, folder nor link is refused by its path, before anything is sent, and is never opened."""
    (output / "a").mkdir()
    make(output / "a" / "special")
    with pytest.raises(OutputRefused, match="'/output/a/special' is neither"):
        zip_folder(output, max_total_bytes=ROOM)


def test_too_many_bytes_are_refused(output: Path) -> None:
    """The sum of the sizes counts, and a sparse file counts in full."""
    (output / "a").write_bytes(bytes(600))
    os.truncate(output / "a", 600)
    (output / "b").touch()
    os.truncate(output / "b", 400)
    list(zip_folder(output, max_total_bytes=1000))
    with pytest.raises(OutputTooLarge, match="999 bytes"):
        zip_folder(output, max_total_bytes=999)


def test_too_many_entries_are_refused(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with more names than memory should hold is refused, without being read to its end."""
    monkeypatch.setattr(folders, "MAX_ENTRIES", 10)
    for number in range(11):
        (output / str(number)).touch()
    with pytest.raises(OutputTooLarge, match="10 files and folders"):
        zip_folder(output, max_total_bytes=ROOM)


@pytest.mark.parametrize("size", [0, 100, 3 << 20])
def test_a_file_that_changes_leaves_the_zip_sound(output: Path, size: int) -> None:
    """A file that grows or shrinks while it is read is delivered as far as it was announced and is there."""
    (output / "a").write_bytes(os.urandom(2 << 20))
    (output / "b").write_bytes(os.urandom(2 << 20))
    pieces = zip_folder(output, max_total_bytes=ROOM)
    first = next(pieces)
    os.truncate(output / "a", size)
    os.truncate(output / "b", size)
    with ZipFile(io.BytesIO(first + b"".join(pieces))) as archive:
        assert archive.testzip() is None
        assert archive.getinfo("b").file_size == size


def test_a_folder_replaced_by_a_link_is_not_followed(output: Path, tmp_path: Path) -> None:
    """Whoever swaps a folder for a link after it was inspected gets nothing of the host's."""
    (tmp_path / "secret").write_text("secret")
    (output / "a").write_bytes(os.urandom(2 << 20))
    (output / "b").mkdir()
    (output / "b/secret").write_text("harmless")
    pieces = zip_folder(output, max_total_bytes=ROOM)
    next(pieces)
    (output / "b").rename(tmp_path / "away")
    (output / "b").symlink_to(tmp_path)
    with pytest.raises(OutputRefused, match="leads out"):
        list(pieces)


def make_deep(folder: Path, name: str, depth: int) -> None:
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.close(fd)


def test_deep_folders(output: Path) -> None:
    """Depth costs neither stack nor descriptors; a path too long for the kernel is refused, yet can be removed."""
    depth = sys.getrecursionlimit() + 100
    make_deep(output, "d", depth)
    assert max(map(len, zipped(output).namelist())) == 2 * depth + len("file")
    remove_tree(output)
    output.mkdir()
    make_deep(output, "d" * 200, 25)
    with pytest.raises(OutputRefused, match="longer than 4000 bytes"):
        zip_folder(output, max_total_bytes=ROOM)
    remove_tree(output)
    assert not output.exists()


def test_remove_tree_removes_whatever_is_there(output: Path, tmp_path: Path) -> None:
    """Links are removed, what they lead to stays; no mode protects a folder; what is gone is fine."""
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "file").touch()
    (output / "a/b/c").mkdir(parents=True)
    (output / "a/link").symlink_to(kept)
    (output / "a/b/loop").symlink_to("loop")
    os.mkfifo(output / "a/b/fifo")
    make_socket(output / "a/b/c/socket")
    Path(os.fsdecode(os.fsencode(output) + b"/a/\xff")).touch()
    os.link(kept / "file", output / "hard")
    if os.geteuid() == 0:
        (output / "a/b").chmod(0)
        (output / "a").chmod(0)
    remove_tree(output)
    remove_tree(output)
    assert not output.exists()
    assert (kept / "file").exists()


def test_remove_tree_refuses_a_link(tmp_path: Path) -> None:
    """The folder itself is never a link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(OSError, match="link"):
        remove_tree(tmp_path / "link")
    assert (tmp_path / "real").exists()


def test_empty(output: Path) -> None:
    """Without a single name in it, the folder is empty; an empty folder in it is a name."""
    assert empty(output)
    (output / "a").mkdir()
    assert not empty(output)


@pytest.mark.parametrize("method", [ZIP_STORED, ZIP_DEFLATED, ZIP_BZIP2, ZIP_LZMA])
def test_extracts(output: Path, method: int) -> None:
    """Content and x bits arrive, any user may read, folders are made where names imply them; setuid goes."""
    content = os.urandom((1 << 20) + 1)
    entries = [("run.sh", 0o104700, b"#!"), ("a/b/c", 0, content), ("d/", 0o40000, b""), ("e", 0o100200, b"")]
    umask = os.umask(0o077)
    try:
        unzip(zip_of(*entries, method=method), output)
    finally:
        os.umask(umask)
    assert (output / "a/b/c").read_bytes() == content
    found = {str(path.relative_to(output)): stat.S_IMODE(path.stat().st_mode) for path in output.rglob("*")}
    assert found == {"run.sh": 0o744, "a": 0o755, "a/b": 0o755, "a/b/c": 0o644, "d": 0o755, "e": 0o644}


def test_extracts_the_longest_names(output: Path) -> None:
    """A path that is as long as the kernel takes is unzipped, wherever the folder is."""
    name = "/".join(["d" * 249] * 16)
    unzip(zip_of((name, 0, b"x")), output)
    assert [path.name for path in output.iterdir()] == ["d" * 249]
    remove_tree(output)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (zip_of(("../a", 0, b"x")), "climbs out"),
        (zip_of(("/a", 0, b"x")), "absolute"),
        (zip_of(("a", 0o120777, b"/etc/passwd")), "symbolic link"),
        (zip_of(("a", 0, b"x"), ("./a", 0, b"y")), "two entries"),
        (zip_of(("a", 0, bytes(1001))), "too large"),
        (zip_of(*((str(number), 0, b"") for number in range(11))), "too many"),
        (zip_of(("a", 0, bytes(1000)), method=ZIP_STORED).replace(bytes(1000), bytes(999) + b"x"), "checksum"),
        (b"", "empty"),
    ],
)
def test_trusts_no_zip(output: Path, tmp_path: Path, data: bytes, words: str) -> None:
    """What core has let pass is judged again; nothing is written outside of the folder."""
    with pytest.raises(InvalidZip, match=words):
        unzip(data, output, max_total_bytes=1000, max_entries=10)
    assert list(tmp_path.iterdir()) == [output]
