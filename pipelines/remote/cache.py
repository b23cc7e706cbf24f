"""Remote files as local ones: what a URL names is downloaded once into the user's cache.

An entry is keyed by the whole URL and, where it is known, the content's SHA-256: neither two URLs with the same file
name nor two versions of one URL share an entry, and a URL's secrets are in no name. What "checked on every use" means:

* The whole content is hashed once, while it is downloaded, and compared with the SHA-256 that the manifest or the
  sidecar lists. Size, modification time and hash of the file are noted then.
* Each time an entry is opened, size and modification time are compared with that note. Where they differ, the file is
  hashed again; where the hash differs too (cut, overwritten, swapped), it is downloaded again, once.
* Sidecars carry a checksum of their own, checked whenever one is opened; one that fails is downloaded again, once.
* What a disk changes behind the file system's back shows in the CRC-32 of each frame that is read: an error there.
* Where no hash is known (manifests, foreign shards) the server is asked at each opening of the data set whether the file
  is still the version that was noted, and it is downloaded again if not or if the server does not tell versions.

Threads and processes take turns at an entry: one downloads it, the others wait and use it. `room` says what goes when
the cache is full; no open shard is ever lost to that.
"""

import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from drnet.datasets.cache import cache_folder
from drnet.datasets.contract import DataError
from drnet.datasets.reading.source_files import sha256_file
from drnet.pipelines.files import whole_file
from drnet.pipelines.remote.answers import Unchanged
from drnet.pipelines.remote.download import PATIENT, QUICK, download
from drnet.pipelines.remote.room import LOCK, clear, held, reserve
from drnet.pipelines.remote.urls import check_url, name_of, shown, with_suffix
from drnet.pipelines.shards.manifest import Manifest, read_manifest
from drnet.pipelines.shards.shard import Sidecar, read_sidecar, sidecar_path


class _Note(NamedTuple):
    """What was true of a file when it was downloaded."""

    size: int
    changed: int  # modification time, ns
    sha256: str
    version: str


class Entry:
    """A URL's place in the cache. Enter it (`with`) to hold it: nobody else fetches or deletes it meanwhile.

    Attributes:
        url: of the file.
        sha256: of its content; empty where it is not known.
        path: of the local file, present or not.
    """

    def __init__(self, url: str, sha256: str = "", keyed: bool = True) -> None:
        """Make an entry.

        Args:
            url: of the file.
            sha256: that the content must have; empty where it is not known.
            keyed: whether the hash is a part of the key; False for what was fetched before its hash was known.
        """
        check_url(url)
        self.url, self.sha256 = url, sha256
        key = hashlib.sha256(f"{url}\n{sha256 if keyed else ''}".encode()).hexdigest()
        self.root = cache_folder() / "shards"
        name = re.sub(r"[^A-Za-z0-9_.-]", "_", name_of(url))[-100:].lstrip(".")
        self.path = self.root / key[:32] / (name or "file")

    def __enter__(self) -> "Entry":
        self._holding = contextlib.ExitStack()
        descriptor = self._holding.enter_context(held(self.path.parent / LOCK))
        assert descriptor is not None, "waited for"
        self._lock = descriptor
        clear(self.path.parent)
        return self

    def __exit__(self, *_: object) -> None:
        os.utime(self._lock)  # last used
        with contextlib.suppress(OSError):
            if [path.name for path in self.path.parent.iterdir()] == [LOCK]:  # nothing came
                (self.path.parent / LOCK).unlink()
                self.path.parent.rmdir()
        self._holding.close()

    def content(
        self, pauses: Sequence[float] = PATIENT, give_up: Callable[[], None] = lambda: None, ask: bool = False
    ) -> Path:
        """Return the local file with the URL's content, whole and checked, downloading it where it must be.

        Args:
            pauses: see `download`.
            give_up: see `reserve`.
            ask: ask the server whether it still is this version, though the hash is known.

        Raises:
            NotThere: where the URL names no file.
            Refused: where the server does not want to give it.
            DataError: where it cannot be read, or its content is not the one with `sha256`.
        """
        note = self._intact()
        if note is not None and self.sha256 and not ask:
            return self.path
        with contextlib.suppress(Unchanged):
            self._receive(note.version if note else "", pauses, give_up)
        return self.path

    def is_known(self) -> bool:
        """Whether the file is there, and the server can be asked whether it still is this version."""
        note = self._intact()
        return note is not None and bool(note.version)

    def sidecar(self) -> Sidecar:
        """Return the sidecar of a shard that is there; one that is damaged or of another shard is fetched once more."""
        url, path = with_suffix(self.url, ".tar", ".json"), sidecar_path(self.path)
        with contextlib.suppress(DataError):
            sidecar = read_sidecar(self.path)
            if sidecar.sha256 == self.sha256:
                return sidecar
        with whole_file(path) as file:
            download(url, file, room=lambda size: reserve(self.root, file, size, shown(url)))
        with named_as(path, url):
            return read_sidecar(self.path)

    def _receive(self, version: str, pauses: Sequence[float], give_up: Callable[[], None]) -> None:
        with whole_file(self.path) as file:

            def room(size: int) -> int:
                return reserve(self.root, file, size, shown(self.url), give_up)

            got = download(self.url, file, self.sha256, version, room, pauses)
        self._write(_Note(got.size, self.path.stat().st_mtime_ns, got.sha256, got.version))

    def _intact(self) -> _Note | None:
        """Return the note of a file that is there and still what was downloaded; None where it is not."""
        note = self._read()
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return None
        if note is None or (self.sha256 and note.sha256 != self.sha256):
            note = _Note(-1, -1, self.sha256, "")
        if (note.size, note.changed) == (stat.st_size, stat.st_mtime_ns):
            return note
        if not note.sha256 or sha256_file(self.path) != note.sha256:
            return None
        note = note._replace(size=stat.st_size, changed=stat.st_mtime_ns)
        self._write(note)
        return note

    def _read(self) -> _Note | None:
        words = os.pread(self._lock, 4096, 0).decode("utf-8", "replace").split("\n")
        if len(words) == 5 and words[0].isdecimal() and words[1].isdecimal():
            return _Note(int(words[0]), int(words[1]), words[2], words[3])
        return None

    def _write(self, note: _Note) -> None:
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, "".join(f"{word}\n" for word in note).encode(), 0)


@contextlib.contextmanager
def named_as(path: Path, url: str) -> Iterator[None]:
    """Let an error about a file of the cache name the URL that it came from."""
    try:
        yield
    except DataError as error:
        raise type(error)(str(error).replace(str(path), shown(url))) from None


def remote_manifest(url: str) -> Manifest:
    """Read the manifest that a URL names."""
    with Entry(url) as entry, named_as(entry.path, url):
        return read_manifest(entry.content(QUICK).parent)


def remote_sidecar(url: str) -> Sidecar:
    """Read the sidecar of the shard that a URL names, before the shard itself is fetched."""
    beside = with_suffix(url, ".tar", ".json")
    with Entry(beside) as entry, named_as(entry.path, beside):
        return read_sidecar(entry.content(QUICK).with_suffix(".tar"))
