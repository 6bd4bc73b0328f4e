"""One entry of a zip: its local header and its bytes.

`ZipFile.open()` decompresses bzip2 and LZMA without a bound (4 KiB can become 80 MiB) and silently cuts content that
outgrows its declared size; this reader does neither. Only faults in the bytes become InvalidZip: what reading the
source raises passes through.
"""

import bz2
import lzma
import struct
import zlib
from collections.abc import Iterator
from typing import Protocol
from zipfile import ZIP_BZIP2, ZIP_DEFLATED, ZIP_LZMA, ZIP_STORED, ZipInfo

from core.contract.errors import InvalidZip
from core.contract.zipdirectory import LOCAL_SIGNATURE, Source, shown

METHODS = frozenset({ZIP_STORED, ZIP_DEFLATED, ZIP_BZIP2, ZIP_LZMA})
ENCRYPTED_FLAGS = 1 << 0 | 1 << 6 | 1 << 13  # traditional, strong, masked headers
_DESCRIPTOR_FLAG = 1 << 3
_UTF8_FLAG = 1 << 11
_IN_ZIP64_FIELD = 0xFFFFFFFF

_LOCAL_HEADER = struct.Struct("<6x2H4x3L2H")  # flags, method, checksum, both sizes, lengths of name and extra field
_LZMA_HEADER = struct.Struct("<4xBL")  # packed lc/lp/pb, dictionary size, after version and length: APPNOTE.TXT 5.8.8

_PIECE_BYTES = 1 << 20
_LARGEST_LZMA_DICTIONARY = 64 << 20  # allocated as declared; 7-Zip's "ultra" asks for 64 MiB


def content_offset(file: Source, info: ZipInfo) -> int:
    """Where the entry's bytes start. The header before them must agree with the directory."""
    name = shown(info.filename)
    file.seek(info.header_offset)
    header = file.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(LOCAL_SIGNATURE):
        raise InvalidZip(f"The zip file is damaged: entry {name} is not where the directory says.")
    flags, method, checksum, packed_bytes, unpacked_bytes, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    local_name = file.read(name_bytes).decode("utf-8" if flags & _UTF8_FLAG else "cp437", errors="replace")
    if local_name != info.orig_filename:
        raise InvalidZip(f"The zip file is damaged: entry {name} is called {shown(local_name)} in its own header.")
    if flags & ENCRYPTED_FLAGS:
        raise InvalidZip(f"Entry {name} is encrypted: send the zip without a password.")
    if method != info.compress_type:
        raise InvalidZip(f"The zip file is damaged: entry {name} has two compression methods.")
    # Readers differ in which they believe, so that one would see a file where another sees nothing.
    elsewhere = (_IN_ZIP64_FIELD, 0) if flags & _DESCRIPTOR_FLAG else (_IN_ZIP64_FIELD,)
    said = ((checksum, info.CRC), (packed_bytes, info.compress_size), (unpacked_bytes, info.file_size))
    if any(here not in (there, *elsewhere) for here, there in said):
        raise InvalidZip(f"The zip file is damaged: entry {name} has another size or checksum in its own header.")
    offset: int = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    return offset


def content(file: Source, info: ZipInfo) -> Iterator[bytes]:
    """The entry's bytes in pieces of at most 1 MiB, never more in all than the directory declares.

    Raises InvalidZip, at the latest after the last piece, when size, checksum or compressed stream are not in order.
    Nobody else may move the file meanwhile.
    """
    file.seek(content_offset(file, info))
    stream = _Stream(file, info)
    left, checksum, name = info.file_size, 0, shown(info.filename)
    while piece := stream.read(min(_PIECE_BYTES, left + 1)):
        left -= len(piece)
        if left < 0:
            raise InvalidZip(f"The zip file is damaged: entry {name} is longer than the directory says.")
        checksum = zlib.crc32(piece, checksum)
        yield piece
    if left:
        raise InvalidZip(f"The zip file is damaged: entry {name} is {left} bytes shorter than the directory says.")
    if checksum != info.CRC:
        raise InvalidZip(f"The zip file is damaged: entry {name} doesn't match its checksum.")


class _Stream:
    """The entry's compressed bytes, read as what they decompress to."""

    def __init__(self, file: Source, info: ZipInfo) -> None:
        self._file = file
        self._left = info.compress_size
        self._name = shown(info.filename)
        # LZMA needs no end mark, and some tools call an empty file deflated.
        self._may_break_off = info.compress_type == ZIP_LZMA or not info.compress_size
        self._decompressor = self._open(info.compress_type)

    def _open(self, method: int) -> "_Decompressor | None":
        if method == ZIP_STORED:
            return None
        if method == ZIP_DEFLATED:
            return _Deflate()
        if method == ZIP_BZIP2:
            return bz2.BZ2Decompressor()
        if method == ZIP_LZMA:
            return self._open_lzma()
        raise InvalidZip(f"Entry {self._name} uses compression method {method}: use deflate, or store.")

    def _open_lzma(self) -> "_Decompressor":
        header = self._take(_LZMA_HEADER.size)
        if len(header) < _LZMA_HEADER.size or header[2:4] != b"\5\0":
            raise self._damage("its LZMA header is cut or unknown")
        packed, dictionary_bytes = _LZMA_HEADER.unpack(header)
        if dictionary_bytes > _LARGEST_LZMA_DICTIONARY:
            limit = _LARGEST_LZMA_DICTIONARY
            raise InvalidZip(f"Entry {self._name} needs an LZMA dictionary of {dictionary_bytes} bytes: limit {limit}.")
        packed, lc = divmod(packed, 9)
        pb, lp = divmod(packed, 5)
        settings = {"id": lzma.FILTER_LZMA1, "lc": lc, "lp": lp, "pb": pb, "dict_size": dictionary_bytes}
        try:
            return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[settings])
        except (lzma.LZMAError, ValueError) as fault:
            raise self._damage(str(fault)) from fault

    def read(self, at_most: int) -> bytes:
        """At most so many bytes, at least one; none at the end."""
        if self._decompressor is None:
            return self._take(at_most)
        while not self._decompressor.eof:
            more = b""
            if self._decompressor.needs_input and not (more := self._take(_PIECE_BYTES)):
                if self._may_break_off:
                    break  # the entry's size and checksum decide
                raise self._damage("it breaks off")
            try:
                piece = self._decompressor.decompress(more, at_most)
            except (zlib.error, lzma.LZMAError, OSError, ValueError, EOFError) as fault:  # OSError is bz2's
                raise self._damage(str(fault)) from fault
            if piece:
                return piece
        return b""

    def _take(self, at_most: int) -> bytes:
        taken = self._file.read(min(at_most, self._left))
        self._left -= len(taken)
        return taken

    def _damage(self, what: str) -> InvalidZip:
        return InvalidZip(f"The zip file is damaged: entry {self._name} can't be decompressed ({what}).")


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Deflate:
    """zlib's raw inflate behind the interface that bz2 and lzma share. ISA-L's is faster, but lets some damaged streams
    pass, which whoever unzips elsewhere would refuse.
    """

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._stream.eof

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece = self._stream.decompress(self._stream.unconsumed_tail + data, max_length)
        self.needs_input = len(piece) < max_length  # a full piece may leave more in the window
        return piece
