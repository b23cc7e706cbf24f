"""Files that are whole or not there: atomic writes, hashes, canonical JSON."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from drnet.datasets.contract import DataError

TEMPORARY = ".tmp"  # ending of every file that is not whole yet
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
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the final name, by an atomic rename after fsync, only if the block succeeds."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_whole(path: Path, data: bytes) -> None:
    """Write a small file atomically."""
    with whole_file(path) as file:
        file.write(data)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(folder: Path) -> int:
    """Delete what killed writers left in a folder; returns how many files that were."""
    stale = [path for path in folder.glob(f".*{TEMPORARY}") if path.is_file()]
    for path in stale:
        path.unlink(missing_ok=True)
    return len(stale)


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file of bounded size.

    Raises:
        DataError: where it is missing, too large or not JSON; `what` names it in the message.
    """
    try:
        size = path.stat().st_size
        if size > JSON_LIMIT:
            raise DataError(f"{path}: {size} bytes is too large for {what}; at most {JSON_LIMIT} are read")
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"{path}: {what} is missing") from None
    except (ValueError, RecursionError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}: {what} is not valid JSON; build the data set again") from None
