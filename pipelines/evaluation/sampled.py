"""Content and pose of some clips of both splits in memory, as `export-features` writes those of all of them.

Axes: N clips, T frames of the longest, C content_dim, P pose_dim.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drnet.datasets.contract import SPLITS, Label
from drnet.pipelines.export import Features, describe_origin, encode
from drnet.pipelines.progress import Progress
from drnet.pipelines.run import Checkpoint
from drnet.pipelines.source import Collection

MOST = {"train": 2000, "test": 500}


def spread(count: int, most: int | None) -> list[int]:
    """Return numbers below `count`, all of them or `most` at even distances."""
    if most is None or count <= most:
        return list(range(count))
    return [number * count // most for number in range(most)]


def sampled_features(
    model: Any,
    collection: Collection,
    checkpoint: Checkpoint,
    config: dict[str, Any],
    device: torch.device,
    progress: Progress,
) -> Features:
    """Encode up to `MOST` clips of each split.

    Args:
        model: in evaluation mode.
        collection: of both splits.
        checkpoint, config: of the model.
        device: of the model.
        progress: told of each clip.
    """
    of = {split: [n for n in range(len(collection)) if collection.split_of(n) == split] for split in SPLITS}
    clips = [numbers[n] for split, numbers in of.items() for n in spread(len(numbers), MOST[split])]
    lengths = np.array([collection.sample(clip).length for clip in clips], np.int32)
    contents, poses = list[NDArray[np.float32]](), list[NDArray[np.float32]]()
    progress.start("encoding", len(clips), "clips")
    for clip in clips:
        content, pose = encode(model, [collection.frames(clip)], device)
        contents.append(content)
        poses.append(pose)
        progress.advance(1)
    progress.stop()
    labels = [collection.labels(clip) for clip in clips]
    return Features(
        content=_padded(contents, lengths),
        pose=_padded(poses, lengths),
        length=lengths,
        key=np.array([collection.sample(clip).key for clip in clips]),
        split=np.array([collection.split_of(clip) for clip in clips]),
        labels={
            name: _values([one[name] for one in labels], label, lengths)
            for name, label in collection.label_types.items()
        },
        label_types=collection.label_types,
        attributes=describe_origin(collection, checkpoint, config),
    )


def _padded(parts: Sequence[NDArray[np.float32]], lengths: NDArray[np.int32]) -> NDArray[np.float32]:
    whole = np.zeros((len(parts), int(lengths.max()), parts[0].shape[1]), np.float32)
    for row, part in zip(whole, parts, strict=True):
        row[: len(part)] = part
    return whole


def _values(values: Sequence[Any], label: Label, lengths: NDArray[np.int32]) -> NDArray[Any]:
    """Return a label of all clips: (N,), or (N, T) padded with -1 or NaN where it varies."""
    kind, padding = (np.int64, -1) if label.kind == "category" else (np.float64, np.nan)
    if not label.varying:
        return np.array(values, kind)
    found = np.full((len(values), int(lengths.max())), padding, kind)
    for row, value in zip(found, values, strict=True):
        row[: len(value)] = value
    return found
