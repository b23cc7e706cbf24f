"""Room in the cache: its size limit, and which entries go when it is reached.

An entry is a folder: one remote file, what belongs to it, and a lock file whose modification time is the last use. The
least recently used entries go first, always as a whole: a shard never stays without its sidecar. What a living process
is fetching (it holds the entry's lock) or reading (it shares a lock on the shard) never goes.
"""

import contextlib
import fcntl
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from drnet.datasets.contract import DataError
from drnet.pipelines.files import ABANDONED, remove_temporaries

LIMIT = "DRNET_CACHE_LIMIT"  # the environment variable
DEFAULT_LIMIT = "100GB"
LEFT_FREE = 0.05  # of the disk, whatever the limit
SMALL = 1 << 20  # bytes of a file that is fetched onto a fuller disk too: a manifest
LOCK = ".lock"
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(i?)b?", re.IGNORECASE)


def parse_size(text: str, what: str = LIMIT) -> int:
    """Return a size in bytes: `200GB`, `1.5 TiB`, `1000000`. Raises DataError for anything else."""
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise DataError(f"{what} {text!r} is not allowed; write a size such as 200GB, 1.5TB or 512MiB")
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** _UNITS[unit.lower()])


def limit() -> int:
    """Return the most bytes that the cache may have."""
    return parse_size(os.environ.get(LIMIT) or DEFAULT_LIMIT)


def size_text(size: float) -> str:
    """Return a size for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            break
        size, unit = size / 1000, {"B": "kB", "kB": "MB", "MB": "GB", "GB": "TB"}[unit]
    return f"{size:.3g} {unit}"


@contextlib.contextmanager
def held(lock: Path, wait: bool = True) -> Iterator[int | None]:
    """Hold a lock file for this thread, alone on this machine; yields its descriptor, or None where another has it.

    The lock ends with the process, and a lock file that was deleted meanwhile counts for nothing. Where the file system
    has no locks, one that was used in the last hour counts as held for those who do not wait.
    """
    descriptor = _take(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)  # also where a forked process has inherited the descriptor
            os.close(descriptor)


def _take(lock: Path, how: int) -> int | None:
    while True:
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except (FileNotFoundError, FileExistsError):
            if lock.parent.is_file():
                raise
            continue  # its folder went between two calls
        try:
            fcntl.flock(descriptor, how)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            if how & fcntl.LOCK_NB and _is_young(lock):
                os.close(descriptor)
                return None
            return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        with contextlib.suppress(FileNotFoundError):
            if lock.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)


def share(descriptor: int) -> None:
    """Mark an open file as being read, until its descriptor is closed."""
    with contextlib.suppress(OSError):  # without locks an open file can be read on after it was deleted
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)


def reserve(root: Path, file: BinaryIO, size: int, url: str, give_up: Callable[[], None] = lambda: None) -> int:
    """Make room for a file that is about to be written, and let it have its size at once, so that others count it.

    Args:
        root: of the cache.
        file: still empty, or reserved before.
        size: in bytes; 0 where it is not known.
        url: as it is shown.
        give_up: called where there is no room but for what is being read: closes what this process needs no more.

    Returns:
        The most bytes that the file may have.

    Raises:
        DataError: where it is larger than the cache may be, or the disk is too full.
    """
    with held(root / LOCK):
        most = limit()
        if size > most:
            raise DataError(
                f"{url}: its {size_text(size)} do not fit into the cache of {size_text(most)}; set {LIMIT} higher"
            )
        need = size - os.fstat(file.fileno()).st_size
        if _too_much(root, need, most):
            give_up()
            _too_much(root, need, most)
        if (short := _disk_short(root, need)) > 0:
            raise DataError(
                f"{url}: the disk of {root} needs {size_text(short)} more, 5% left free; empty it, or set DRNET_CACHE"
            )
        if size:
            file.truncate(size)
        return size or most


def _disk_short(root: Path, need: int) -> float:
    if need <= SMALL:
        return 0
    disk = shutil.disk_usage(root)
    return need + LEFT_FREE * disk.total - disk.free


class _Entry(NamedTuple):
    used: float
    size: int
    folder: Path


def _too_much(root: Path, need: int, limit: int) -> bool:
    """Let entries go until `need` bytes more fit; returns whether they do not."""
    entries = sorted(_entries(root))
    total = sum(entry.size for entry in entries)
    for entry in entries:
        if total + need <= limit and _disk_short(root, need) <= 0:
            return False
        if _drop(entry):
            total -= entry.size
    return total + need > limit or _disk_short(root, need) > 0


def _entries(root: Path) -> Iterator[_Entry]:
    for folder in root.iterdir():
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            clear(folder)
            found = {path.name: path.stat() for path in folder.iterdir()}
            used = found[LOCK] if LOCK in found else folder.stat()
            yield _Entry(used.st_mtime, sum(stat.st_size for stat in found.values()), folder)


def clear(folder: Path) -> None:
    """Delete what killed processes left of downloads into an entry."""
    names = {path.name[1:].rsplit(".", 2)[0] for path in folder.glob(".*.tmp")}
    if names:
        remove_temporaries(folder, names)


def _drop(entry: _Entry) -> bool:
    """Delete an entry, unless it is in use; returns whether it went."""
    with held(entry.folder / LOCK, wait=False) as mine:
        if mine is None or any(_is_read(path) for path in entry.folder.glob("*.tar")):
            return False
        try:
            for path in sorted(
                entry.folder.iterdir(), key=lambda path: path.name == LOCK
            ):  # the lock last: it keeps others out
                path.unlink()
            entry.folder.rmdir()
        except OSError:
            return False
        return True


def _is_read(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return _is_young(path.parent / LOCK)
    return False


def _is_young(lock: Path) -> bool:
    return time.time() - lock.stat().st_mtime < ABANDONED
