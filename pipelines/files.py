"""Files that are whole or not there: atomic writes, hashes, canonical JSON."""

import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import stat
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from drnet.datasets.contract import DataError
from drnet.datasets.reading.source_files import sha256_file

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]+\.tmp")  # the name of every file that is not whole yet
ABANDONED = 3600.0  # seconds without a write, where the file system cannot say whether a writer lives
# What is wrong with this machine, whatever file is being read or written: no room, too many open files.
MACHINE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)
JSON_LIMIT = 1 << 28  # bytes of the largest JSON file that is read
JSON_VALUES = 1 << 22  # values in it: each takes about 100 bytes of memory, however short its text is


def canonical_json(value: Any) -> bytes:
    """Return the one JSON text of a value: sorted keys, no spaces, ASCII. Raises ValueError for NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def pretty_json(value: Any) -> bytes:
    """Return JSON for people: indented by two, one final line end."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


@contextmanager
def whole_file(path: Path, keep_same: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the final name, by an atomic rename after fsync, only if the block succeeds.

    Each attempt has a temporary file of its own: two writers of one file, on two machines say, never share one.

    Args:
        path: the final name.
        keep_same: leave a file of the same content that is there already as it is, its time included.

    Raises:
        OSError: with the final name, also where the system names no file (a full disk).
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with _open_locked(temporary) as file:
            yield file
            sync(file)
            if keep_same and path.exists() and sha256_file(path) == sha256_file(temporary):
                temporary.unlink()
            else:
                temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(temporary), temporary):
            error.filename, error.filename2 = str(path), None
        raise


def _open_locked(temporary: Path) -> BinaryIO:
    """Open a new file, locked while it is being written, so that nobody who clears up takes it for abandoned."""
    while True:
        file = temporary.open("wb")
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if temporary.exists():
            return file
        file.close()  # cleared away between its making and its lock


def sync(file: BinaryIO) -> None:
    """Make what was written to a file durable."""
    file.flush()
    os.fsync(file.fileno())


def write_whole(path: Path, data: bytes, keep_same: bool = False) -> None:
    """Write a small file atomically; see `whole_file`."""
    with whole_file(path, keep_same) as file:
        file.write(data)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def is_temporary(path: Path, names: Container[str]) -> bool:
    """Whether a path is what a killed writer leaves of a file with one of these names."""
    match = _TEMPORARY.fullmatch(path.name)
    return match is not None and match["name"] in names and path.is_file()


def remove_temporaries(folder: Path, names: Container[str]) -> int:
    """Delete what killed writers left of files with these names; returns how many files that were.

    A file whose writer lives, in any process and where the file system's locks reach other machines on any of them,
    stays. Where the file system has no locks, one is left that was written to in the last hour.
    """
    return sum(_remove_abandoned(path) for path in folder.iterdir() if is_temporary(path, names))


def _remove_abandoned(path: Path) -> bool:
    with suppress(FileNotFoundError, PermissionError), path.open("rb+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            if time.time() - path.stat().st_mtime < ABANDONED:
                return False
        path.unlink()
        return True
    return False


def read_json(path: Path, what: str, remedy: str = "") -> Any:
    """Read a JSON file of bounded size.

    Raises:
        DataError: where it is missing, too large or not JSON; `what` names it in the message, `remedy` is the way out.
    """
    try:
        if (size := regular_size(path)) > JSON_LIMIT:
            raise DataError(f"{path}: {size} bytes is too large for {what}; at most {JSON_LIMIT} are read")
        data = path.read_bytes()
        if (values := sum(map(data.count, b",[{"))) > JSON_VALUES:
            raise DataError(f"{path}: {values} values are too many for {what}; at most {JSON_VALUES} are read")
        return json.loads(data, parse_constant=_refuse)
    except FileNotFoundError:
        raise DataError(f"{path}: {what} is missing{_way_out(remedy)}") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: {what} is not valid JSON{_way_out(remedy)}") from None


def regular_size(path: Path) -> int:
    """Return a file's size in bytes. Raises DataError for a folder, a pipe or a device: reading one may never end."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path}: not a regular file; give the file itself")
    return found.st_size


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _way_out(remedy: str) -> str:
    return f"; {remedy}" if remedy else ""
