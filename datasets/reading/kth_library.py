"""Where the videos of the KTH actions are: files in folders, or members of the archives as they are downloaded.

Nothing is unpacked: a member is read into memory, which compares its checksum, and only while it is not too large.
"""

import functools
import hashlib
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from drnet.datasets.contract import DataError, ItemFailed, SourceFile
from drnet.datasets.reading.kth_sequences import ACTIONS, Video, parse_sequences

SEQUENCES = "00sequences.txt"
LARGEST = 1 << 26  # bytes of a video: ten times the greatest
WAYS_OUT = "`drnet data fetch kth` (or --fetch) downloads them, or name the folder that has them: --source DIR"

_TEXT_LIMIT = 1 << 20  # bytes of the list; it has 38,081
_NAME = re.compile(rf"(person\d\d_(?:{'|'.join(ACTIONS)})_d\d)_uncomp\.avi")
_PIECE = 1 << 20  # bytes hashed at a time
_UNREADABLE = (
    OSError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    RuntimeError,
    NotImplementedError,
)  # zipfile's last two


@dataclass(frozen=True)
class Place:
    """Where a video's bytes are.

    Attributes:
        path: of the file, or of the archive that has it.
        member: its name in the archive; empty for a file.
    """

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return f"{self.path}:{self.member}" if self.member else str(self.path)

    def read(self) -> bytes:
        """Return all bytes; raises ItemFailed where they cannot be read or are too many."""
        try:
            with self._open() as file:
                data = file.read(LARGEST + 1)
        except _UNREADABLE as error:
            raise ItemFailed(f"it cannot be read from {self.path.name} ({_reason(error)})") from None
        if len(data) > LARGEST:
            raise ItemFailed(f"it has more than {LARGEST:,} bytes, which no video of this data set has")
        return data

    def source_file(self, name: str) -> SourceFile:
        """Return size and SHA-256 of the bytes; of a damaged member, those of what could be read."""
        state = self.path.stat()
        return _hashed(self, name, (state.st_size, state.st_mtime_ns, state.st_ino))

    @contextmanager
    def _open(self) -> Iterator[IO[bytes]]:
        if not self.member:
            with self.path.open("rb") as file:
                yield file
            return
        with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as file:
            yield file


@functools.lru_cache(maxsize=1024)
def _hashed(place: Place, name: str, state: tuple[int, ...]) -> SourceFile:
    """Hash a video once a process, as long as its file stays as it is."""
    digest, size = hashlib.sha256(), 0
    try:
        with place._open() as file:
            while size <= LARGEST and (piece := file.read(_PIECE)):
                digest.update(piece)
                size += len(piece)
    except _UNREADABLE as error:
        if not place.member:
            raise DataError(f"{place} cannot be read ({_reason(error)}); put the file back or delete it") from None
    return SourceFile(name, size, digest.hexdigest())


@dataclass(frozen=True, eq=False)
class Library:
    """What a source folder has.

    Attributes:
        videos: of the list, sorted by name.
        places: of the videos that are there, by name.
        sequences: the list itself.
    """

    videos: tuple[Video, ...]
    places: Mapping[str, Place]
    sequences: Path

    @property
    def missing(self) -> list[str]:
        """Names of the videos that the list has ranges for and the folder lacks."""
        return [video.name for video in self.videos if video.ranges and video.name not in self.places]

    def source_files(self) -> list[SourceFile]:
        """Return the list and the videos that are there, by the names of their files: the same from an archive."""
        found = [Place(self.sequences).source_file(SEQUENCES)]
        listed = [video.name for video in self.videos if video.ranges]
        return found + [self.places[name].source_file(f"{name}_uncomp.avi") for name in listed if name in self.places]


@functools.lru_cache(maxsize=4)
def open_library(folder: Path) -> Library:
    """Look through a source folder; remembered by the process, until `open_library.cache_clear()`.

    Args:
        folder: it, or folders in it, have the list, and videos or archives of them.

    Raises:
        DataError: the folder, the list or every video is missing, an archive is damaged, or a video is there twice.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder to take the KTH videos from; {WAYS_OUT}")
    texts = sorted(folder.rglob(SEQUENCES))
    if not texts:
        raise DataError(f"{folder}: {SEQUENCES}, the list of the KTH videos, is not there; {WAYS_OUT}")
    try:
        with texts[0].open("rb") as file:
            text = file.read(_TEXT_LIMIT).decode("ascii", "replace")
    except OSError as error:
        raise DataError(f"{texts[0]} cannot be read ({_reason(error)}); {WAYS_OUT}") from None
    videos = parse_sequences(text, str(texts[0]))
    # What somebody has unpacked wins over the archive that is still beside it.
    places = _by_name(_members(folder)) | _by_name(
        Place(path) for path in sorted(folder.rglob("*.avi")) if path.is_file()
    )
    if not places:
        raise DataError(f"{folder}: none of the KTH videos is there, and none of their archives; {WAYS_OUT}")
    return Library(videos, places, texts[0])


def _members(folder: Path) -> Iterator[Place]:
    for path in sorted(folder.rglob("*.zip")):
        try:
            with zipfile.ZipFile(path) as archive:
                names = sorted(archive.namelist())
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is no whole archive ({_reason(error)}); delete it and download it again") from None
        yield from (Place(path, name) for name in names)


def _by_name(places: Iterator[Place]) -> dict[str, Place]:
    """Return the places of videos by the videos' names; anything else is none of ours."""
    found: dict[str, Place] = {}
    for place in places:
        match = _NAME.fullmatch((place.member or place.path.name).rpartition("/")[2])
        if match is None:
            continue
        if match[1] in found:
            raise DataError(f"video {match[1]} is there twice, {found[match[1]]} and {place}; keep one")
        found[match[1]] = place
    return found


def _reason(error: BaseException) -> str:
    return (
        (error.strerror if isinstance(error, OSError) else "") or " ".join(str(error).split()) or type(error).__name__
    )
