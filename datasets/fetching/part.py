"""What has arrived of a file: `NAME.part`, with `NAME.part.json` saying of which URL and version it is.

One process at a time has it. It is there to be continued, so nothing but a wrong content or a finished file ends it.
"""

import contextlib
import errno
import fcntl
import io
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from drnet.datasets.contract import DataError


class Part:
    """A file that is being received.

    Args:
        path: `NAME.part`.
        file: that file, open, locked and unbuffered.
    """

    def __init__(self, path: Path, file: io.FileIO) -> None:
        self.path, self.note, self.file = path, path.with_name(f"{path.name}.json"), file

    @property
    def size(self) -> int:
        """Bytes that lie there."""
        return os.fstat(self.file.fileno()).st_size

    def origin(self) -> dict[str, Any]:
        """Return `url`, `etag`, `modified` and `total` of what lies there; all empty where that is not known."""
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(self.note.read_text())
            texts = isinstance(found, dict) and all(
                isinstance(found.get(name), str) for name in ("url", "etag", "modified")
            )
            if self.size and texts and isinstance(found.get("total"), int | None):
                return found
        return {"url": "", "etag": "", "modified": "", "total": None}

    def begin(self, url: str, etag: str, modified: str, total: int | None) -> None:
        """Forget what lies there and note what is going to."""
        self.forget()
        note = {"url": url, "etag": etag, "modified": modified, "total": total}
        with room_in(self.path.parent):
            self.note.write_text(json.dumps(note))

    def forget(self) -> None:
        """Empty the file; whatever it held was wrong or of another version."""
        self.file.truncate(0)
        self.note.unlink(missing_ok=True)

    def append(self, data: bytes) -> None:
        """Write at the end. Raises DataError where there is no room."""
        self.file.seek(0, os.SEEK_END)
        rest = memoryview(data)
        with room_in(self.path.parent):
            while rest:
                rest = rest[self.file.write(rest) :]


@contextlib.contextmanager
def locked_part(path: Path, final: Path, waiting: Callable[[int], None]) -> Iterator[Part | None]:
    """Open `NAME.part` for this process alone; None where another process has meanwhile made the final file.

    The lock is on the file itself: it ends with the process, and leaves nothing. An empty file is removed.

    Args:
        path: `NAME.part`.
        final: what is made of it.
        waiting: called with the size, again and again, while another process has the lock.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with io.FileIO(descriptor, "r+b") as file:
            _wait_for_lock(file, waiting)
            if not _is_at(file, path):  # renamed or removed by the process that had it
                continue
            part = Part(path, file)
            try:
                yield None if final.exists() else part
            finally:
                if _is_at(file, path) and not part.size:
                    part.note.unlink(missing_ok=True)
                    path.unlink()
            return


@contextlib.contextmanager
def room_in(folder: Path) -> Iterator[None]:
    """Turn the errors of a full disk into one DataError."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise DataError(
            f"no room in '{folder}'; make some, and run the same command again: it goes on where it stopped"
        ) from None


def _wait_for_lock(file: io.FileIO, waiting: Callable[[int], None]) -> None:
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting(os.fstat(file.fileno()).st_size)
            time.sleep(0.1)


def _is_at(file: io.FileIO, path: Path) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
