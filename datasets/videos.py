"""Any folder of videos, as clips of frames of one size."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from drnet.datasets.contract import (
    About,
    Clip,
    DataError,
    ItemFiltered,
    Label,
    LeftOut,
    Setting,
    SourceFile,
    Split,
)
from drnet.datasets.reading.source_files import printable, source_files
from drnet.datasets.reading.video_files import Listing, listing
from drnet.datasets.reading.video_frames import Decoded, Region, View, decoded, ffmpeg_version

SHORT = "shorter than a clip"

_REGION = re.compile(r"([1-9]\d{0,4})x([1-9]\d{0,4})\+(\d{1,5})\+(\d{1,5})")


class Videos:
    """Any folder of videos, as clips of frames of one size.

    Reads avi, m4v, mkv, mov, mp4, mpeg, mpg and webm files in the folder and its subfolders by ffmpeg; other files and
    hidden ones are no part of it, and linked folders are not entered. Each file's first video stream is used, upright
    and with 8 bits a channel. The content key is the file: a fixed camera shows the same content in all of it.

    Without --fps every picture is a frame, once, at its own time, also where the rate varies. With it a frame is taken
    every 1/F seconds: the last picture shown by then. Frames are scaled with ffmpeg's linear filter, widened for
    shrinking. Without --crop the whole picture is squeezed into the square.

    No file lies in two splits. A source with nothing but the folders train/ and test/ is split by them; else
    --test-files names the test files; else a seeded permutation of the sorted names picks a --test-share of them, at
    least one of two or more. A file with the bytes of another is left out.

    A damaged file gives no clip, and is counted with ffmpeg's reason; `ffmpeg -i IN -c copy OUT` makes a sound file of
    what is left of a recording that was cut off. Damage that leaves a readable stream is not noticed: a changed bit
    where the codec has no checks, blanks in a file's index, a live recording cut just between two of its parts. A
    file's frames lie in the temporary folder (TMPDIR) while it is read, where they are more than 64 MiB. Another ffmpeg
    may give other bytes, so its version is a parameter of the build.

    With --fps 2 --size 64 on videos of one street it is Whitney and Fergus's recipe for their 5th Avenue.

    Example: drnet data build videos --source my-videos --out data/videos --fps 2 --size 64

    Args:
        source: the folder.
        size: height and width of a frame in pixels, 8 to 1024.
        fps: frames per second, above 0 and at most 240.
        crop: `square`, the largest one at the centre of the picture as it is shown; or WIDTHxHEIGHT+LEFT+TOP in
            pixels of the upright picture.
        grey: one channel instead of three.
        clip_length: frames of a clip (T).
        stride: frames from the start of a clip to that of the next.
        skip_still: in grey levels, see `change`; where nothing moves before a fixed camera, noise alone makes about 0.5.
        skip_black: in grey levels, see `brightness`.
        test_share: from 0 to below 1.
        test_files: patterns of names relative to the folder; `*` also matches `/`.
        seed: of the permutation.

    Raises:
        DataError: a value is not allowed.
    """

    about = About(
        name="videos",
        version=1,
        title="any folder of videos",
        licence="that of the videos",
        citation="that of the videos",
        split_key="file",
        content_key="file",
        notes=(
            "`file` is the place of a clip's video among the sorted names, `name` its name",
            "frames depend on the version of ffmpeg, which is recorded among the parameters",
        ),
    )
    items_are = "files"
    labels: Mapping[str, Label] = {
        "file": Label("number", unit="id"),
        "time": Label("number", varying=True, unit="second"),
    }

    def __init__(
        self,
        source: Annotated[Path, Setting("Folder of videos, searched with its subfolders.", "DIR")],
        size: Annotated[int, Setting("Height and width of a frame in pixels.", "N")] = 64,
        fps: Annotated[float | None, Setting("Frames per second; every picture as it comes if left out.", "F")] = None,
        crop: Annotated[
            str | None, Setting("Cut out first: 'square' at the centre, or WIDTHxHEIGHT+LEFT+TOP.", "REGION")
        ] = None,
        grey: Annotated[bool, Setting("One grey channel instead of three colours.")] = False,
        clip_length: Annotated[int, Setting("Frames of a clip.", "T")] = 20,
        stride: Annotated[int | None, Setting("Frames between the starts of clips; T if left out.", "S")] = None,
        skip_still: Annotated[
            float | None, Setting("Leave out clips whose pixels change less per frame, in grey levels.", "LEVELS")
        ] = None,
        skip_black: Annotated[
            float | None, Setting("Leave out clips whose every frame is darker on average, in grey levels.", "LEVELS")
        ] = None,
        test_share: Annotated[float, Setting("Share of the files that make the test split.", "SHARE")] = 0.1,
        test_files: Annotated[
            tuple[str, ...], Setting("Files of the test split, in place of a share of them.", "GLOB")
        ] = (),
        seed: Annotated[int, Setting("Picks the test files.", "N")] = 0,
    ) -> None:
        stride = clip_length if stride is None else stride
        for name, value, low, high in (
            ("size", size, 8, 1024),
            ("clip-length", clip_length, 1, 100_000),
            ("stride", stride, 1, 1_000_000),
            ("seed", seed, 0, 2**63 - 1),
            ("skip-still", skip_still or 0, 0, 255),
            ("skip-black", skip_black or 0, 0, 255),
        ):
            if not low <= value <= high:
                raise DataError(f"{name} {value} is not allowed; choose a number from {low} to {high}")
        if fps is not None and not 0.001 <= fps <= 240:
            raise DataError(f"fps {fps} is not allowed; choose a number from 0.001 to 240, or none")
        if not 0 <= test_share < 1:
            raise DataError(f"test-share {test_share} is not allowed; choose a number from 0 to below 1")
        self.view = View(size, _region(crop), None if fps is None else float(fps), grey)
        self.source = str(Path(source).expanduser().absolute())  # a worker process may run elsewhere
        self.crop, self.clip_length, self.stride = crop, clip_length, stride
        self.skip_still, self.skip_black = skip_still, skip_black
        self.test_share, self.test_files, self.seed = float(test_share), tuple(test_files), seed
        listing.cache_clear()  # the folder may have changed since another one was made

    def _files(self) -> Listing:
        return listing(self.source, self.test_share, self.test_files, self.seed)

    def parameters(self) -> dict[str, Any]:
        """Return every setting that influences the bytes, with ffmpeg's version and a hash of the files' names."""
        view = {"size": self.view.size, "fps": self.view.fps, "crop": self.crop, "grey": self.view.grey}
        clips = {"clip_length": self.clip_length, "stride": self.stride}
        skipped = {"skip_still": self.skip_still, "skip_black": self.skip_black}
        split = {"test_share": self.test_share, "test_files": list(self.test_files), "seed": self.seed}
        return {**view, **clips, **skipped, **split, "files": self._files().digest(), "ffmpeg": ffmpeg_version()}

    def sources(self) -> list[SourceFile]:
        """Return the videos; raises DataError where there are none, or no ffmpeg."""
        ffmpeg_version()
        names = self._files().names
        return source_files(Path(self.source), [name for name in names if Path(self.source, name).is_file()])

    def frame_shape(self) -> tuple[int, int, int]:
        """Return (H, W, C)."""
        return self.view.shape

    def count(self, split: Split) -> int:
        """Return the number of files of a split: an item is a file."""
        return len(self._files().splits[split])

    def item(self, split: Split, index: int) -> str:
        """Return the file's name, relative to the source."""
        files = self._files()
        return printable(files.names[files.splits[split][index]])

    def clips(self, split: Split, index: int) -> Iterator[Clip | LeftOut]:
        """Yield a file's clips, once the whole file has proved sound."""
        files = self._files()
        number = files.splits[split][index]
        name = files.names[number]
        if number in files.copies:
            raise ItemFiltered(f"a copy of {printable(files.names[files.copies[number]])}")
        with decoded(Path(self.source, name), self.view) as video:
            starts, tail = windows(video.count, self.clip_length, self.stride)
            if not starts:
                raise ItemFiltered(f"{video.count} frames, {SHORT} of {self.clip_length}")
            for at, start in enumerate(starts):
                labels = {"file": number, "time": video.times(start, self.clip_length), "name": printable(name)}
                yield self._clip(f"{split}-{index:06d}-{at:08d}", video, start, labels)
            if tail:
                yield LeftOut(SHORT)

    def _clip(self, key: str, video: Decoded, start: int, labels: Mapping[str, Any]) -> Clip | LeftOut:
        frames = video.frames(start, self.clip_length)
        if self.skip_black is not None and brightness(frames) < self.skip_black:
            return LeftOut("black")
        if self.skip_still is not None and change(frames) < self.skip_still:
            return LeftOut("still")
        return Clip(key, frames, labels)


def windows(frames: int, length: int, stride: int) -> tuple[range, int]:
    """Return the first frames of a video's clips, and how many frames at its end are too few for one more.

    Clips start at 0, stride, 2 * stride and so on, and lie wholly inside. Frames that a stride above the length skips
    between two clips are not counted.
    """
    starts = range(0, max(0, frames - length + 1), stride)
    following = len(starts) * stride
    covered = starts[-1] + length if starts else 0
    return starts, max(0, frames - max(following, covered))


def brightness(frames: NDArray[np.uint8]) -> float:
    """Return the mean level of a clip's brightest frame, 0 to 255."""
    return float(frames.mean(axis=(1, 2, 3)).max())


def change(frames: NDArray[np.uint8]) -> float:
    """Return how much a pixel changes from one frame to the next, in levels, on average over a clip."""
    if len(frames) < 2:
        return 0.0
    return float(np.abs(np.diff(frames.astype(np.int16), axis=0)).mean())


def _region(crop: str | None) -> Region | str | None:
    if crop is None or crop == "square":
        return crop
    found = _REGION.fullmatch(crop)
    if not found:
        raise DataError(f"crop {crop!r} is not allowed; choose 'square' or WIDTHxHEIGHT+LEFT+TOP, as 480x480+80+0")
    width, height, left, top = map(int, found.groups())
    return width, height, left, top
