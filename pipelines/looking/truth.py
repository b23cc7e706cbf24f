"""The truth for a swap: the content of one clip in the pose of another, drawn by the data set itself.

Only data sets whose scenes are known can do this: chairs (the same chair as the other one stands) and bouncing
digits (the same digits at the others' positions).
"""

from collections.abc import Callable

import numpy as np

from drnet.datasets.contract import DataError, Split
from drnet.datasets.mnist import COLOURS, draw
from drnet.datasets.reading import digits
from drnet.datasets.scale import scale
from drnet.pipelines.looking.pictures import Frames
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
    """The content's chair seen from the pose's azimuth and elevation, from its own clips."""

    def truth(content: int, pose: int, time: int) -> Frames:
        seen, own = collection.labels(pose), _at_elevation(collection, content, pose)
        azimuths = np.array(collection.labels(own)["azimuth"])
        return collection.frames(own)[int(np.argmin(np.abs(azimuths - seen["azimuth"][time])))]

    return truth


def _at_elevation(collection: Collection, content: int, pose: int) -> int:
    """Return the clip of the content's chair at the pose's elevation: a chair's clips lie beside each other."""
    chair, elevation = collection.labels(content)["chair"], collection.labels(pose)["elevation"]
    for step in range(len(collection)):
        for clip in {content - step, content + step} & set(range(len(collection))):
            labels = collection.labels(clip)
            if (labels["chair"], labels["elevation"]) == (chair, elevation):
                return clip
    raise DataError(f"chair {chair} has no clip at elevation {elevation}; open whole shards of one data set")


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
