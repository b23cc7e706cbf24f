"""Bouncing digits: a red and a green handwritten digit that cross a black frame, one in front of the other.

The MNIST video of the paper (section 4.1): two digits on independent paths, each of its own colour, the one in front
drawn at random for each clip and hiding the other. Train clips show training digits only, test clips test digits only.

The label `file` (where the images come from) never lies in two splits; the label `content` names the pair of images and
which is in front: what stays the same in a clip, whatever moves.

Axes: T frames, H and W of the frame, D side of a digit (half the frame); colours are 0 red, 1 green.
"""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from drnet.datasets.contract import SPLITS, About, Clip, DataError, Label, Setting, SourceFile, Split, Tell
from drnet.datasets.draws import integers, key_of, words
from drnet.datasets.fetching.originals import ORIGINALS
from drnet.datasets.reading import digits
from drnet.datasets.scale import scale

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Overlap = Literal["hide", "add"]

COLOURS = ("red", "green")
SIZES = range(16, 513, 16)  # a digit is half a frame, and its greatest speed a sixteenth
_SCENES = 32  # clips drawn from the random stream together; influences speed only

_PAPER = "Denton and Birodkar, Unsupervised learning of disentangled representations from video, 2017"
_ABOUT = {
    "mnist": About(
        name="mnist",
        version=1,
        title="two bouncing handwritten digits, one red and one green (MNIST)",
        licence=ORIGINALS["mnist"].licence,
        citation=f"{ORIGINALS['mnist'].citation}; {_PAPER}",
        split_key="file",
        content_key="content",
    ),
    digits.OPTDIGITS: About(
        name="mnist",
        version=1,
        title="two bouncing handwritten digits, one red and one green (optdigits)",
        licence="CC BY 4.0 (Optical Recognition of Handwritten Digits, UCI)",
        citation=f"Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998; {_PAPER}",
        split_key="file",
        content_key="content",
        notes=("images are 8x8 and split by their order in the file: a writer may lie in both splits",),
    ),
}


def _labels() -> dict[str, Label]:
    names = tuple("0123456789")
    labels: dict[str, Label] = {}
    for colour in COLOURS:
        labels[f"digit_{colour}"] = Label("category", names=names)
        labels[f"x_{colour}"] = labels[f"y_{colour}"] = Label("number", varying=True, unit="pixel")
        labels[f"vx_{colour}"] = labels[f"vy_{colour}"] = Label("number", unit="pixel per frame")
        labels[f"index_{colour}"] = Label("number", unit="id")
    return labels | {"front": Label("category", names=COLOURS)}


class BouncingDigits:
    """Two handwritten digits, one red and one green, bouncing in a square.

    Without a source, MNIST is looked for in the cache, then downloaded.

    Example: drnet data build mnist --out data/mnist --source optdigits --clips 1000 --size 32

    Each clip is a pure function of (seed, split, its number, size, overlap), whatever the number of clips; its first
    frames are the same for any `frames`. Positions are those of a digit's top left corner.

    Args:
        source: a folder with MNIST's four files; `optdigits`; None: MNIST from the user's cache or a mirror.
        clips: number of train clips.
        test_clips: number of test clips; None: a tenth of `clips`, at least 1.
        frames: frames in a clip (T).
        size: height and width of a frame in pixels, a multiple of 16 from 16 to 512.
        seed: of everything random.
        overlap: `hide`: where both digits are lit, the front one wins; `add`: each keeps its own colour plane.

    Raises:
        DataError: a value is not allowed.
    """

    about: About = _ABOUT["mnist"]
    items_are = "clips"
    labels: Mapping[str, Label] = _labels()

    def __init__(
        self,
        source: Annotated[
            str | None, Setting("Folder with the four IDX files, or scikit-learn's own digits.", "DIR|optdigits")
        ] = None,
        clips: Annotated[int, Setting("Clips of the train split.", "N")] = 10_000,
        test_clips: Annotated[int | None, Setting("Clips of the test split.  [default: 10% of --clips]", "M")] = None,
        frames: Annotated[int, Setting("Frames of a clip.", "T")] = 20,
        size: Annotated[int, Setting("Height and width of the frames: a multiple of 16, 16 to 512.", "PIXELS")] = 64,
        seed: Annotated[int, Setting("Of everything that is drawn.", "N")] = 0,
        overlap: Annotated[Overlap, Setting("The front digit hides the other, or both show.")] = "hide",
    ) -> None:
        test = max(1, clips // 10) if test_clips is None else test_clips
        for name, value, least in (
            ("clips", clips, 1),
            ("test-clips", test, 0),
            ("frames", frames, 1),
            ("seed", seed, 0),
        ):
            if value < least:
                raise DataError(f"{name} {value} is not allowed; it must be at least {least}")
        if size not in SIZES:
            raise DataError(f"size {size} is not allowed; it must be a multiple of 16 from 16 to 512, for example 64")
        if overlap not in ("hide", "add"):
            raise DataError(f"overlap '{overlap}' is not allowed; it must be 'hide' or 'add'")
        if source is not None and source != digits.OPTDIGITS:
            source = str(Path(source).expanduser().absolute())  # a worker process may run elsewhere
        self.source = source
        self.frames, self.size, self.seed, self.overlap = frames, size, seed, overlap
        self._counts: dict[Split, int] = {"train": clips, "test": test}
        self.about = _ABOUT[self._kind]

    @property
    def _kind(self) -> str:
        return digits.OPTDIGITS if self.source == digits.OPTDIGITS else "mnist"

    def parameters(self) -> dict[str, Any]:
        """Return every setting that influences the bytes; the source by its kind, never by its path."""
        counts = {"clips": self._counts["train"], "test_clips": self._counts["test"]}
        rest = {"frames": self.frames, "size": self.size, "seed": self.seed, "overlap": self.overlap}
        return {"source": self._kind, **counts, **rest}

    def sources(self) -> list[SourceFile]:
        """Return the digit files in use; raises DataError where one is missing or wrong."""
        return digits.sources(self.source)

    def fetch_missing(self, tell: Tell | None = None) -> None:
        """Download what the cache lacks of MNIST, where no source was given."""
        digits.fetch_missing(self.source, tell)

    def frame_shape(self) -> tuple[int, int, int]:
        """Return (H, W, 3)."""
        return self.size, self.size, 3

    def count(self, split: Split) -> int:
        """Return the number of clips of a split: an item is a clip."""
        return self._counts[split]

    def item(self, split: Split, index: int) -> str:
        """Return the name of a clip, which is its key."""
        return f"{split}-{index:08d}"

    def clips(self, split: Split, index: int) -> Iterator[Clip]:
        """Yield clip number `index` of a split."""
        if not 0 <= index < self._counts[split]:
            raise IndexError(f"clip {index} is not in the {split} split of {self._counts[split]} clips")
        scenes = _scenes(self.source, self.seed, split, self.frames, self.size, self.overlap, index // _SCENES)
        at = index % _SCENES
        painted = _paint(scenes.ink[at], scenes.seen[at], scenes.positions[at], scenes.front[at], self.size)
        yield Clip(self.item(split, index), painted, scenes.labels(at, digits.file_of(self.source, split)))

    def redraw(self, labels: Mapping[str, Any], steps: ArrayLike) -> Bytes:
        """Draw a clip of this data set again from its labels, at any steps: the truth for a prediction of any length.

        Args:
            labels: of the clip; `file`, the images' indices, first positions, velocities and `front` are read.
            steps: (T,) numbers of frames since the clip's first one, for example range(500).

        Returns:
            (T, H, W, 3) uint8.

        Raises:
            DataError: the clip shows digits from another source.
        """
        split = next((name for name in SPLITS if digits.file_of(self.source, name) == labels["file"]), None)
        if split is None:
            known = " and ".join(digits.file_of(self.source, name) for name in SPLITS)
            raise DataError(f"the clip's digits are from '{labels['file']}'; this data set has {known}; set its source")
        images = digits.load(self.source, split)[0]
        pair = scale(images[[labels[f"index_{colour}"] for colour in COLOURS]], self.size // 2, self.size // 2)
        paths = {
            f"{axis}_{colour}": position(
                labels[f"{axis}_{colour}"][0], labels[f"v{axis}_{colour}"], steps, self.size // 2
            )
            for axis in "xy"
            for colour in COLOURS
        }
        return draw(pair[0], pair[1], **paths, front=labels["front"], size=self.size, overlap=self.overlap)


class _Scenes(NamedTuple):
    """What happens in some consecutive clips. Axes: clip, colour, (x, y), frame."""

    ink: Bytes  # (N, 2, D, D * 3), see `_colour`
    seen: Bytes  # (N, D, D * 3)
    positions: Ints  # (N, 2, 2, T)
    front: list[int]
    facts: list[list[list[int]]]  # N of the colours' [index, digit, vx, vy]
    paths: list[list[list[list[int]]]]  # positions as plain integers

    def labels(self, at: int, file: str) -> dict[str, Any]:
        """Return the labels of a clip as JSON values, in the order in which they are written."""
        labels: dict[str, Any] = {}
        for colour, fact, path in zip(COLOURS, self.facts[at], self.paths[at], strict=True):
            labels[f"digit_{colour}"] = fact[1]
            labels[f"x_{colour}"], labels[f"y_{colour}"] = path
            labels[f"vx_{colour}"], labels[f"vy_{colour}"] = fact[2:]
            labels[f"index_{colour}"] = fact[0]
        front = self.front[at]
        labels["front"], labels["file"] = front, file
        labels["content"] = f"{file}-{self.facts[at][0][0]}-{self.facts[at][1][0]}-{COLOURS[front]}"
        return labels


@functools.lru_cache(maxsize=2)
def _scenes(
    source: str | None, seed: int, split: Split, frames: int, size: int, overlap: Overlap, block: int
) -> _Scenes:
    """Draw a block of clips: 12 words for each clip, used as the names below say (the last three are spare)."""
    images, names = digits.load(source, split)
    fastest, span = size // 16, size // 2
    speeds = (2 * fastest + 1) ** 2 - 1  # all pairs but (0, 0)
    raw = words(key_of("bouncing digits", seed, split), block * _SCENES, _SCENES, 12)
    index = integers(raw[:, 0:2], len(images))
    start = integers(raw[:, 2:6], span + 1).reshape(-1, 2, 2)
    pick = integers(raw[:, 6:8], speeds)
    pick += pick >= speeds // 2  # the middle one is (0, 0)
    velocity = np.stack([pick // (2 * fastest + 1), pick % (2 * fastest + 1)], axis=-1) - fastest  # (N, 2, 2)
    front = integers(raw[:, 8], 2)
    positions = position(start[..., None], velocity[..., None], np.arange(frames), span)
    facts = np.concatenate([index[..., None], names[index][..., None], velocity], axis=-1)
    pairs = scale(images[index.reshape(-1)], size // 2, size // 2).reshape(_SCENES, 2, size // 2, size // 2)
    return _Scenes(*_colour(pairs, front, overlap), positions, front.tolist(), facts.tolist(), positions.tolist())


def position(start: ArrayLike, velocity: ArrayLike, steps: ArrayLike, span: int) -> Ints:
    """Return where a bouncing coordinate is after some steps: the triangle wave of start + steps * velocity.

    Args:
        start: first position in pixels, in [0, span].
        velocity: pixels per step at the start.
        steps: numbers of steps, any integers (thousands, negative ones: the past); broadcasts with the others.
        span: greatest position in pixels; the coordinate is reflected at 0 and there.

    Returns:
        Positions in [0, span], int64.
    """
    if span < 1:
        raise ValueError(f"span {span} is not allowed; it must be at least 1")
    free = np.asarray(start, np.int64) + np.asarray(steps, np.int64) * np.asarray(velocity, np.int64)
    there: Ints = span - np.abs(free % (2 * span) - span)
    return there


def draw(
    digit_red: Bytes,
    digit_green: Bytes,
    x_red: ArrayLike,
    y_red: ArrayLike,
    x_green: ArrayLike,
    y_green: ArrayLike,
    front: int,
    size: int,
    overlap: Overlap = "hide",
) -> Bytes:
    """Draw two digits at given positions.

    Args:
        digit_red: (D, D) uint8.
        digit_green: (D, D) uint8.
        x_red: (T,) left edge in pixels, in [0, size - D]; y_red, x_green and y_green likewise (y: upper edge).
        front: the colour in front: 0 red, 1 green.
        size: height and width of a frame in pixels.
        overlap: as in `BouncingDigits`.

    Returns:
        (T, size, size, 3) uint8, the blue plane 0.

    Raises:
        ValueError: a digit would leave the frame, or digits or positions do not match in shape.
    """
    ink = np.stack([digit_red, digit_green])
    paths = np.stack([np.atleast_1d(np.asarray(path, np.int64)) for path in (x_red, y_red, x_green, y_green)])
    span = size - ink.shape[1]
    if paths.size and not 0 <= paths.min() <= paths.max() <= span:
        raise ValueError(f"positions {paths.min()} to {paths.max()} are not allowed; they must lie in [0, {span}]")
    coloured, seen = _colour(ink[None], np.array([front]), overlap)
    return _paint(coloured[0], seen[0], paths.reshape(2, 2, -1), front, size)


def _colour(ink: Bytes, front: Ints, overlap: Overlap) -> tuple[Bytes, Bytes]:
    """Return (N, 2, D, D) digits in their colours, and the bits that (N,) front ones let through of what lies behind.

    Both have their columns and colours in one axis: (N, 2, D, D * 3) and (N, D, D * 3).
    """
    clips, _, side, _ = ink.shape
    coloured = np.zeros((clips, 2, side, side, 3), np.uint8)
    coloured[:, 0, ..., 0], coloured[:, 1, ..., 1] = ink[:, 0], ink[:, 1]
    seen = np.full((clips, side, side, 3), 255, np.uint8)
    if overlap == "hide":
        each = np.arange(clips)
        seen[each, :, :, 1 - front] = np.where(ink[each, front] > 0, 0, 255)
    return coloured.reshape(clips, 2, side, side * 3), seen.reshape(clips, side, side * 3)


def _paint(ink: Bytes, seen: Bytes, positions: Ints, front: int, size: int) -> Bytes:
    """Draw two coloured digits at (2, 2, T) positions known to be inside the frame.

    Every place a digit can be at is one window of a strided view, whose last axis is columns and colours together:
    three indexed copies draw a whole clip.
    """
    side, length = len(seen), positions.shape[-1]
    frames = np.zeros((length, size, size, 3), np.uint8)
    row, places = size * 3, size - side + 1
    shape, strides = (length, places, places, side, side * 3), (size * row, row, 3, row, 1)
    windows: Bytes = np.ndarray(shape, np.uint8, frames.data, 0, strides)
    times, (x, y) = np.arange(length), positions[1 - front]
    windows[times, y, x] = ink[1 - front]
    x, y = positions[front]
    under = windows[times, y, x]
    under &= seen
    under |= ink[front]
    windows[times, y, x] = under
    return frames
