"""How much content and pose vary over frames: the spread that distances are measured in, and whether content says anything.

Axes: D length of a feature vector, H height, W width, C channels.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drnet.pipelines.export import FRAMES_AT_ONCE, encode
from drnet.pipelines.figures.scene import Scene
from drnet.pipelines.source import Collection

STILL = 1e-6  # a spread that is none
MEASURED = 64  # clips whose frames are looked at, at most
ONE_WAY, LITTLE = 0.9, 0.1  # shares of content's variance from which on, and up to which, it hardly varies


@dataclass(frozen=True)
class Variation:
    """How much vectors vary over some clips' frames.

    Attributes:
        variance: mean squared distance from their mean.
        one_way: share of it that lies along a single direction.
    """

    variance: float
    one_way: float

    @property
    def spread(self) -> float:
        """The root mean square distance, which vectors are divided by; 1 where they do not vary at all."""
        return math.sqrt(self.variance) if self.variance > STILL**2 else 1.0


def some_of(clips: Sequence[int]) -> Sequence[int]:
    """Return at most `MEASURED` of some clips, evenly spaced."""
    return clips[:: -(-len(clips) // MEASURED)]


def variations(scene: Scene, collection: Collection, clips: Sequence[int]) -> tuple[Variation, Variation]:
    """Return how much content and pose vary over some clips' frames.

    Both are divided by their spread: a pose that varies a tenth as much as the content counts as much beside it.
    """
    count, sums, products = 0, list[Any]([0.0, 0.0]), list[Any]([0.0, 0.0])
    for _, block in blocks_of(collection, clips):
        found = encode(scene.model, block, scene.device)
        count += len(found[0])
        for number, vectors in enumerate(found):
            wide = vectors.astype(np.float64)
            sums[number] = sums[number] + wide.sum(0)
            products[number] = products[number] + wide.T @ wide
    content, pose = (_variation(total / count, square / count) for total, square in zip(sums, products, strict=True))
    return content, pose


def _variation(mean: NDArray[np.float64], square: NDArray[np.float64]) -> Variation:
    """Return the variation of vectors with a mean (D,) and a mean of products (D, D)."""
    covariance = square - np.outer(mean, mean)
    variance = max(0.0, float(np.trace(covariance)))
    if variance <= STILL**2:  # an autoencoder's content has no numbers
        return Variation(variance, 1.0)
    return Variation(variance, float(np.linalg.eigvalsh(covariance)[-1]) / variance)


def content_note(here: Variation, there: Variation, same: int, of: int, split: str) -> str:
    """Return how often both neighbours are one frame, and why that says little where content hardly varies.

    Args:
        here: of the content of the shown split's frames.
        there: of that of training frames.
        same: queries whose neighbours by pose and by content and pose are the same frame.
        of: queries.
        split: of the shown clips.
    """
    note = f"For {same} of {of} frames the neighbour by content and pose is the same frame as the one by pose."
    ratio = here.variance / there.variance if there.variance > STILL**2 else 0.0
    if here.one_way <= ONE_WAY and ratio >= LITTLE:
        return note
    frames = "held-out frames" if split == "test" else f"{split} frames"
    return (
        f"{note} Content hardly varies over {frames}, so that it can hardly change a neighbour: {here.one_way:.0%} of its "
        f"variance lies along a single direction (training frames: {there.one_way:.0%}), and it is {ratio:.2g} times that "
        "over training frames."
    )


def blocks_of(training: Collection, searched: Sequence[int]) -> Iterator[tuple[list[int], list[NDArray[np.uint8]]]]:
    """Yield clips, of about `FRAMES_AT_ONCE` frames together, with their numbers."""
    numbers, clips = list[int](), list[NDArray[np.uint8]]()
    for number in searched:
        numbers.append(number)
        clips.append(training.frames(number))
        if sum(map(len, clips)) >= FRAMES_AT_ONCE:
            yield numbers, clips
            numbers, clips = [], []
    if clips:
        yield numbers, clips
