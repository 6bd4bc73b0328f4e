"""Deflates what shrinks, at about the speed of a network."""

import os
from typing import Final

from isal import isal_zlib

_SAMPLE_BYTES: Final = 128 << 10
_WORTH: Final = 0.8
"""What doesn't shrink to this is stored."""

_MOST_FOLD: Final = 100
"""Level 0 shrinks nothing more than 108 times; the others shrink an empty mask a thousandfold."""

_RAW: Final = -isal_zlib.MAX_WBITS
_END: Final = b"\3\0"  # an empty last block: RFC 1951, 3.2.6


def is_worth_it(fd: int, size: int) -> bool:
    """By a sample from the beginning of a file and one from its middle."""
    sample = os.pread(fd, _SAMPLE_BYTES, 0) + os.pread(fd, _SAMPLE_BYTES, max(size // 2, _SAMPLE_BYTES))
    return len(_deflated(sample, 1)) < len(sample) * _WORTH


class Deflate:
    """A compressor as `zipfile` uses them. Each piece is deflated by itself, and none so well that core would take the
    zip for a bomb when it is sent as an input.
    """

    def compress(self, piece: bytes) -> bytes:
        deflated = _deflated(piece, 1)
        return deflated if len(deflated) * _MOST_FOLD > len(piece) else _deflated(piece, 0)

    def flush(self) -> bytes:
        return _END


def _deflated(piece: bytes, level: int) -> bytes:
    """Without an end, so that another piece may follow."""
    stream = isal_zlib.compressobj(level, isal_zlib.DEFLATED, _RAW)
    return stream.compress(piece) + stream.flush(isal_zlib.Z_SYNC_FLUSH)
