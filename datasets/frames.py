"""Folders of numbered images as clips: a pattern of names tells which image belongs to which clip (`numbered_files.py`)."""

import fnmatch
import functools
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, get_args

import numpy as np
from numpy.typing import NDArray

from drnet.datasets.contract import (
    About,
    Clip,
    DataError,
    ItemFailed,
    ItemFiltered,
    Label,
    Setting,
    SourceFile,
    Split,
)
from drnet.datasets.draws import key_of, permutation
from drnet.datasets.reading.image_files import Colour, read_image, square
from drnet.datasets.reading.numbered_files import Listing, Pattern, image_paths, look
from drnet.datasets.reading.source_files import printable, source_files

SIZES = range(8, 513)
SHARE = 0.1  # of the clips, that are the test split unless the user says otherwise
STRAYS = "//other files"  # the item that stands for the files that do not match; no path has two slashes in a row
LARGEST = 2**53  # frame numbers lie below: JSON readers hold greater ones inexactly

WRAPS = "the azimuth wraps: a clip is one full turn, so its last frame is next to its first"
ABOUT = About(
    name="frames",
    version=1,
    title="folders of numbered images",
    licence="that of the images",
    citation="that of the images",
    split_key="clip",
    content_key="clip",
)


class Frames:
    """Folders of numbered images: each sequence of images is a clip.

    The pattern says where in a path below the source the clip's name and the frame's number stand; the rest of it is
    literal. Clips are divided at random, or by --test-clips-matching; a source whose folders are just train/ and test/
    is divided by them, and the pattern then holds inside each. Formats: PNG, JPEG, WebP, TIFF, BMP, GIF, PPM, JPEG 2000;
    16 bits become 8, and transparent parts white. Files that do not match are counted.

    Example: drnet data build frames --source DIR --pattern "obj{clip}__{frame}.png" --turn --out data/turns

    Args:
        source: folder of the images.
        pattern: a path below it with `{clip}` and `{frame}`.
        size: height and width of the frames in pixels, 8 to 512.
        crop: cut the middle square out of each image; else images are stretched to a square.
        colour: `rgb` or `grey`.
        test_share: part of the clips that are the test split, at least 0 and below 1; at least one clip, and never
            all. None for 0.1, or for what test_clips_matching or the folders say.
        test_clips_matching: patterns with `*`, `?` and `[]` of the names of the test clips.
        turn: a clip's frames are one full turn, evenly spaced: adds the label `azimuth`.
        allow_gaps: accept clips whose frame numbers are not evenly spaced.
        seed: of the division.

    Raises:
        DataError: in one line for a value that is not allowed.
    """

    about = ABOUT
    items_are = "clips"
    labels: Mapping[str, Label] = {
        "clip": Label("number", unit="id"),
        "frame": Label("number", varying=True),
    }

    def __init__(
        self,
        source: Annotated[Path, Setting("Folder of the images.", "DIR")],
        pattern: Annotated[str, Setting("Path below it, with {clip} and {frame}.", "PATTERN")] = "{clip}/{frame}.png",
        size: Annotated[int, Setting("Height and width of the frames, 8 to 512.", "PIXELS")] = 64,
        crop: Annotated[bool, Setting("Cut out the middle square; else images are stretched.")] = False,
        colour: Annotated[Colour, Setting("Colours of the frames.")] = "rgb",
        test_share: Annotated[
            float | None, Setting("Part of the clips that are the test split; 0.1 where nothing else decides.", "SHARE")
        ] = None,
        test_clips_matching: Annotated[
            tuple[str, ...], Setting("Names of the test clips, with * and ?; may be given again.", "GLOB")
        ] = (),
        turn: Annotated[bool, Setting("A clip is one full turn, evenly spaced: adds its azimuth.")] = False,
        allow_gaps: Annotated[bool, Setting("Accept clips with missing frame numbers.")] = False,
        seed: Annotated[int, Setting("Of the division into train and test.", "N")] = 0,
    ) -> None:
        if size not in SIZES:
            raise DataError(f"size {size} is not allowed; choose {SIZES[0]} to {SIZES[-1]}, for example 64")
        if colour not in get_args(Colour):
            raise DataError(f"colour '{colour}' is not allowed; it must be 'rgb' or 'grey'")
        if test_share is not None and not 0 <= test_share < 1:
            raise DataError(f"test-share {test_share} is not allowed; it must be at least 0 and below 1")
        if test_share is not None and test_clips_matching:
            raise DataError("test-share and test-clips-matching are not allowed together; leave one out")
        if turn and allow_gaps:
            raise DataError(
                "turn and allow-gaps are not allowed together: with gaps no azimuth is known; leave one out"
            )
        if seed < 0:
            raise DataError(f"seed {seed} is not allowed; it must be at least 0")
        self.source = Path(source).expanduser().absolute()  # a worker process may run elsewhere
        self.pattern, self.size, self.crop, self.colour = Pattern(pattern), size, crop, colour
        self.test_share, self.test_clips_matching = test_share, tuple(test_clips_matching)
        self.turn, self.allow_gaps, self.seed = turn, allow_gaps, seed
        self._made = uuid.uuid4().hex  # a new data set looks at the folder anew; its copies in workers share a look
        if turn:
            self.about = replace(ABOUT, notes=(WRAPS,))
            self.labels = {**Frames.labels, "azimuth": Label("number", varying=True, unit="degree", period=360)}

    def parameters(self) -> dict[str, Any]:
        """Return every setting that influences the bytes."""
        return {
            "pattern": self.pattern.text,
            "size": self.size,
            "crop": self.crop,
            "colour": self.colour,
            "test_share": self.test_share,
            "test_clips_matching": list(self.test_clips_matching),
            "turn": self.turn,
            "allow_gaps": self.allow_gaps,
            "seed": self.seed,
        }

    def sources(self) -> list[SourceFile]:
        """Return the images in use, folded into one row where they are many (`source_files`)."""
        return source_files(self.source, image_paths(self._listings(), self.pattern))

    def frame_shape(self) -> tuple[int, int, int]:
        """Return (H, W, C)."""
        return self.size, self.size, 3 if self.colour == "rgb" else 1

    def count(self, split: Split) -> int:
        """Return the number of clips of a split; where files do not match, one item of train stands for them all."""
        return len(self._division()[split]) + (split == "train" and self._strays() > 0)

    def item(self, split: Split, index: int) -> str:
        """Return the clip's name."""
        number = self._number(split, index)
        if number is None:
            return STRAYS
        part, at = self._place(number)
        return printable(part.names[at])

    def clips(self, split: Split, index: int) -> Iterator[Clip]:
        """Yield the clip."""
        number = self._number(split, index)
        if number is None:
            examples = ", ".join(repr(printable(name)) for part in self._listings() for name in part.examples)
            raise ItemFiltered(f"{self._strays()} files do not match the pattern, such as {examples}")
        part, at = self._place(number)
        name, digits = part.names[at], part.frames(at)
        numbers = [int(text) for text in digits]
        paths = [self.source / part.folder / self.pattern.name(name, text) for text in digits]
        self._check_numbers(numbers, paths)
        labels: dict[str, Any] = {"clip": number, "frame": numbers, "name": printable(name)}
        if self.turn:
            labels["azimuth"] = [360 * step / len(paths) for step in range(len(paths))]
        yield Clip(f"{split}-{index:08d}", self._read(paths), labels)

    def _read(self, paths: list[Path]) -> NDArray[np.uint8]:
        frames = np.empty((len(paths), *self.frame_shape()), np.uint8)
        first: tuple[int, ...] = ()
        for frame, path in zip(frames, paths, strict=True):
            image = read_image(path, self.colour)
            first = first or image.shape
            if image.shape != first:
                sizes = [f"{shape[1]}x{shape[0]}" for shape in (image.shape, first)]
                raise ItemFailed(f"{path.name} is {sizes[0]} pixels, {paths[0].name} {sizes[1]}; a clip has one size")
            frame[:] = square(image, self.size, self.crop)
        return frames

    def _check_numbers(self, numbers: list[int], paths: list[Path]) -> None:
        if numbers[-1] >= LARGEST:
            raise ItemFailed(f"{paths[-1].name} has a frame number of {LARGEST} or more")
        steps = [after - before for before, after in pairwise(numbers)]
        if 0 in steps:
            at = steps.index(0)
            raise ItemFailed(f"frame {numbers[at]} is there twice: {paths[at].name} and {paths[at + 1].name}")
        if self.allow_gaps or len(set(steps)) < 2:
            return
        step = min(steps)
        before = next(number for number, way in zip(numbers, steps, strict=False) if way > step)
        raise ItemFailed(f"frame {before + step} is missing, after {before}; --allow-gaps accepts it")

    def _number(self, split: Split, index: int) -> int | None:
        """Return a clip's number in the source; None for the files that do not match."""
        if not 0 <= index < self.count(split):
            raise IndexError(f"item {index} is not in the {split} split of {self.count(split)} items")
        chosen = self._division()[split]
        return int(chosen[index]) if index < len(chosen) else None

    def _place(self, number: int) -> tuple[Listing, int]:
        """Return where a clip is listed; numbers run on from train/ to test/."""
        first, *more = self._listings()
        return (first, number) if number < len(first.names) else (more[0], number - len(first.names))

    def _strays(self) -> int:
        return sum(part.strays for part in self._listings())

    def _listings(self) -> tuple[Listing, ...]:
        return _listings(self.source, self.pattern.text, self._made)

    def _division(self) -> Mapping[Split, NDArray[np.int64]]:
        chosen = (self.test_share, self.test_clips_matching, self.seed)
        return _divide(self.source, self.pattern.text, self._made, *chosen)


@functools.lru_cache(maxsize=2)
def _listings(source: Path, pattern: str, made: str) -> tuple[Listing, ...]:
    """Look at a source once a process for each data set that was made."""
    return look(source, Pattern(pattern))


@functools.lru_cache(maxsize=2)
def _divide(
    source: Path, pattern: str, made: str, share: float | None, globs: tuple[str, ...], seed: int
) -> Mapping[Split, NDArray[np.int64]]:
    """Return the numbers of each split's clips, rising."""
    listings = _listings(source, pattern, made)
    total = sum(len(part.names) for part in listings)
    if len(listings) > 1:
        if share is not None or globs:
            raise DataError(f"'{source}' is divided by its folders train/ and test/; leave out what else divides it")
        test = np.arange(total) >= len(listings[0].names)
    elif globs:
        names = [printable(name) for name in listings[0].names]
        test = np.array([any(fnmatch.fnmatchcase(name, glob) for glob in globs) for name in names])
        if not test.any() or test.all():
            which = "none" if not test.any() else "all"
            raise DataError(
                f"test-clips-matching {' '.join(map(repr, globs))} matches {which} of the {total} clips, such as "
                f"'{names[0]}'; it must match some"
            )
    else:
        wanted = SHARE if share is None else share
        least = 0 if wanted == 0 else 1
        tests = min(total - 1, max(least, round(total * wanted)))
        test = permutation(key_of("frames", "division", seed), total) < tests
    return {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}
