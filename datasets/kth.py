"""KTH actions: 25 persons walk, jog, run, box, wave and clap; each sub-sequence of a video is a clip.

Axes: T frames, H and W of a frame, C channels.
"""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from drnet.datasets import cache
from drnet.datasets.contract import (
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
from drnet.datasets.reading.avi import AviFrames, NoAviError, avi_frames
from drnet.datasets.reading.kth_frames import FOR_DAMAGED, UnreadableError, read_frames
from drnet.datasets.reading.kth_library import Library, open_library
from drnet.datasets.reading.kth_sequences import ACTIONS, PERSONS, Range, Video
from drnet.datasets.scale import scale

Bytes = NDArray[np.uint8]
Colour = Literal["grey", "rgb"]

SIZES = range(32, 257, 32)
SCENARIOS = ("d1 outdoors", "d2 outdoors, scale varies", "d3 outdoors, other clothes", "d4 indoors")
GREEN = slice(1, 2)  # it is the luma of these grey videos: chroma that is one step off neutral leaves it as it is
ALL = slice(None)
NAMED = 3  # missing videos that a message names


class Expected(NamedTuple):
    """What a split has according to the list, before anything is decoded."""

    videos: int
    ranges: int
    frames: int


class Kth:
    """KTH actions: persons who walk, jog, run, box, wave and clap; a clip for each sub-sequence, of its own length.

    The source is a folder with 00sequences.txt and the videos: AVI files, in folders or not, or the archives as they are
    downloaded (walking.zip ...), which are read without unpacking. Frames of 160x120 are stretched to a square, as the
    paper's authors did. Persons 17 to 25 are the test split. By the list there are 383 train videos with 1,528 clips and
    144,350 frames, and 216 test videos with 863 clips and 83,287 frames.

    Example: drnet data build kth --source DIR --out data/kth --workers 2

    The authors' index had 1,527 clips, 142,698 and 82,424 frames: the same ranges without their last frames, and without
    one of 125 frames, which fits 246-370 of person01_boxing_d4, whose published video is said to end at frame 304. This
    builder keeps the last frames, and counts a video that is too short as failed, with the clips that are whole; one
    such video is let pass by --max-failures 1.

    Args:
        source: the folder; None: `kth` in the user's cache.
        size: height and width of a frame in pixels, a multiple of 32 from 32 to 256.
        colour: `grey` for one channel, `rgb` for three.
        test_persons: numbers from 1 to 25 and ranges of them, with commas between: `17-25`, `21,22,25`.
        allow_missing: build although videos are missing.
        fetch: download first what is missing of the source.

    Raises:
        DataError: a value is not allowed.
    """

    about = About(
        name="kth",
        version=1,
        title="persons who walk, jog, run, box, wave and clap (KTH actions)",
        licence=ORIGINALS["kth"].licence,
        citation=ORIGINALS["kth"].citation,
        split_key="person",
        content_key="video",
        notes=(
            "first_frame and last_frame count from 1 in the video, both inclusive, as in 00sequences.txt",
            "in nine videos ranges touch, overlap or stand out of order: clips of a video may share frames",
            "frames of 160x120 pixels are stretched to a square",
            "the original authors' index left out the last frame of every range, and one range of a damaged video",
        ),
    )
    items_are = "videos"
    labels: Mapping[str, Label] = {
        "person": Label("number", unit="id"),
        "action": Label("category", names=ACTIONS),
        "scenario": Label("category", names=SCENARIOS),
        "video": Label("number", unit="id"),
        "first_frame": Label("number", unit="id"),
        "last_frame": Label("number", unit="id"),
    }

    def __init__(
        self,
        source: Annotated[
            Path | None, Setting("Folder of the videos or archives and 00sequences.txt; else the user's cache.", "DIR")
        ] = None,
        size: Annotated[int, Setting("Height and width of a frame, a multiple of 32 from 32 to 256.", "PIXELS")] = 128,
        colour: Annotated[Colour, Setting("grey: one channel; rgb: three.")] = "grey",
        test_persons: Annotated[
            str, Setting("Persons of the test split, such as 21-25 or 21,22,25.", "PERSONS")
        ] = "17-25",
        allow_missing: Annotated[bool, Setting("Build although videos are missing; they are counted.")] = False,
        fetch: Annotated[bool, Setting("Download first what the source lacks.")] = False,
    ) -> None:
        if size not in SIZES:
            raise DataError(f"size {size} is not allowed; it must be a multiple of 32 from 32 to 256, for example 128")
        if colour not in get_args(Colour):
            raise DataError(f"colour '{colour}' is not allowed; it must be 'grey' or 'rgb'")
        self._test = persons_of(test_persons)
        if len(self._test) == len(PERSONS):
            raise DataError(f"test-persons {test_persons} is not allowed; it leaves no person for the train split")
        self.source = None if source is None else Path(source).expanduser().absolute()  # workers may run elsewhere
        self.size, self.colour, self.allow_missing = size, colour, allow_missing
        self._fetch = fetch

    @property
    def folder(self) -> Path:
        """Where the videos are."""
        return self.source or cache.cache_folder() / self.about.name

    def fetch_missing(self, tell: Tell | None = None) -> None:
        """Download what the source lacks, where that was asked for, and only once."""
        if self._fetch:
            from drnet.datasets.fetching.fetch import fetch  # with what it needs of the network

            fetch(self.about.name, self.folder, tell)
            self._fetch = False  # never again in a worker process

    def parameters(self) -> dict[str, Any]:
        """Return every setting that influences the bytes."""
        return {"size": self.size, "colour": self.colour, "test_persons": text_of(self._test)}

    def sources(self) -> list[SourceFile]:
        """Return the list and the videos in use; raises DataError where some are missing and must not be."""
        open_library.cache_clear()  # somebody may have put right what was wrong
        library = self._library()
        if library.missing and not self.allow_missing:
            listed = sum(1 for video in library.videos if video.ranges)
            names = ", ".join(library.missing[:NAMED]) + (", ..." if len(library.missing) > NAMED else "")
            raise DataError(
                f"{len(library.missing)} of {listed} videos are not in {self.folder} ({names}); "
                "`drnet data fetch kth` (or --fetch) downloads them, or build without them: --allow-missing"
            )
        return library.source_files()

    def frame_shape(self) -> tuple[int, int, int]:
        """Return (H, W, C)."""
        return self.size, self.size, 1 if self.colour == "grey" else 3

    def expected(self, split: Split) -> Expected:
        """Return what the list says that a split has; nothing is decoded."""
        videos = [video for video in self._videos(split) if video.ranges]
        ranges = sum(len(video.ranges) for video in videos)
        return Expected(len(videos), ranges, sum(video.frames for video in videos))

    def count(self, split: Split) -> int:
        """Return the number of videos in the list, the one that it calls missing included."""
        return len(self._videos(split))

    def item(self, split: Split, index: int) -> str:
        """Return the video's name."""
        return self._videos(split)[index].name

    def missing_items(self, split: Split) -> list[str]:
        """Return the names of the videos that are not in the source, and of the one that the list calls missing."""
        there = self._library().places
        return [video.name for video in self._videos(split) if not video.ranges or video.name not in there]

    def clips(self, split: Split, index: int) -> Iterator[Clip]:
        """Yield a clip for each range of a video that is whole."""
        video = self._videos(split)[index]
        place = self._library().places.get(video.name)
        if not video.ranges:
            raise ItemMissing("the data set itself lacks it")
        if place is None:
            raise ItemMissing("it is not in the source")
        try:
            data = place.read()
            found = avi_frames(data)
            kept = {number: span for number, span in enumerate(video.ranges, 1) if span[1] <= found.sound}
            for number, frames in self._sequences(data if place.member else place.path, found, kept):
                yield Clip(f"{video.name}-{number}", frames, self._labels(video, number))
        except (NoAviError, UnreadableError) as error:
            raise ItemFailed(str(error)) from None
        if why := _wrong(found, video, len(kept)):
            raise ItemFailed(why)

    def _labels(self, video: Video, number: int) -> dict[str, Any]:
        first, last = video.ranges[number - 1]
        labels = {"person": video.person, "action": video.action, "scenario": video.scenario - 1, "video": video.number}
        return labels | {"first_frame": first, "last_frame": last, "name": video.name, "range": number}

    def _sequences(
        self, video: Path | bytes, found: AviFrames, spans: Mapping[int, Range]
    ) -> Iterator[tuple[int, Bytes]]:
        """Decode a video to its end, and then yield its ranges.

        Args:
            video: the file, or its bytes.
            found: what is known of its frames.
            spans: first and last frame, from 1, of the ranges with these numbers.

        Yields:
            The number, and the frames (T, H, W, C) uint8, resized.
        """
        if not spans:
            return
        wanted = np.zeros(found.sound, bool)
        for first, last in spans.values():
            wanted[first - 1 : last] = True
        channels, reader = GREEN if self.colour == "grey" else ALL, None if found.is_whole else FOR_DAMAGED
        frames = read_frames(video, wanted, channels, found.in_order, reader)
        places = np.cumsum(wanted) - 1
        for number, (first, last) in spans.items():
            yield number, scale(frames[places[first - 1] : places[last - 1] + 1], self.size, self.size)

    def _library(self) -> Library:
        self.fetch_missing()
        return open_library(self.folder)

    def _videos(self, split: Split) -> list[Video]:
        return _videos_of(self._library(), self._test, split)


@functools.lru_cache(maxsize=8)
def _videos_of(library: Library, test: frozenset[int], split: Split) -> list[Video]:
    return [video for video in library.videos if (video.person in test) == (split == "test")]


def _wrong(found: AviFrames, video: Video, kept: int) -> str:
    """Return what is wrong with a video whose frames were counted; empty where nothing is."""
    if found.is_whole and video.last <= found.sound:
        return ""
    damage = f" ({found.damage})" if found.damage else ""
    return (
        f"its header states {found.stated} frames and {found.whole} are whole{damage}; its ranges need {video.last}: "
        f"{kept} of {len(video.ranges)} are kept"
    )


def persons_of(text: str) -> frozenset[int]:
    """Return the persons that a text such as `17-25` or `21,22,25` names.

    Raises:
        DataError: where it is not understood, or names others than 1 to 25.
    """
    persons: set[int] = set()
    for part in text.split(","):
        first, dash, last = (piece.strip() for piece in part.partition("-"))
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal() and PERSONS[0] <= int(first) <= int(last) <= PERSONS[-1]):
            raise DataError(f"test-persons '{text}' is not allowed; it must be like 17-25 or 21,22,25, from 1 to 25")
        persons |= set(range(int(first), int(last) + 1))
    return frozenset(persons)


def text_of(persons: frozenset[int]) -> str:
    """Return persons as a text that `persons_of` reads, always the same for the same persons."""
    firsts = [person for person in sorted(persons) if person - 1 not in persons]
    lasts = [person for person in sorted(persons) if person + 1 not in persons]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(firsts, lasts, strict=True))
