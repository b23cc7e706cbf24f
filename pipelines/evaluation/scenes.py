"""Bouncing digits drawn again at any time, in any pose, from their clips alone.

The images of a clip's digits are recovered from its frames: where a digit is in each frame is known from the labels, and
what hides a part of it in one frame is elsewhere in another. No file of digits is needed.

Axes: T time, H height, W width, D side of a digit; colours are 0 red, 1 green.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drnet.datasets.mnist import COLOURS, draw, position
from drnet.pipelines.looking.pictures import Frames
from drnet.pipelines.source import Collection


@dataclass(frozen=True)
class Scene:
    """What a clip shows.

    Attributes:
        digits: (2, D, D) uint8, the images; 0 where a pixel was never seen.
        start: (2, 2) int64, x and y of each colour's upper left corner in the first frame.
        velocity: (2, 2) int64, pixels per frame.
        front: the colour that hides the other.
        whole: whether every pixel of both digits was seen, and the clip's own frames are drawn again without a difference.
    """

    digits: NDArray[np.uint8]
    start: NDArray[np.int64]
    velocity: NDArray[np.int64]
    front: int
    whole: bool


class DigitScenes:
    """The scenes of a collection's clips.

    Args:
        collection: of bouncing digits, with their manifest.
    """

    def __init__(self, collection: Collection) -> None:
        assert collection.manifest is not None, "digits come with a manifest"
        self.collection = collection
        self.size, self.overlap = (collection.manifest.parameters[name] for name in ("size", "overlap"))
        self.scene = functools.lru_cache(maxsize=1024)(self._scene)

    @property
    def period(self) -> int:
        """Frames after which every scene is the same again: each coordinate runs to and fro at whole pixels per frame."""
        return 2 * (self.size - self.size // 2)

    def positions(self, clip: int, time: int) -> NDArray[np.int64]:
        """Return x and y of each colour's digit at any time, (2, 2) pixels."""
        scene = self.scene(clip)
        return position(scene.start, scene.velocity, time, self.size - self.size // 2)

    def frame(self, clip: int, time: int) -> Frames:
        """Return what a clip shows at any time, (H, W, 3)."""
        return self.drawn(clip, self.positions(clip, time))

    def drawn(self, clip: int, positions: NDArray[np.int64]) -> Frames:
        """Return a clip's digits, the same one in front, at positions (2, 2) of the colours' x and y: (H, W, 3)."""
        scene = self.scene(clip)
        return self._draw(scene.digits, positions[..., None], scene.front)[0]

    def swapped(self, content: int, pose: int, time: int) -> Frames:
        """Return the digits of one clip at the positions of another at some time (see `truth.Truth`)."""
        return self.drawn(content, self.positions(pose, time))

    def _draw(self, digits: NDArray[np.uint8], paths: NDArray[np.int64], front: int) -> Frames:
        """Draw at paths (2, 2, T): (T, H, W, 3)."""
        (x_red, y_red), (x_green, y_green) = paths
        return draw(digits[0], digits[1], x_red, y_red, x_green, y_green, front, self.size, self.overlap)

    def _scene(self, clip: int) -> Scene:
        frames, labels = self.collection.frames(clip), self.collection.labels(clip)
        paths = paths_of(labels)
        digits = recovered(frames, paths, self.size // 2)
        seen = self.overlap == "add" or never_hidden(
            frames, paths[1 - labels["front"]], labels["front"], self.size // 2
        )
        velocity = np.array([[labels[f"v{axis}_{colour}"] for axis in "xy"] for colour in COLOURS])
        again = self._draw(digits, paths, labels["front"])
        return Scene(digits, paths[..., 0], velocity, labels["front"], seen and bool(np.array_equal(again, frames)))


def paths_of(labels: Mapping[str, Any]) -> NDArray[np.int64]:
    """Return where a clip's digits are by its labels: (2, 2, T), the colours' x and y."""
    return np.array([[labels[f"{axis}_{colour}"] for axis in "xy"] for colour in COLOURS])


def recovered(frames: Frames, paths: NDArray[np.int64], side: int) -> NDArray[np.uint8]:
    """Return the images of a clip's digits: for each pixel the brightest that was seen of it, and nothing can add to it.

    Args:
        frames: (T, H, W, 3) uint8.
        paths: (2, 2, T), the colours' x and y.
        side: D.

    Returns:
        (2, D, D) uint8.
    """
    digits = np.zeros((len(COLOURS), side, side), np.uint8)
    for colour, (xs, ys) in enumerate(paths):
        for frame, x, y in zip(frames, xs, ys, strict=True):
            np.maximum(digits[colour], frame[y : y + side, x : x + side, colour], out=digits[colour])
    return digits


def never_hidden(frames: Frames, path: NDArray[np.int64], front: int, side: int) -> bool:
    """Return whether each pixel of the digit behind, which moves along a path (2, T), is seen in one frame at least."""
    seen = np.zeros((side, side), bool)
    for frame, x, y in zip(frames, *path, strict=True):
        seen |= frame[y : y + side, x : x + side, front] == 0
    return bool(seen.all())


def digit_scenes(collection: Collection) -> DigitScenes | None:
    """Return the scenes of bouncing digits; None for anything else."""
    if collection.manifest is None or collection.manifest.about["data_set"] != "mnist":
        return None
    return DigitScenes(collection)
