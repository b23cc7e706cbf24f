"""Raw files as a manifest records them: a row for each where they are few, one row for all where they are many."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from drnet.datasets.contract import DataError, SourceFile

LISTED = 1000  # files that get a row of their own; with more, a manifest would grow with the data set
REMEMBERED = 8  # sets of files whose hashes are kept: a build asks for them at its beginning and at its end

_known: dict[str, list[SourceFile]] = {}


def source_files(root: Path, paths: Iterable[Path | str]) -> list[SourceFile]:
    """Return the rows of some files, with their SHA-256, read once in small pieces.

    Up to 1,000 files have a row each. More are folded into one row: its name says how many files it stands for, its
    size is their sum, and its hash is that of the lines `<sha256>  <name>` sorted by the bytes of the name. For names
    without line ends and backslashes, `sha256sum` prints such lines:

        find . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum

    Asked again in the same process, files whose size, inode and times have not changed are not read again.

    Args:
        root: the folder that names are relative to.
        paths: the files, below `root` or relative to it, in any order, each once.

    Returns:
        Rows sorted by the bytes of the name, with `/` between folders on every system; [] for no files.

    Raises:
        DataError: a file is missing or cannot be read, or one is not below `root`.
    """
    names = sorted(_names(root, paths))  # plain strings: of 100,000 files they take 10 MB, as paths ten times that
    stamp = hashlib.sha256(os.fsencode(root) + b"\0")
    for name in names:
        state = _stat(root, name)
        numbers = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino, state.st_dev)
        stamp.update(name + b"\0%d %d %d %d %d\0" % numbers)
    key = stamp.hexdigest()
    if key not in _known:
        while len(_known) >= REMEMBERED:
            del _known[next(iter(_known))]
        _known[key] = _rows(root, names)
    return list(_known[key])


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content in hexadecimal; memory does not grow with the file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def copies(root: Path, names: Sequence[str], order: Iterable[int] | None = None) -> dict[int, int]:
    """Return which files have the bytes of an earlier one: for the place of each, that of the first. Empty ones are none.

    Args:
        root: the folder that names are relative to.
        names: of the files.
        order: places among the names, which say what is earlier; None for the order of the names.
    """
    sizes: dict[int, list[int]] = defaultdict(list)
    for number in range(len(names)) if order is None else order:
        path = root / names[number]
        sizes[path.stat().st_size if path.is_file() else 0].append(number)
    found = {}
    for size, alike in sizes.items():
        first: dict[str, int] = {}
        for number in alike if size and len(alike) > 1 else ():
            known = first.setdefault(sha256_file(root / names[number]), number)
            if known != number:
                found[number] = known
    return found


def printable(name: str | bytes) -> str:
    """Return a file's name as text that JSON holds, with what is no text in it written out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _names(root: Path, paths: Iterable[Path | str]) -> Iterator[bytes]:
    """Yield the names below the root; bytes, since a file's name need not be text."""
    below = os.fsencode(root).rstrip(b"/") + b"/"
    for path in paths:
        name = os.fsencode(path)
        if name.startswith(below):
            name = name[len(below) :]
        if name.startswith(b"/") or b".." in name.split(b"/"):
            raise DataError(f"'{path}' is not below the source folder '{root}'; give a folder that holds all files")
        yield name


def _rows(root: Path, names: list[bytes]) -> list[SourceFile]:
    if len(names) <= LISTED:
        return [_row(root, name) for name in names]
    digest, size = hashlib.sha256(), 0
    for name in names:
        row = _row(root, name)
        digest.update(row.sha256.encode() + b"  " + name + b"\n")
        size += row.size
    return [SourceFile(f"{len(names)} files", size, digest.hexdigest())]


def _row(root: Path, name: bytes) -> SourceFile:
    path = root / os.fsdecode(name)
    try:
        return SourceFile(printable(name), path.stat().st_size, sha256_file(path))
    except OSError as error:
        raise _unreadable(path, error) from None


def _stat(root: Path, name: bytes) -> os.stat_result:
    path = root / os.fsdecode(name)
    try:
        return path.stat()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> DataError:
    reason = error.strerror or type(error).__name__
    return DataError(f"'{path}' cannot be read ({reason}); put the file back, or build again without it")
