"""Whether a file is the one its publisher serves: by size and SHA-256 or, of an archive of videos, by what it holds."""

import hashlib
import json
import re
import zipfile
import zlib
from pathlib import Path
from typing import Any

from drnet.datasets.contract import SourceFile
from drnet.datasets.fetching.originals import Original, Videos
from drnet.datasets.reading.avi import main_header
from drnet.datasets.reading.source_files import sha256_file

UNPACKED_LIMIT = 4 << 30  # bytes that the members of an archive may take together
MEMBERS_LIMIT = 10_000  # of an archive


class NotGenuine(Exception):  # noqa: N818 - caught where the file's name is known
    """A file is another one than the original; the message says in what, and goes on after the file's name."""


def check_same(path: Path, expected: SourceFile) -> None:
    """Raise NotGenuine where a file's size or SHA-256 is another."""
    size = path.stat().st_size
    if size != expected.size:
        raise NotGenuine(f"has {size:,} bytes; expected {expected.size:,}")
    if (sha256 := sha256_file(path)) != expected.sha256:
        raise NotGenuine(f"has the SHA-256 {sha256}; expected {expected.sha256}")


def check_served(path: Path, original: Original) -> dict[str, Any]:
    """Check a file as its publisher serves it.

    Args:
        path: of the file, under any name.
        original: what it must be.

    Returns:
        Of an archive of videos its facts: `size`, `sha256`, `sha1`, `videos`, `frames`; else nothing.

    Raises:
        NotGenuine: it is another file.
        OSError: it cannot be read.
    """
    if original.videos is None:
        check_same(path, SourceFile(original.served, original.size, original.sha256))
        return {}
    if path.stat().st_size > original.limit:
        raise NotGenuine(f"has {path.stat().st_size:,} bytes; expected about {original.size:,}")
    frames = _check_videos(path, original.videos)
    with path.open("rb") as file:
        sha1 = hashlib.file_digest(file, lambda: hashlib.sha1(usedforsecurity=False)).hexdigest()
    facts = {"size": path.stat().st_size, "sha256": sha256_file(path), "sha1": sha1}
    return {**facts, "videos": original.videos.count, "frames": frames}


def record_of(path: Path) -> Path:
    """Return where the facts of an archive are kept: `NAME.json` beside it."""
    return path.with_name(f"{path.name}.json")


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the facts recorded of an archive; None where there are none, or no legible ones."""
    try:
        found = json.loads(record_of(path).read_text())
    except (OSError, ValueError):
        return None
    wanted = {"size": int, "sha256": str, "sha1": str, "videos": int, "frames": int}
    right = isinstance(found, dict) and all(isinstance(found.get(name), kind) for name, kind in wanted.items())
    return found if right else None


def check_recorded(path: Path, facts: dict[str, Any]) -> None:
    """Raise NotGenuine where an archive is another one than when its facts were recorded."""
    if (sha256 := sha256_file(path)) != facts["sha256"]:
        raise NotGenuine(
            f"has the SHA-256 {sha256}; {record_of(path).name}, written when it was first seen, has another"
        )


def notes_of(facts: dict[str, Any], videos: Videos) -> list[str]:
    """Say what an archive holds, and where that differs from what others have found."""
    told = [f"{facts['videos']} videos, {facts['frames']:,} frames; SHA-256 {facts['sha256']}"]
    if facts["frames"] != videos.frames:
        told.append(f"their headers tell {facts['frames']:,} frames; expected {videos.frames:,}")
    if facts["sha1"] != videos.sha1:
        told.append(f"its SHA-1 is {facts['sha1']}; others have recorded {videos.sha1}")
    return told


def _check_videos(path: Path, videos: Videos) -> int:
    """Read every member of an archive, which compares its CRC-32, and return the number of frames of all videos."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > MEMBERS_LIMIT or sum(member.file_size for member in members) > UNPACKED_LIMIT:
                raise NotGenuine(f"announces more than {MEMBERS_LIMIT:,} members or {UNPACKED_LIMIT:,} bytes of them")
            names = [name for member in members if (name := member.filename.rpartition("/")[2])]
            found = {name for name in names if re.fullmatch(videos.pattern, name)}
            if len(found) != videos.count or len(names) != len(set(names)):
                raise NotGenuine(f"holds {len(found)} videos; expected {videos.count}, each once")
            frames = [_frames(archive, member) for member in members]
    # What zipfile raises on damaged archives, and on such as need a password or another method.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise NotGenuine(f"is no whole ZIP archive ({error})") from None
    return sum(frames)


def _frames(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    with archive.open(member) as file:
        head = file.read(64)
        while file.read(1 << 20):
            pass
    if not member.filename.endswith(".avi"):
        return 0
    frames = main_header(head[24:]).frames
    if not (head.startswith(b"RIFF") and head[8:12] == b"AVI ") or frames < 0:
        raise NotGenuine(f"holds {member.filename}, which is no AVI video")
    return frames
