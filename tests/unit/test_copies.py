"""What comes back from an engine as a tar."""

import io
import tarfile
from pathlib import Path

import pytest

from core.contract.task import Failure, Reason
from gpu_agent.archive import zip_folder
from gpu_agent.copies import _unpack
from gpu_agent.folders import OutputRefused, remove_tree
from tests.zips import modes_of

ROOM = 1 << 30


def tar_of(*members: tarfile.TarInfo) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(bytes(member.size)))
    buffer.seek(0)
    return buffer


def member(name: str, kind: bytes = tarfile.REGTYPE, mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode = kind, mode
    return info


@pytest.mark.parametrize("name", ["r\udce9sultat", "../r\udce9sultat"])
def test_what_is_refused_is_named_whatever_its_name(tmp_path: Path, name: str) -> None:
    """Bytes that are not UTF-8 as %XX, as in the zip."""
    with pytest.raises(OutputRefused, match="r%E9sultat") as refused:
        _unpack(tar_of(member(name, tarfile.FIFOTYPE)), tmp_path, ROOM)
    assert "r%E9sultat" in Failure(reason=Reason.OUTPUT_INVALID, message=str(refused.value)).model_dump_json()


def test_what_a_model_shut_can_be_read_and_removed(unprivileged: Path) -> None:
    """By an agent that isn't root; in the zip the modes are the model's."""
    tar = tar_of(member("shut", tarfile.DIRTYPE, 0o555), member("shut/file", mode=0), member("shut/open", mode=0o640))
    folder = unprivileged / "output"
    folder.mkdir()
    modes = _unpack(tar, folder, ROOM)
    for _ in range(2):
        zip = b"".join(zip_folder(folder, max_total_bytes=ROOM, modes=modes))
        assert {name: mode & 0o777 for name, mode in modes_of(zip).items()} == {
            "shut/": 0o555,
            "shut/file": 0,
            "shut/open": 0o640,
        }
    remove_tree(folder)
    assert not folder.exists()
