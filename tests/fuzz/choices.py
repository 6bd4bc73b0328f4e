"""Decisions read off a fuzzer's bytes."""

from collections.abc import Sequence
from typing import TypeVar

Value = TypeVar("Value")


class Choices:
    """The same for the same bytes. Where these end every number is 0, so that what comes first is simple."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, most: int) -> int:
        """0 to most."""
        width = -(-most.bit_length() // 8)
        return int.from_bytes(self._take(width), "little") % (most + 1)

    def pick(self, values: Sequence[Value]) -> Value:
        return values[self.number(len(values) - 1)]

    def one_in(self, odds: int) -> bool:
        """Less often than not, and never at the end."""
        return self.number(odds - 1) == odds - 1

    def some(self, most: int) -> bytes:
        return self._take(self.number(most))

    def rest(self) -> bytes:
        return self._take(len(self._data))

    def pieces(self, data: bytes, *, most: int = 8) -> list[bytes]:
        """The data, cut somewhere."""
        cuts = sorted(self.number(len(data)) for _ in range(self.number(most))) if data else []
        return [data[start:stop] for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True)]

    def _take(self, length: int) -> bytes:
        taken = self._data[self._at : self._at + length]
        self._at += length
        return taken
