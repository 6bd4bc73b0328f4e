"""Folders that a container saw as its volumes: walked and removed without trust in anything below them.

The agent is root on its host, and what a container left may be links to anywhere, devices, endless or unreadable trees.
So nothing here follows a link, and one descriptor moves through the tree: depth costs neither descriptors, nor stack,
nor a path too long for the kernel. The container must be dead.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Self

MAX_ENTRIES = 200_000  # about 1 KiB of memory each, in the agent and in whatever unzips them
_MOUNT_POINT = "output"
_LONGEST_PATH = 4000  # bytes; the kernel takes 4095 with the mount point, here and where it is unzipped
_MAX_HOPS = 40  # as the kernel's
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY  # must not wait for the other end of a fifo
_UNREADABLE = re.compile("[\udc80-\udcff]")  # Python's spelling of bytes that are not UTF-8


class OutputRefused(Exception):
    """The output holds something that can't be delivered; the message names it."""


class OutputTooLarge(Exception):
    """The output has more bytes or more entries than allowed."""


@dataclass(frozen=True)
class Found:
    path: str  # below the root
    name: str
    status: os.stat_result
    folder_fd: int  # where the name stands; open until the next is asked for
    root_fd: int


def spelled(name: str) -> str:
    """The name with bytes that are not UTF-8 as %XX: no result is lost for its name."""
    return _UNREADABLE.sub(lambda found: f"%{ord(found[0]) - 0xDC00:02X}", name)


def shown(path: str) -> str:
    """The path as the container knew it, fit for a sentence."""
    return repr(f"/{_MOUNT_POINT}/{spelled(path[:200])}")


def walk(folder: Path) -> Iterator[Found]:
    """Everything below the folder: a folder before what is in it, names in their order."""
    with _Cursor(folder) as cursor:
        pending, parents = [_names(cursor.fd)], list[str]()
        while pending:
            if pending[-1]:
                name = pending[-1].pop()
                path = "/".join([*parents, name])
                found = Found(path, name, os.lstat(name, dir_fd=cursor.fd), cursor.fd, cursor.root_fd)
                if len(os.fsencode(path)) > _LONGEST_PATH:
                    raise OutputRefused(
                        f"The path that begins with {shown(path)} is longer than {_LONGEST_PATH} bytes."
                    )
                yield found
                if stat.S_ISDIR(found.status.st_mode):
                    cursor.enter(name)
                    parents.append(name)
                    pending.append(_names(cursor.fd))
            else:
                pending.pop()
                if parents:
                    parents.pop()
                    cursor.leave()


def _names(fd: int) -> list[str]:
    """The last first, to be popped."""
    with os.scandir(fd) as entries:
        names = [entry.name for entry in islice(entries, MAX_ENTRIES + 1)]
    if len(names) > MAX_ENTRIES:
        raise OutputTooLarge(f"The output has more than {MAX_ENTRIES} files and folders.")
    if len({spelled(name) for name in names}) < len(names):
        raise OutputRefused("The output has two names that differ in bytes that are not UTF-8 only.")
    return sorted(names, reverse=True)


def open_file(found: Found) -> int:
    """A descriptor of what was found, if it still is that file."""
    fd = os.open(found.name, _FILE, dir_fd=found.folder_fd)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or not os.path.samestat(status, found.status):
        os.close(fd)
        raise OutputRefused(f"{shown(found.path)} changed while it was read.")
    return fd


def link_target(found: Found) -> str:
    """Where the symbolic link leads, relative to its own folder. Refused when that is outside of the root, be it by the
    target's own words or by way of other links.
    """
    parents = found.path.split("/")[:-1]
    parts = os.readlink(found.name, dir_fd=found.folder_fd).split("/")
    try:
        if parts[0] == "":
            parts = [".."] * len(parents) + _below_mount_point(parts) or ["."]
        _follow(parents, parts, root_fd=None)
        _follow(parents, parts, root_fd=found.root_fd)
    except _EscapeError:
        raise OutputRefused(f"The symbolic link {shown(found.path)} leads out of /{_MOUNT_POINT}.") from None
    return "/".join(parts)


class _EscapeError(Exception):
    pass


def _below_mount_point(parts: list[str]) -> list[str]:
    """An absolute target's parts, counted from the root that the container knew as its mount point."""
    named = [part for part in parts if part not in ("", ".")]
    if named[:1] != [_MOUNT_POINT]:
        raise _EscapeError
    return named[1:]


def _follow(parents: list[str], parts: list[str], *, root_fd: int | None) -> None:
    """Goes where the parts lead, through the links on the way if there is a root to read them from."""
    place, todo, hops = list(parents), parts[::-1], 0
    while todo and hops <= _MAX_HOPS:  # with more, it leads nowhere: the kernel gives up as well
        part = todo.pop()
        if part == "..":
            if not place:
                raise _EscapeError
            place.pop()
        elif part not in ("", "."):
            place.append(part)
            if root_fd is not None and (target := _read_link(root_fd, "/".join(place))):
                hops += 1
                place.pop()
                ahead = target.split("/")
                if ahead[0] == "":
                    place, ahead = [], _below_mount_point(ahead)
                todo += ahead[::-1]


def _read_link(root_fd: int, path: str) -> str | None:
    """None if it is no link, or nothing. The path's other parts are no links: the caller has followed them."""
    try:
        return os.readlink(path, dir_fd=root_fd)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return None
        raise


def empty(folder: Path) -> bool:
    """Nothing at all is in the folder, not even an empty folder."""
    with os.scandir(folder) as entries:
        return next(entries, None) is None


def remove_tree(folder: Path) -> None:
    """Removes the folder and whatever is in it; one that is gone already is fine."""
    try:
        cursor = _Cursor(folder)
    except FileNotFoundError:
        return
    with cursor:
        pending, entered = [_remove_files(cursor.fd)], list[str]()
        while pending:
            if pending[-1]:
                entered.append(pending[-1].pop())
                cursor.enter(entered[-1])
                pending.append(_remove_files(cursor.fd))
            else:
                pending.pop()
                if entered:
                    cursor.leave()
                    os.rmdir(entered.pop(), dir_fd=cursor.fd)
    folder.rmdir()


def _remove_files(fd: int) -> list[str]:
    """Removes all but the folders, whose names it returns."""
    folders = []
    with os.scandir(fd) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=fd)
    return folders


class _Cursor:
    """A place in a tree."""

    def __init__(self, root: Path) -> None:
        self.root_fd = os.open(root, _FOLDER)
        self.fd = os.dup(self.root_fd)
        self._above: list[os.stat_result] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
        os.close(self.root_fd)

    def enter(self, name: str) -> None:
        below = os.open(name, _FOLDER, dir_fd=self.fd)
        self._above.append(os.fstat(self.fd))
        self._move(below)

    def leave(self) -> None:
        self._move(os.open("..", _FOLDER, dir_fd=self.fd))
        # Had the folder been moved, ".." might be anywhere on the host.
        if not os.path.samestat(os.fstat(self.fd), self._above.pop()):
            raise OSError(errno.ESTALE, "a folder was moved while it was walked")

    def _move(self, fd: int) -> None:
        os.close(self.fd)
        self.fd = fd
