"""The directory at a zip's end, read with memory bounded whatever the bytes claim.

`zipfile` parses the records, but from memory: it would read a directory of any size, and make objects of all of it.
Only faults in the bytes become InvalidZip: what reading the source raises passes through.
"""

import io
import struct
from dataclasses import dataclass
from typing import Protocol
from zipfile import BadZipFile, ZipFile, ZipInfo

from core.contract.errors import InvalidZip

# APPNOTE.TXT 6.3.10, sections 4.3.12, 4.3.14, 4.3.15 and 4.3.16.
_DIRECTORY_HEADER = struct.Struct("<4s24x3H12x")  # signature, lengths of name, extra field and comment
_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ4x2L4Q")
LOCAL_SIGNATURE, DIRECTORY_SIGNATURE = b"PK\3\4", b"PK\1\2"
_END_SIGNATURE, _END64_LOCATOR_SIGNATURE, _END64_SIGNATURE = b"PK\5\6", b"PK\6\7", b"PK\6\6"
_LONGEST_COMMENT = 0xFFFF
_END64_BYTES = _END64.size - 12  # as the record says itself: without its signature and this very field
_IN_END64 = (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)  # in the end record, of what only the Zip64 record says

_DIRECTORY_BYTES_PER_ENTRY = 512  # on average over max_entries; 46 and a name and a few timestamps are usual
_SMALLEST_DIRECTORY_BOUND = 1 << 20

# What `zipfile` lets out when a record is nonsense.
_PARSER_FAULTS = (BadZipFile, struct.error, RuntimeError, EOFError, ArithmeticError, ValueError, LookupError)


class Source(Protocol):
    """A seekable binary file whose `read` is short at the end only: an open file, BytesIO, RangedFile."""

    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def read(self, size: int = -1, /) -> bytes: ...


@dataclass(frozen=True)
class Directory:
    infos: list[ZipInfo]  # header_offset counts from the start of the file, whatever stands before the zip
    start: int


def shown(name: str) -> str:
    """A name from the zip, fit for a sentence."""
    return repr(name if len(name) <= 120 else name[:117] + "...")


def read_directory(file: Source, *, max_entries: int) -> Directory:
    """Reads the directory at the zip's end. Memory is bounded by `max_entries`, whatever the bytes claim."""
    end = _find_end(file)
    if end.directory_bytes > max(max_entries * _DIRECTORY_BYTES_PER_ENTRY, _SMALLEST_DIRECTORY_BOUND):
        raise InvalidZip(f"The zip's directory is too large: {end.directory_bytes} bytes for {max_entries} entries.")
    start = end.offset - end.directory_bytes
    # Negative: bytes are gone from the middle. Positive: a self-extractor's stub or the like stands before the zip.
    shift = start - end.directory_offset
    if start < 0 or shift < 0:
        raise InvalidZip("The zip file is truncated: bytes are missing before its directory.")
    file.seek(start)
    infos = _parse(file.read(end.directory_bytes), max_entries)
    # Some readers go by the number: they would not see the rest. Old writers let it overflow.
    if any((said - len(infos)) % 2**16 for said in end.entries):
        raise InvalidZip(f"The zip's directory is damaged: it has {len(infos)} entries, its end says {end.entries[1]}.")
    for info in infos:
        info.header_offset += shift
        if info.header_offset > start:  # perhaps by more than can be sought
            raise InvalidZip(f"The zip file is damaged: entry {shown(info.filename)} is not where the directory says.")
    return Directory(infos, start)


@dataclass(frozen=True)
class _End:
    offset: int  # where the directory must have ended
    entries: tuple[int, int]  # as written, on this disk and in all
    directory_bytes: int
    directory_offset: int  # as written, which counts from the start of the zip proper


def _find_end(file: Source) -> _End:
    size = file.seek(0, io.SEEK_END)
    if size == 0:
        raise InvalidZip("The body is empty (0 bytes): a zip file was expected.")
    tail_start = file.seek(max(0, size - _END.size - _LONGEST_COMMENT))
    tail = file.read(_END.size + _LONGEST_COMMENT)
    if tail[-_END.size :].startswith(_END_SIGNATURE) and tail.endswith(b"\0\0"):
        at = len(tail) - _END.size  # no comment; the signature may occur in the record's own numbers
    else:
        at = tail.rfind(_END_SIGNATURE)
    if at < 0:
        file.seek(0)
        if file.read(4) == LOCAL_SIGNATURE:
            raise InvalidZip("The zip file is truncated: the directory at its end is missing.")
        raise InvalidZip("The body is not a zip file.")
    if at + _END.size > len(tail):
        raise InvalidZip("The zip file is truncated: it ends within its last record.")
    _, disk, first_disk, *entries, directory_bytes, offset, comment_bytes = _END.unpack_from(tail, at)
    if at + _END.size + comment_bytes > len(tail):
        raise InvalidZip("The zip file is truncated: it ends within its comment.")
    if disk not in (0, 0xFFFF) or first_disk not in (0, 0xFFFF):
        raise InvalidZip("The zip is split over several files: join them into one.")
    end = _End(tail_start + at, (entries[0], entries[1]), directory_bytes, offset)
    return _find_end64(file, end) or end


def _find_end64(file: Source, end: _End) -> _End | None:
    """The Zip64 record that precedes the end record of a large zip."""
    at = end.offset - _END64_LOCATOR.size - _END64.size
    if at < 0:
        return None
    file.seek(at)
    record, locator = file.read(_END64.size), file.read(_END64_LOCATOR.size)
    if not locator.startswith(_END64_LOCATOR_SIGNATURE):
        return None
    _, record_disk, located, disks = _END64_LOCATOR.unpack(locator)
    signature, said_bytes, disk, first_disk, *entries, directory_bytes, offset = _END64.unpack(record)
    # Readers differ in which record they take if the locator points elsewhere, so it must be this one.
    if signature != _END64_SIGNATURE or located != at or said_bytes != _END64_BYTES:
        raise InvalidZip("The zip file is damaged: its Zip64 record is not where it is said to be.")
    if disks > 1 or record_disk or disk or first_disk:
        raise InvalidZip("The zip is split over several files: join them into one.")
    said = zip(
        (*end.entries, end.directory_bytes, end.directory_offset), (*entries, directory_bytes, offset), strict=True
    )
    if any(narrow not in (wide, elsewhere) for (narrow, wide), elsewhere in zip(said, _IN_END64, strict=True)):
        raise InvalidZip("The zip file is damaged: its Zip64 record says something else than its end record.")
    return _End(at, (entries[0], entries[1]), directory_bytes, offset)


def _parse(directory: bytes, max_entries: int) -> list[ZipInfo]:
    count = _count(directory, max_entries)
    # `zipfile` sees the directory alone, as an archive of its own: it has nothing else to read, or to be misled by.
    end = _END.pack(_END_SIGNATURE, 0, 0, min(count, 0xFFFF), min(count, 0xFFFF), len(directory), 0, 0)
    try:
        with ZipFile(io.BytesIO(directory + end)) as archive:
            infos = archive.infolist()
    except _PARSER_FAULTS as fault:
        raise InvalidZip(f"The zip's directory is damaged: {fault}.") from fault
    if len(infos) != count:
        raise InvalidZip("The zip's directory is damaged: its last record holds another one.")
    return infos


def _count(directory: bytes, max_entries: int) -> int:
    """Counts the records before `zipfile` makes objects of them."""
    at = count = 0
    while at < len(directory):
        count += 1
        if count > max_entries:
            raise InvalidZip(f"The zip has too many entries: more than {max_entries}.")
        if at + _DIRECTORY_HEADER.size > len(directory):
            raise InvalidZip("The zip's directory is damaged: its last record is cut.")
        signature, *lengths = _DIRECTORY_HEADER.unpack_from(directory, at)
        if signature != DIRECTORY_SIGNATURE:
            raise InvalidZip(f"The zip's directory is damaged: record {count} is not one.")
        at += _DIRECTORY_HEADER.size + sum(lengths)
    if at != len(directory):
        raise InvalidZip("The zip's directory is damaged: its last record is cut.")
    return count
