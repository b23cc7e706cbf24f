"""Whose folder it is: one build at a time writes into it, and never over another build or anybody's files."""

import errno
import fcntl
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from drnet.datasets.contract import DataError
from drnet.pipelines.files import is_temporary
from drnet.pipelines.shards.manifest import CARD, MANIFEST, PICTURE, Manifest, read_manifest
from drnet.pipelines.shards.shard import OtherFormat, Sidecar, read_sidecar

LOCK = ".drnet.lock"  # a file only where the file system locks files but no folders; nothing depends on its being there
_SIDECAR = re.compile(r"(train|test)-\d{6}\.json")
_START = re.compile(rb'\{"build":"([0-9a-f]{64})"')  # of every sidecar: its keys are sorted
_NO_LOCKS = (errno.EBADF, errno.EINVAL, errno.EISDIR, errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_held: set[int] = set()


@contextmanager
def locked(folder: Path, kind: type[ValueError] = DataError, doing: str = "is building") -> Iterator[None]:
    """Hold a folder for this process. The lock is on the folder: it leaves no file and ends with the process.

    NFS locks files only, and no folders: there it is on a file `.drnet.lock`, which is deleted at the end, and which a killed
    process may leave behind, unlocked. A file system without any locks is not held at all.

    Args:
        folder: to hold.
        kind: of the error where another process holds it.
        doing: what that process does there, in the error.
    """
    busy = kind(f"{folder}: another process {doing} into it; wait for it, or choose another --out")
    descriptor = os.open(folder, os.O_RDONLY)
    file = None if _lock(descriptor, busy) else folder / LOCK
    if file is not None:
        os.close(descriptor)
        descriptor = _lock_file(file, busy)
    _held.add(descriptor)
    try:
        yield
    finally:
        if descriptor in _held:  # in a forked child it is not
            _held.discard(descriptor)
            if file is not None:
                file.unlink(missing_ok=True)
            os.close(descriptor)


def _lock(descriptor: int, busy: ValueError) -> bool:
    """Lock an open file or folder; closes it where that fails. Returns whether its file system can."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise busy from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            os.close(descriptor)
            raise
        return False
    return True


def _lock_file(path: Path, busy: ValueError) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        if not _lock(descriptor, busy):
            return descriptor
        with suppress(FileNotFoundError):
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # its holder has just deleted it


def _let_go() -> None:
    """Close the locks in a forked child: a folder must not stay locked because a child outlives its parent."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


def refuse_file(folder: Path) -> None:
    """Raise DataError where a folder that is to be written is a file."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; give a folder as --out")


def refuse_strangers(folder: Path, others: Collection[str]) -> None:
    """Raise DataError where there are names of files in a folder that do not belong to what is written there."""
    if others:
        listed = ", ".join(sorted(others)[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
        raise DataError(f"{folder} holds other files ({listed}); choose an empty or new folder as --out")


def refuse_others(folder: Path, build: str, names: frozenset[str], settings: Mapping[str, Any]) -> None:
    """Raise DataError where a folder holds another build (a half-built one included) or files that are not a build's.

    A file of this build's names that is damaged is no obstacle, but only where another one shows that the folder is
    this build's: a user's own `train-000000.tar` or `manifest.json` is never overwritten.

    Args:
        folder: present or not.
        build: id of the build that wants the folder.
        names: of every file that build ends with.
        settings: of that build; told from another one's in the message.
    """
    if not folder.exists():
        return
    found = {path.name for path in folder.iterdir() if path.name != LOCK and not is_temporary(path, names)}
    builds = _builds_in(folder, found, build)
    if builds.get(MANIFEST, "") not in ("", build):
        difference = _difference(read_manifest(folder), settings)
        raise DataError(f"{folder} holds another build ({difference}); choose another --out, or delete it")
    if part := next((name for name, other in builds.items() if other not in ("", build)), None):
        raise DataError(f"{folder} holds part of another build ({part}); choose another --out, or delete it")
    refuse_strangers(folder, found - names - {CARD, PICTURE} if build in builds.values() else found)


def _builds_in(folder: Path, found: Collection[str], build: str) -> dict[str, str]:
    """Return the build id in the manifest and in each sidecar found; empty where it cannot be read."""
    builds = {MANIFEST: _build_of(partial(read_manifest, folder))} if MANIFEST in found else {}
    sidecars = sorted(name for name in found if _SIDECAR.fullmatch(name))
    return builds | {name: _build_of_sidecar(folder / name, build) for name in sidecars}


def _build_of_sidecar(path: Path, build: str) -> str:
    """Return a sidecar's build id. One that begins as this build's do is not read on: there may be very many."""
    with suppress(OSError), path.open("rb") as file:
        start = _START.match(file.read(80))
        if start and start[1].decode() == build:
            return build
    return _build_of(partial(read_sidecar, path.with_suffix(".tar")))


def _build_of(read: Callable[[], Manifest | Sidecar]) -> str:
    try:
        return read().build
    except OtherFormat:
        raise
    except DataError:
        return ""  # damaged


def _difference(found: Manifest, settings: Mapping[str, Any]) -> str:
    """Say in a few words how the builds differ."""
    theirs = {"data set": found.about["data_set"], **found.parameters, "codec": found.codec}
    other = [f"{k} {theirs.get(k)!r}, not {v!r}" for k, v in settings.items() if theirs.get(k) != v]
    return "; ".join(other[:3]) or "other sources, version or shard size"
