"""Downloads of other people's data sets: what is missing, from the first mirror that has it, checked before it counts.

A file gets its name when it is whole and right. Until then it is `NAME.part`, which a later call continues, and which
one process at a time writes. What lies under the name already is checked, never overwritten. A gzip file (small NORB's)
is unpacked and not kept; one that a user has put there is used in place of a download.
"""

import gzip
import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from drnet.datasets.contract import DataError, Tell
from drnet.datasets.fetching.download import MirrorFailed, Patience, download, new_session
from drnet.datasets.fetching.genuine import (
    NotGenuine,
    check_recorded,
    check_same,
    check_served,
    notes_of,
    read_record,
    record_of,
)
from drnet.datasets.fetching.originals import Original, originals_of
from drnet.datasets.fetching.part import Part, locked_part, room_in

CHUNK = 1 << 20  # bytes unpacked at a time


@dataclass(frozen=True)
class Fetched:
    """A file that is here and right.

    Attributes:
        path: where.
        size: bytes.
        url: where it was downloaded from; empty where it was here already.
        notes: what its checks found, for a user to read.
    """

    path: Path
    size: int
    url: str
    notes: tuple[str, ...]


def fetch(name: str, folder: Path, tell: Tell | None = None, patience: Patience | None = None) -> list[Fetched]:
    """Download what is missing of a data set.

    Args:
        name: of the data set: `mnist`, `norb`, `kth`.
        folder: where the files go, under their own names; made where it is missing.
        tell: called while a file arrives.
        patience: with the servers.

    Returns:
        All its files.

    Raises:
        DataError: a file cannot be downloaded from any mirror, or another file lies under its name.
    """
    files = originals_of(name).files
    with _usable(folder):  # before anything is downloaded
        here = {file: _present(folder / file.name, file) for file in files if (folder / file.name).exists()}
    return [here.get(file) or fetch_file(file, folder, tell, patience) for file in files]


def fetch_file(original: Original, folder: Path, tell: Tell | None = None, patience: Patience | None = None) -> Fetched:
    """Download one file, unless it is here.

    Args:
        original: the file.
        folder: where it goes.
        tell: called while it arrives.
        patience: with the servers.

    Raises:
        DataError: as `fetch`.
    """
    final = folder / original.name
    heard: Tell = tell or (lambda name, done, total: None)
    with _usable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        if final.exists():
            return _present(final, original)
        path = folder / f"{original.served}.part"
        with locked_part(path, final, lambda size: heard(original.served, size, None)) as part:
            if part is None:  # another process has just made it
                return _present(final, original)
            return _make(original, final, part, heard, patience or Patience())


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"{error.filename or folder}: {error.strerror or error}"
        raise DataError(f"'{folder}' cannot be used ({reason}); choose another folder") from None


def _make(original: Original, final: Path, part: Part, tell: Tell, patience: Patience) -> Fetched:
    """Make the final file: of what a user has put there, of what has arrived already, or of what a mirror sends."""
    given = final.with_name(original.served)
    if original.unpacked is not None and given.exists():
        try:
            check_served(given, original)
        except NotGenuine as error:
            raise _other(given, error) from None
        _unpack(given, final, original)
        return Fetched(final, final.stat().st_size, "", (f"unpacked from {given.name}",))
    url, facts = _arrive(original, part, tell, patience)
    if original.unpacked is not None:
        _unpack(part.path, final, original)
        part.forget()
    else:
        part.note.unlink(missing_ok=True)
        os.fsync(part.file.fileno())
        part.path.replace(final)
        _sync(final.parent)
    return Fetched(final, final.stat().st_size, url, _record(final, original, facts))


def _arrive(original: Original, part: Part, tell: Tell, patience: Patience) -> tuple[str, dict[str, Any]]:
    """Have the right file in the part; return where it comes from and its facts."""
    begun, reasons = part.origin()["url"], []
    with new_session() as session:
        for url in sorted(original.urls, key=lambda url: url != begun):  # what has begun goes on
            try:
                return url, _from_mirror(url, original, part, tell, patience, session)
            except MirrorFailed as error:
                reasons.append(f"{url}: {error}")
    raise DataError(
        f"{original.served} could not be downloaded ({'; '.join(reasons)}); run the same command again later, or "
        f"download it by hand into '{part.path.parent}', where it is checked"
    )


def _from_mirror(
    url: str, original: Original, part: Part, tell: Tell, patience: Patience, session: requests.Session
) -> dict[str, Any]:
    """Have the right file in the part, from a mirror; it is not blamed for pieces that do not go together."""

    def told(done: int, total: int | None) -> None:
        tell(original.served, done, total)

    pinned = original.size if original.sha256 else None
    for last in (False, True):
        whole = False
        if part.size != pinned:  # else only the checks and the unpacking were interrupted
            whole = download(url, part, pinned, original.limit, told, patience, session)
        try:
            return check_served(part.path, original)
        except NotGenuine as error:
            part.forget()
            if whole or last:
                raise MirrorFailed(f"it serves another file, which {error}") from None
    raise AssertionError("the last attempt returns or raises")


def _present(final: Path, original: Original) -> Fetched:
    """Check a file that lies under its final name."""
    if not final.is_file():
        raise DataError(f"'{final}' is no file; move it away, and run the same command again")
    try:
        if original.unpacked is not None:
            check_same(final, original.unpacked)
            return Fetched(final, original.unpacked.size, "", ())
        facts = read_record(final)
        if original.videos is None or facts is None:
            return Fetched(final, final.stat().st_size, "", _record(final, original, check_served(final, original)))
        check_recorded(final, facts)
        return Fetched(final, final.stat().st_size, "", tuple(notes_of(facts, original.videos)))
    except NotGenuine as error:
        raise _other(final, error) from None


def _record(final: Path, original: Original, facts: dict[str, Any]) -> tuple[str, ...]:
    """Write the facts of an archive beside it, and return its notes."""
    if original.videos is None:
        return ()
    record = record_of(final)
    temporary = record.with_name(f"{record.name}.{os.getpid()}.part")
    try:
        with room_in(final.parent):
            temporary.write_text(json.dumps(facts, indent=2) + "\n")
        temporary.replace(record)
    except OSError as error:  # a folder that is only read
        return (*notes_of(facts, original.videos), f"not recorded: {error.strerror}")
    finally:
        temporary.unlink(missing_ok=True)
    return (*notes_of(facts, original.videos), f"recorded in {record.name}")


def _unpack(packed: Path, final: Path, original: Original) -> None:
    """Unpack a gzip file, and give the result its final name if it is the right one."""
    assert original.unpacked is not None
    temporary = final.with_name(f"{final.name}.part")
    left = original.unpacked.size + 1  # no more than one byte over the right size is ever unpacked
    try:
        with room_in(final.parent), gzip.open(packed) as source, temporary.open("wb") as target:
            while left and (data := source.read(min(CHUNK, left))):
                target.write(data)
                left -= len(data)
            target.flush()
            os.fsync(target.fileno())
        check_same(temporary, original.unpacked)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, NotGenuine | gzip.BadGzipFile | EOFError | zlib.error):
            raise DataError(f"'{packed}' does not unpack to the original {final.name} ({error}); delete it") from None
        raise
    temporary.replace(final)
    _sync(final.parent)


def _other(path: Path, error: NotGenuine) -> DataError:
    return DataError(f"'{path}' {error}; it is not the original: move it away, and run the same command again")


def _sync(folder: Path) -> None:
    """Make a rename durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def missing(name: str, folder: Path) -> Sequence[Original]:
    """Return the files of a data set that are not in a folder; those that are there are not checked."""
    return [file for file in originals_of(name).files if not (folder / file.name).exists()]
