"""Walk through the members of anybody's tar, strictly: nothing is lost in silence, and no size is believed unchecked.

Python's own `tarfile` ends silently at a damaged header and at a cut between members, allocates whatever an extended
header says, and follows sparse maps. Here an archive counts as whole only where nothing but zeros, and at least one block
of them, follows its last member. ustar, GNU and PAX archives of plain files and folders are read; links, devices, sparse
files and members that state two sizes are refused. What is accepted here, `tarfile` reads the same way.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from drnet.datasets.contract import DataError
from drnet.pipelines.shards.codec import CLIP_LIMIT

BLOCK = 512
MEMBER_LIMIT = CLIP_LIMIT + (1 << 20)  # bytes of the largest member
MEMBERS_LIMIT = 1 << 20  # members of the largest archive
EXTENDED_LIMIT = 1 << 16  # bytes of the largest extended header
NAME_LIMIT = 1000  # bytes of the longest name
END_LIMIT = 1 << 24  # bytes of zeros behind the last member; tar writes 10240 or so
FILE, FOLDER, LONG_NAME, EXTENDED, GLOBAL = b"0", b"5", b"L", b"x", b"g"
KINDS = {
    b"\0": FILE,
    b"7": FILE,  # contiguous, for the few systems that had such files
    **{kind: kind for kind in (FILE, FOLDER, LONG_NAME, EXTENDED, GLOBAL)},
}
REFUSED = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a pipe",
    b"K": "a link with a long name",
    b"S": "a sparse file",
}
_OCTAL = re.compile(rb" *([0-7]{0,11})[ \0]*")
_RECORD = re.compile(rb"(\d{1,6}) ([^=\n\0]{1,200})=")


class Member(NamedTuple):
    """A plain file of an archive."""

    name: str
    offset: int  # of its first byte
    size: int


class _Header(NamedTuple):
    name: bytes
    kind: bytes
    size: int


def plain_members(path: Path, file: BinaryIO) -> Iterator[Member]:
    """Yield the plain files of an archive in order; folders are passed over.

    Args:
        path: names the archive in messages.
        file: the archive, open for reading; its position is moved.

    Raises:
        DataError: where the archive is damaged or cut short, or a member is not allowed.
    """
    end, at = file.seek(0, 2), 0
    name, waiting = b"", False  # what a long name or an extended header gives the next member; whether one must follow
    for _ in range(MEMBERS_LIMIT):
        block = _read(file, at, BLOCK)
        if len(block) < BLOCK:
            raise DataError(f"{path}: cut short at byte {at}: the end of the archive is missing")
        if not block.strip(b"\0") and not waiting:
            return _check_end(path, file, at, end)
        header = _header(block, path, at)
        where = f"{path}: member {_text(name or header.name)!r}"
        kind = _kind(header, where)
        most = MEMBER_LIMIT if kind == FILE else EXTENDED_LIMIT
        if header.size > most:
            raise DataError(f"{where} of {header.size} bytes is not allowed; at most {most} are")
        offset, at = at + BLOCK, at + BLOCK + header.size + -header.size % BLOCK
        if offset + header.size > end:
            raise DataError(f"{where} is cut short: {end - offset} of its {header.size} bytes are there")
        if kind == FILE:
            yield Member(_safe(name or header.name, where), offset, header.size)
        waiting = kind in (LONG_NAME, EXTENDED, GLOBAL)
        name = _next_name(kind, name, _read(file, offset, header.size), where) if waiting else b""
    raise DataError(f"{path}: more than {MEMBERS_LIMIT} members are not allowed; write several archives")


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _header(block: bytes, path: Path, at: int) -> _Header:
    """Read a header; raises DataError where its checksum does not match or its size is not one that is allowed."""
    check, size = _OCTAL.fullmatch(block[148:156]), _OCTAL.fullmatch(block[124:136])
    if not check or int(check[1] or b"0", 8) != sum(block[:148]) + sum(block[156:]) + 8 * ord(" "):
        raise DataError(f"{path}: damaged at byte {at}: not a tar member, and not the end of a tar")
    name, prefix = (block[part].partition(b"\0")[0] for part in (slice(0, 100), slice(345, 500)))
    if not size:
        raise DataError(f"{path}: member {_text(name)!r} states a size that is not allowed; at most {MEMBER_LIMIT} are")
    kind = block[156:157]
    whole = prefix + b"/" + name if prefix and kind != LONG_NAME else name
    return _Header(whole, kind, int(size[1] or b"0", 8))


def _kind(header: _Header, where: str) -> bytes:
    """Return what a member is; raises DataError for what is not allowed."""
    kind = KINDS.get(header.kind)
    if header.kind == b"\0" and header.name.endswith(b"/"):  # as the first tars wrote folders
        kind = FOLDER
    if kind is None:
        what = REFUSED.get(header.kind, f"of unknown type {header.kind!r}")
        raise DataError(f"{where} is {what}, which is not allowed; only plain files are")
    if kind == FOLDER and header.size:
        raise DataError(f"{where} is a folder of {header.size} bytes, which is not allowed; only plain files have any")
    return kind


def _safe(name: bytes, where: str) -> str:
    """Return a member's name; raises DataError where it leaves the archive's own tree."""
    if name.startswith(b"/") or b".." in name.split(b"/"):
        raise DataError(f"{where} is not allowed; only plain files under relative paths are")
    return _text(name)


def _next_name(kind: bytes, name: bytes, data: bytes, where: str) -> bytes:
    """Return the name that a long name or an extended header gives the next member; empty where it gives none."""
    if kind == LONG_NAME:
        given = data.partition(b"\0")[0]
    else:
        given = _records(data, where, () if kind == GLOBAL else (b"path",)).get(b"path", b"").rstrip(b"/")
    if (name and given) or len(given) > NAME_LIMIT:
        raise DataError(f"{where} has two long names, or one of more than {NAME_LIMIT} bytes")
    return given or name


def _records(data: bytes, where: str, allowed: tuple[bytes, ...]) -> dict[bytes, bytes]:
    """Read a PAX header; raises DataError for records that would change what a member is, unless they are allowed."""
    found: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        record = _RECORD.match(data, at)
        end = at + int(record[1]) if record else 0
        if not record or not record.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise DataError(f"{where} is a damaged extended header")
        key = record[2]
        if key not in allowed and (key in (b"path", b"size") or key.startswith((b"GNU.sparse", b"SCHILY.realsize"))):
            raise DataError(f"{where} is not allowed: its extended header states another {_text(key)!r}")
        found[key] = data[record.end() : end - 1]
        at = end
    return found


def _check_end(path: Path, file: BinaryIO, at: int, end: int) -> None:
    if end - at > END_LIMIT:
        raise DataError(f"{path}: {end - at} bytes behind the end of the archive are not allowed; at most {END_LIMIT}")
    if _read(file, at, end - at).strip(b"\0"):
        raise DataError(f"{path}: damaged at byte {at}: what follows is not a tar member, and not the end of a tar")
