"""Which videos a folder holds, which of them are the test split, and which are copies."""

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path

from drnet.datasets.contract import SPLITS, DataError, Split
from drnet.datasets.draws import key_of, permutation
from drnet.datasets.reading.source_files import copies, printable

ENDINGS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
MOST_FILES = 10**6  # that a key can number


@dataclass(frozen=True)
class Listing:
    """The files of a source.

    Attributes:
        names: relative to the source, sorted by their bytes.
        splits: for each split the places of its files among the names, ascending.
        copies: for each file with the bytes of an earlier one (train before test), that one.
    """

    names: tuple[str, ...]
    splits: Mapping[Split, Sequence[int]]
    copies: Mapping[int, int]

    def digest(self) -> str:
        """Return a hash of which file is where: clips depend on it, and files' own hashes do not show it."""
        lines = (f"{split}/".encode() + os.fsencode(self.names[n]) for split in SPLITS for n in self.splits[split])
        return sha256(b"\0".join(lines)).hexdigest()[:16]


@functools.lru_cache(maxsize=4)
def listing(source: str, share: float, patterns: tuple[str, ...], seed: int) -> Listing:
    """Return the videos of a folder; a process looks once, until `listing.cache_clear()`.

    Args:
        source: the folder.
        share: of the files, for the test split.
        patterns: of the names of the test files, in place of a share.
        seed: of the permutation that picks the share.

    Raises:
        DataError: there is no such folder, no video, or no train file, or a pattern names nothing.
    """
    names = tuple(sorted(_names(source), key=os.fsencode))
    if not names:
        raise DataError(f"no video in '{source}'; it must hold files with the endings {', '.join(ENDINGS)}")
    if len(names) > MOST_FILES:
        raise DataError(f"{len(names)} videos in '{source}' are too many; at most {MOST_FILES} make a data set")
    tests = _tests(names, share, patterns, seed)
    splits: dict[Split, list[int]] = {
        "train": [number for number in range(len(names)) if number not in tests],
        "test": sorted(tests),
    }
    if not splits["train"]:
        raise DataError(f"test-files {' '.join(patterns)} names every video; leave some for the train split")
    return Listing(names, splits, copies(Path(source), names, [*splits["train"], *splits["test"]]))


def _names(source: str) -> Iterator[str]:
    """Yield the names of the videos below a folder."""

    def refuse(error: OSError) -> None:
        raise DataError(f"'{error.filename}' is no folder that can be read ({error.strerror}); name a folder of videos")

    for folder, inner, files in os.walk(source, onerror=refuse):
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in files:
            path = Path(folder, name)
            if not name.startswith(".") and path.suffix.lower() in ENDINGS:
                yield path.relative_to(source).as_posix()


def _tests(names: Sequence[str], share: float, patterns: Sequence[str], seed: int) -> set[int]:
    """Return the places of the test files among the names."""
    if {name.partition("/")[0] for name in names} == {"train", "test"}:
        if patterns:
            raise DataError(
                f"test-files {' '.join(patterns)} is not allowed beside folders train and test; leave it out"
            )
        return {number for number, name in enumerate(names) if name.startswith("test/")}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise DataError(f"test-files {pattern} names no video; the first is '{printable(names[0])}'")
    if patterns:
        return {n for n, name in enumerate(names) if any(fnmatchcase(name, pattern) for pattern in patterns)}
    wanted = min(len(names) - 1, max(1, round(share * len(names)))) if share else 0
    return set(permutation(key_of("test videos", seed), len(names))[:wanted].tolist())
