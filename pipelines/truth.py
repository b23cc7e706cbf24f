"""The truth for a swap: the content of one clip in the pose of another, drawn by the data set itself.

Only data sets whose scenes are known can do this: generated chairs (the same chair at the other's azimuth) and bouncing
digits (the same digits at the others' positions).
"""

from collections.abc import Callable

import numpy as np

from drnet.datasets import digits
from drnet.datasets.contract import Split
from drnet.datasets.mnist import COLOURS, draw
from drnet.datasets.scale import scale
from drnet.pipelines.pictures import Frames
from drnet.pipelines.source import Collection

Truth = Callable[[int, int, int], Frames]
"""(clip of the content, clip of the pose, time in the pose's clip) -> frame (H, W, C) uint8"""


def truth_of(collection: Collection) -> Truth | None:
    """Return the function that draws the truth for swaps between a collection's clips; None where it is not known."""
    if collection.manifest is None:
        return None
    if collection.manifest.about["data_set"] == "chairs":
        return chairs_truth(collection)
    if (
        collection.manifest.about["data_set"] == "mnist"
        and collection.manifest.parameters["source"] == digits.OPTDIGITS
    ):
        return digits_truth(collection, digits.OPTDIGITS)
    return None


def chairs_truth(collection: Collection) -> Truth:
    """The content's chair seen from the pose's azimuth, from its own clip."""

    def truth(content: int, pose: int, time: int) -> Frames:
        azimuth = collection.labels(pose)["azimuth"][time]
        return collection.frames(content)[
            int(np.argmin(np.abs(np.subtract(collection.labels(content)["azimuth"], azimuth))))
        ]

    return truth


def digits_truth(collection: Collection, source: str | None) -> Truth:
    """The content's digits, the same one in front, at the pose's positions; `source` is where the digit images are."""
    assert collection.manifest is not None, "digits come with a manifest"
    parameters = collection.manifest.parameters
    side = parameters["size"] // 2

    def truth(content: int, pose: int, time: int) -> Frames:
        what, where = collection.labels(content), collection.labels(pose)
        split: Split = "train" if what["file"] == digits.file_of(source, "train") else "test"
        images = digits.load(source, split)[0]
        pair = scale(images[[what[f"index_{colour}"] for colour in COLOURS]], side, side)
        at = {f"{axis}_{colour}": where[f"{axis}_{colour}"][time] for axis in "xy" for colour in COLOURS}
        return draw(
            pair[0], pair[1], **at, front=what["front"], size=parameters["size"], overlap=parameters["overlap"]
        )[0]

    return truth
