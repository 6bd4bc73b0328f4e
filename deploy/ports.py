"""The host's ports: what is one, and who listens."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
_LISTENS: Final = "0A"


def port_of(text: str) -> int | None:
    """None when the text is no port."""
    return int(text) if text.isdecimal() and 0 < int(text) < 2**16 else None


def listening(proc: Path = PROC) -> Mapping[int, set[str]]:
    """Each port that somebody listens on, at whatever address → the sockets' inodes. Needs no right to use a port, as
    binding it would.
    """
    found: dict[int, set[str]] = {}
    for table in ("tcp", "tcp6"):
        with suppress(FileNotFoundError):  # a kernel without IPv6
            for line in (proc / "self/net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTENS:
                    found.setdefault(int(fields[1].rpartition(":")[2], 16), set()).add(fields[9])
    return found
