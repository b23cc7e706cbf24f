"""Small NORB: toys on a turntable, each turn of one toy under one light and from one height a clip.

Six binary matrices (`matrices.py`): for train and test the pictures of two cameras, their categories, and what else is
known of them. Their rows are shuffled; a clip's frames are the 18 rows that its facts name, in the order of the azimuth.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from drnet.datasets import cache
from drnet.datasets.contract import (
    SPLITS,
    About,
    Clip,
    DataError,
    ItemFailed,
    ItemMissing,
    Label,
    Setting,
    SourceFile,
    Split,
    Tell,
)
from drnet.datasets.fetching.originals import ORIGINALS
from drnet.datasets.reading.matrices import MatrixFile, check_matrix, find_matrix, map_matrix, unpacked
from drnet.datasets.scale import scale

Camera = Literal["left", "right", "both"]

CATEGORIES = ("animal", "human", "airplane", "truck", "car")
CAMERAS = ("left", "right")  # the order of the files' second axis
SIDE = 96  # pixels of the originals
SIZES = (32, 48, 64, 96, 128)
AZIMUTHS = range(0, 36, 2)  # as the files number them, in tens of degrees
ELEVATIONS = range(9)  # as the files number them
LIGHTINGS = range(6)
WAYS_OUT = "`drnet data fetch norb` (or --fetch) downloads it, or name the folder that has it: --source DIR"

ABOUT = About(
    name="norb",
    version=1,
    title="toys on a turntable: small NORB",
    licence=ORIGINALS["norb"].licence,
    citation=ORIGINALS["norb"].citation,
    split_key="instance",
    content_key="object",
    notes=(
        "the azimuth wraps: a clip is one full turn in steps of 20 degrees, so its last frame is next to its first",
        "an instance number names another toy in each category; `object` is 10 * category + instance",
    ),
)


class Toy(NamedTuple):
    """What a clip shows, in the files' own numbers."""

    category: int
    instance: int
    elevation: int
    lighting: int

    def degrees(self) -> int:
        """Return the camera's elevation above the horizon."""
        return 30 + 5 * self.elevation


@dataclass(frozen=True)
class Part:
    """The three files of a split, and what is in them.

    Attributes:
        dat: the pictures, (N, camera, 96, 96) uint8.
        cat: their categories, (N,) int32.
        info: their instance, elevation, azimuth and lighting, (N, 4) int32.
        instances: the numbers of the toys of each category.
        elevations: numbers of the elevations, 0 to 8.
        lightings: numbers of the lightings, 0 to 5.
    """

    dat: MatrixFile
    cat: MatrixFile
    info: MatrixFile
    instances: tuple[int, ...]
    elevations: tuple[int, ...] = tuple(ELEVATIONS)
    lightings: tuple[int, ...] = tuple(LIGHTINGS)

    @property
    def files(self) -> tuple[MatrixFile, ...]:
        """The three files."""
        return self.dat, self.cat, self.info

    @property
    def choices(self) -> tuple[Sequence[int], ...]:
        """The numbers that each field of a `Toy` takes."""
        return range(len(CATEGORIES)), self.instances, self.elevations, self.lightings

    @property
    def turns(self) -> int:
        """The number of clips of a camera."""
        return math.prod(map(len, self.choices))

    def toy(self, index: int) -> Toy:
        """Return what clip number `index` shows: the lighting changes fastest, the category slowest."""
        places = np.unravel_index(index, [len(choice) for choice in self.choices])
        return Toy(*(choice[int(place)] for choice, place in zip(self.choices, places, strict=True)))


@dataclass(frozen=True)
class Edition:
    """The files that a data set is built from: the published ones, or others in their format."""

    train: Part
    test: Part
    about: About = ABOUT

    def part(self, split: Split) -> Part:
        """Return a split's files."""
        return self.train if split == "train" else self.test


def part_of(prefix: str, hashes: tuple[str, str, str], pictures: int, instances: tuple[int, ...], **rest: Any) -> Part:
    """Return a part from the beginning of its files' names, the SHA-256 of dat, cat and info, and their rows."""
    shapes = (("dat", "u1", (2, SIDE, SIDE)), ("cat", "<i4", ()), ("info", "<i4", (4,)))
    files = [
        MatrixFile(f"{prefix}-{name}.mat", dtype, (pictures, *shape), sha256)
        for (name, dtype, shape), sha256 in zip(shapes, hashes, strict=True)
    ]
    return Part(files[0], files[1], files[2], instances, **rest)


PREFIXES: dict[Split, str] = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}


def _published(split: Split, instances: tuple[int, ...]) -> Part:
    """Return a split's part as it is published, by the hashes of the table of downloads."""
    pinned = {file.name: file.unpacked.sha256 for file in ORIGINALS["norb"].files if file.unpacked}
    dat, cat, info = (pinned[f"{PREFIXES[split]}-{name}.mat"] for name in ("dat", "cat", "info"))
    return part_of(PREFIXES[split], (dat, cat, info), 24_300, instances)


ORIGINAL = Edition(_published("train", (4, 6, 7, 8, 9)), _published("test", (0, 1, 2, 3, 5)))


class SmallNorb:
    """Toys on a turntable: small NORB, 50 toys of five kinds.

    One clip is one full turn of a toy in 18 steps, under one of six lights, seen from one of nine heights: 1,350 train
    and 1,350 test clips of each camera, the toys divided as published. Without --source the six files, gzip or not,
    are looked for in the cache (`drnet data fetch norb` puts them there). Only the original files are accepted.

    Example: drnet data build norb --out data/norb --source DIR

    Args:
        source: folder of the six files, each plain or with `.gz`; None for `norb` in the user's cache.
        camera: `left`, `right`, or `both`: a clip for each, two for a toy's turn.
        size: height and width of the frames in pixels: 32, 48, 64, 96 (the originals) or 128.
        fetch: download what is missing.
        edition: the files expected; others than the published ones for tests and miniatures.

    Raises:
        DataError: in one line for a value that is not allowed.
    """

    about = ABOUT
    items_are = "turns"
    labels: Mapping[str, Label] = {
        "category": Label("category", names=CATEGORIES),
        "instance": Label("number", unit="id"),
        "object": Label("number", unit="id"),
        "elevation": Label("number", unit="degree"),
        "lighting": Label("category", names=tuple(map(str, LIGHTINGS))),
        "camera": Label("category", names=CAMERAS),
        "azimuth": Label("number", varying=True, unit="degree", period=360),
    }

    def __init__(
        self,
        source: Annotated[Path | None, Setting("Folder of the six files; by default the cache's.", "DIR")] = None,
        camera: Annotated[Camera, Setting("Which of the two cameras; both: a clip for each.")] = "left",
        size: Annotated[int, Setting("Height and width of the frames: 32, 48, 64, 96 or 128.", "PIXELS")] = 64,
        fetch: Annotated[bool, Setting("Download the files where they are missing.")] = False,
        edition: Edition = ORIGINAL,
    ) -> None:
        if camera not in get_args(Camera):
            raise DataError(f"camera '{camera}' is not allowed; it must be 'left', 'right' or 'both'")
        if size not in SIZES:
            raise DataError(f"size {size} is not allowed; choose {', '.join(map(str, SIZES[:-1]))} or {SIZES[-1]}")
        self.source = None if source is None else Path(source).expanduser().absolute()  # a worker may run elsewhere
        self.camera, self.size, self.fetch, self.edition = camera, size, fetch, edition
        self.about = edition.about

    def parameters(self) -> dict[str, Any]:
        """Return every setting that influences the bytes."""
        return {"camera": self.camera, "size": self.size}

    def sources(self) -> list[SourceFile]:
        """Return the unpacked files, all of them read and compared with the originals' hashes."""
        self.fetch_missing()
        return [_checked(self._folder(), file) for file in self._files()]

    def fetch_missing(self, tell: Tell | None = None) -> None:
        """Download the files where some are missing, and where that was asked for."""
        folder = self._folder()
        there = ((folder / file.name).is_file() or (folder / f"{file.name}.gz").is_file() for file in self._files())
        if self.fetch and not all(there):
            from drnet.datasets.fetching.fetch import fetch  # only here: it brings an HTTP client

            fetch("norb", folder, tell)

    def frame_shape(self) -> tuple[int, int, int]:
        """Return (H, W, 1)."""
        return self.size, self.size, 1

    def count(self, split: Split) -> int:
        """Return the number of turns."""
        return self.edition.part(split).turns

    def item(self, split: Split, index: int) -> str:
        """Return a turn's name, such as `truck-4-elevation-35-lighting-0`."""
        toy = self._toy(split, index)
        return f"{CATEGORIES[toy.category]}-{toy.instance}-elevation-{toy.degrees()}-lighting-{toy.lighting}"

    def missing_items(self, split: Split) -> list[str]:
        """Return the names of the turns of which the info file names no picture."""
        rows = _rows(self._folder(), self.edition.part(split))
        return [self.item(split, int(index)) for index in np.flatnonzero((rows < 0).all(1))]

    def clips(self, split: Split, index: int) -> Iterator[Clip]:
        """Yield the turn as each chosen camera saw it."""
        toy, folder, part = self._toy(split, index), self._folder(), self.edition.part(split)
        rows = _rows(folder, part)[index]
        absent = [10 * azimuth for azimuth, row in zip(AZIMUTHS, rows, strict=True) if row < 0]
        if len(absent) == len(AZIMUTHS):
            raise ItemMissing("the info file names no picture of it")
        if absent:
            raise ItemFailed(f"the info file names no picture at azimuth {', '.join(map(str, absent))}")
        pictures = map_matrix(_located(folder, part.dat), part.dat)  # anew: what is mapped counts as memory in use
        for number, camera in enumerate(CAMERAS):
            if self.camera in (camera, "both"):
                frames = scale(np.asarray(pictures[rows, number]), self.size, self.size)[..., None]
                yield Clip(f"{split}-{index:04d}-{camera}", frames, self._labels(toy, number))

    def _labels(self, toy: Toy, camera: int) -> dict[str, Any]:
        return {
            "category": toy.category,
            "instance": toy.instance,
            "object": 10 * toy.category + toy.instance,
            "elevation": toy.degrees(),
            "lighting": toy.lighting,
            "camera": camera,
            "azimuth": [10 * azimuth for azimuth in AZIMUTHS],
        }

    def _files(self) -> list[MatrixFile]:
        return [file for split in SPLITS for file in self.edition.part(split).files]

    def _folder(self) -> Path:
        return cache.cache_folder() / "norb" if self.source is None else self.source

    def _toy(self, split: Split, index: int) -> Toy:
        part = self.edition.part(split)
        if not 0 <= index < part.turns:
            raise IndexError(f"turn {index} is not in the {split} split of {part.turns} turns")
        return part.toy(index)


def _located(folder: Path, file: MatrixFile) -> Path:
    """Return where an unpacked file is; raises DataError where it is missing."""
    found = find_matrix(folder, file)
    if found is None:
        raise DataError(f"'{folder}' holds no {file.name}, with .gz or without; {WAYS_OUT}")
    return found


def _checked(folder: Path, file: MatrixFile) -> SourceFile:
    """Return a file's row; raises DataError where it is missing or not the original."""
    path = _located(folder, file)
    try:
        return check_matrix(path, file)
    except DataError:
        if path.parent == folder:
            raise
    path.unlink()  # the cache's copy was damaged later: its name was given to a file with the right hash
    return check_matrix(unpacked(folder / f"{file.name}.gz", file), file)


@functools.cache
def _rows(folder: Path, part: Part) -> NDArray[np.int64]:
    """Return the (turn, azimuth) rows of the pictures, in the order of `Part.toy`; -1 where there is none.

    Raises:
        DataError: a row's facts are not among those of the part, or two rows' are the same.
    """
    category, facts = (np.asarray(map_matrix(_located(folder, file), file)) for file in (part.cat, part.info))
    columns = zip(
        ("category", "instance", "elevation", "lighting", "azimuth"),
        (category, facts[:, 0], facts[:, 1], facts[:, 3], facts[:, 2]),
        (*part.choices, AZIMUTHS),
        strict=True,
    )
    place = np.zeros(len(facts), np.int64)
    for name, column, allowed in columns:
        at = np.searchsorted(allowed, column).clip(max=len(allowed) - 1)
        wrong = np.flatnonzero(np.asarray(allowed)[at] != column)
        if wrong.size:
            raise DataError(f"row {wrong[0]} of {part.info.name} has {name} {column[wrong[0]]}; expected {[*allowed]}")
        place = place * len(allowed) + at
    rows = np.full(part.turns * len(AZIMUTHS), -1, np.int64)
    rows[place] = np.arange(len(place))
    if np.count_nonzero(rows >= 0) < len(place):
        again = np.flatnonzero(rows[place] != np.arange(len(place)))[0]
        raise DataError(f"rows {again} and {rows[place[again]]} of {part.info.name} say the same; expected one of them")
    return rows.reshape(-1, len(AZIMUTHS))
