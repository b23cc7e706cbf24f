"""Rows for a classifier from a features file: windows of consecutive frames' vectors, each with its class and its clip.

Axes: N clips, T frames of the longest, R rows, D numbers of a frame.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from drnet.datasets.contract import DataError, Label
from drnet.datasets.draws import key_of, permutation
from drnet.guess import guess
from drnet.pipelines.export import Features

Which = Literal["content", "pose", "both"]
CLIP = "clip"  # the group that every clip is of its own
SHORT, CHANGES, UNKNOWN = "clips shorter than the window", "windows in which the label changes", "windows without label"


@dataclass(frozen=True)
class Rows:
    """Windows of some clips.

    Attributes:
        vectors: (R, window * D) float32, frame after frame.
        classes: (R,) int64.
        clips: (R,) the clip of each, as its number in the features file.
        left_out: how many clips or windows gave no row, by reason.
    """

    vectors: NDArray[np.float32]
    classes: NDArray[np.int64]
    clips: NDArray[np.int64]
    left_out: Mapping[str, int]

    def part(self, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return vectors and classes of the rows chosen."""
        return self.vectors[chosen], self.classes[chosen]


def vectors_of(features: Features, which: Which) -> NDArray[np.float32]:
    """Return each frame's vector: (N, T, D).

    Raises:
        DataError: where it has no numbers, as an autoencoder's content.
    """
    found = {"content": (features.content,), "pose": (features.pose,), "both": (features.content, features.pose)}[which]
    vectors = found[0] if len(found) == 1 else np.concatenate(found, -1)
    if not vectors.shape[-1]:
        other = {"content": "pose", "pose": "content"}[which]
        raise DataError(f"features '{which}' have no numbers in this file; choose '{other}'")
    return vectors


def category(features: Features, name: str) -> Label:
    """Return the type of the label to tell.

    Raises:
        DataError: the features lack it, or it is a number.
    """
    categories = [known for known, label in features.label_types.items() if label.kind == "category"]
    allowed = f"categories are {', '.join(categories)}" if categories else "the features have no categories"
    label = features.label_types.get(name)
    if label is None:
        raise DataError(f"label '{name}' is not in the features{guess(name, categories)}; {allowed}")
    if label.kind != "category":
        raise DataError(f"label '{name}' is a number, and only categories can be told apart; {allowed}")
    return label


def groups_of(features: Features, name: str) -> NDArray[Any]:
    """Return every clip's group: (N,) values of a label, or the clips' keys for `clip`.

    Raises:
        DataError: the features lack the label, or it varies in time.
    """
    if name == CLIP:
        return features.key
    static = [known for known, label in features.label_types.items() if not label.varying]
    if name not in static:
        wrong = (
            "varies in time"
            if name in features.label_types
            else f"is not in the features{guess(name, [CLIP, *static])}"
        )
        raise DataError(f"group '{name}' {wrong}; choose {CLIP} or a label of whole clips: {', '.join(static)}")
    return features.labels[name]


def clips_of(features: Features, split: str, most: int | None) -> NDArray[np.int64]:
    """Return the numbers of a split's clips, or of `most` that are drawn among them, in order."""
    clips = np.flatnonzero(features.split == split)
    if most is None or len(clips) <= most:
        return clips
    return np.sort(clips[permutation(key_of("classify", split), len(clips))[:most]])


def window_rows(
    features: Features, which: Which, label: str, clips: NDArray[np.int64], window: int, stride: int
) -> Rows:
    """Return the windows of some clips: `window` frames from every `stride`-th on, none beyond a clip's length.

    Raises:
        DataError: every clip is shorter, or no window has a class.
    """
    lengths = features.length[clips].astype(np.int64)
    counts = np.maximum(0, (lengths - window) // stride + 1)
    if len(clips) and not counts.any():
        raise DataError(
            f"window {window} is longer than every clip; the longest has {lengths.max()} frames: give a lower --window"
        )
    clip = np.repeat(clips, counts)
    start = np.concatenate([np.arange(count) * stride for count in counts] or [np.empty(0, np.int64)]).astype(np.int64)
    frames = start[:, None] + np.arange(window)  # (R, window)
    values = features.labels[label]
    told = values[clip[:, None], frames] if features.label_types[label].varying else values[clip][:, None]
    steady, known = (told == told[:, :1]).all(1), (told >= 0).all(1)
    kept = steady & known
    if not kept.any():
        raise DataError(
            f"label '{label}' has no value that lasts for a window of {window} frames; give a lower --window"
        )
    left_out = {SHORT: int((counts == 0).sum()), UNKNOWN: int((~known).sum()), CHANGES: int((known & ~steady).sum())}
    vectors = vectors_of(features, which)[clip[kept][:, None], frames[kept]]  # (R, window, D)
    return Rows(
        vectors.reshape(len(vectors), -1).astype(np.float32, copy=False),
        told[kept, 0].astype(np.int64),
        clip[kept],
        {why: count for why, count in left_out.items() if count},
    )
