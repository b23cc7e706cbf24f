"""Files that are whole or not there: atomic writes, hashes, canonical JSON."""

import errno
import hashlib
import json
import os
import re
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from drnet.datasets.contract import DataError

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+\.tmp")  # the name of every file that is not whole yet
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # errors of writing, for which the system names no file
JSON_LIMIT = 1 << 30  # bytes of the largest JSON file that is read


def canonical_json(value: Any) -> bytes:
    """Return the one JSON text of a value: sorted keys, no spaces, ASCII. Raises ValueError for NaN and infinity."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def pretty_json(value: Any) -> bytes:
    """Return JSON for people: indented by two, one final line end."""
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()


def sha256_of(data: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def whole_file(path: Path, keep_same: bool = False) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the final name, by an atomic rename after fsync, only if the block succeeds.

    Args:
        path: the final name.
        keep_same: leave a file of the same content that is there already as it is, its time included.

    Raises:
        OSError: with the final name, also where the system names no file (a full disk).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            sync(file)
        if keep_same and path.exists() and sha256_file(path) == sha256_file(temporary):
            temporary.unlink()
        else:
            temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and (error.errno in NO_ROOM or error.filename in (str(temporary), temporary)):
            error.filename, error.filename2 = str(path), None
        raise


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
    """Delete what killed writers left of files with these names; returns how many files that were."""
    stale = [path for path in folder.iterdir() if is_temporary(path, names)]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def read_json(path: Path, what: str, remedy: str = "") -> Any:
    """Read a JSON file of bounded size.

    Raises:
        DataError: where it is missing, too large or not JSON; `what` names it in the message, `remedy` is the way out.
    """
    try:
        size = path.stat().st_size
        if size > JSON_LIMIT:
            raise DataError(f"{path}: {size} bytes is too large for {what}; at most {JSON_LIMIT} are read")
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: {what} is missing{_way_out(remedy)}") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: {what} is not valid JSON{_way_out(remedy)}") from None


def _way_out(remedy: str) -> str:
    return f"; {remedy}" if remedy else ""
