"""Zips for tests, made and read in memory."""

import io
import stat
import zipfile
from collections.abc import Mapping

UNIX = 3


def zip_of(files: Mapping[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip with these files; a name that ends in a slash is a folder."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def zip_with_kind(name: str, content: bytes, kind: int) -> bytes:
    """One entry whose mode says that it is of another kind, a symbolic link say."""
    info = zipfile.ZipInfo(name)
    info.create_system = UNIX
    info.external_attr = (kind | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, content)
    return buffer.getvalue()


def files_of(zip: bytes) -> dict[str, bytes]:
    """Name → content of everything in it, checksums verified."""
    with zipfile.ZipFile(io.BytesIO(zip)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def modes_of(zip: bytes) -> dict[str, int]:
    """Name → st_mode of everything in it."""
    with zipfile.ZipFile(io.BytesIO(zip)) as archive:
        return {info.filename: info.external_attr >> 16 for info in archive.infolist()}


def is_link(mode: int) -> bool:
    return stat.S_ISLNK(mode)
