"""Features with planted facts: made in memory, and written as a features file without the exporter."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from drnet.datasets.contract import Label
from drnet.pipelines.export import Features

CLASSES = ("walk", "jog", "box")
TYPES: dict[str, Label] = {
    "action": Label("category", names=CLASSES),
    "coin": Label("category", names=("heads", "tails")),
    "phase": Label("category", varying=True, names=("left", "right")),
    "person": Label("number", unit="id"),
    "height": Label("number", unit="pixel"),
}
FRAMES = 6


def planted(clips: int = 120, persons: int = 12, seed: int = 0, **attributes: Any) -> Features:
    """Return features of clips of 4 to 6 frames: content tells the action, pose the phase of each frame.

    Half of the persons are of the test split, and each shows every action. `coin` is noise. Beyond a clip's length
    vectors are 1e6, so that a reader who takes padding for frames is lost.
    """
    draw = np.random.default_rng(seed)
    number = np.arange(clips)
    person, action = number % persons, (number // persons) % len(CLASSES)
    length = draw.integers(4, FRAMES + 1, clips).astype(np.int32)
    phase = draw.integers(0, 2, (clips, FRAMES))
    content = 0.3 * draw.normal(size=(clips, FRAMES, 4)).astype(np.float32)
    content[..., :3] += np.eye(3, dtype=np.float32)[action][:, None]
    pose = 0.3 * draw.normal(size=(clips, FRAMES, 2)).astype(np.float32)
    pose[..., 0] += phase
    padding = np.arange(FRAMES) >= length[:, None]
    content[padding], pose[padding], phase[padding] = 1e6, 1e6, -1
    labels = {"action": action, "coin": draw.integers(0, 2, clips), "phase": phase}
    labels |= {"person": person.astype(float), "height": draw.uniform(0, 9, clips)}
    facts = {"format": 1, "checkpoint_sha256": "abc", "checkpoint_step": 7, "data_set": "toy", "manifest_build": "b1"}
    return Features(
        content=content,
        pose=pose,
        length=length,
        key=np.array([f"clip{n:04d}" for n in number]),
        split=np.where(person < persons // 2, "train", "test"),
        labels=labels,
        label_types=TYPES,
        attributes={**facts, "split_key": "person", "content_key": "person", **attributes},
    )


def write_features(path: Path, features: Features) -> Path:
    """Write features as the file's format says."""
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        file.attrs.update(features.attributes)
        for name in ("content", "pose", "length"):
            file.create_dataset(name, data=getattr(features, name))
        for name in ("key", "split"):
            file.create_dataset(name, data=getattr(features, name).tolist(), dtype=text)
        _write_labels(file.create_group("labels"), features.labels, features.label_types)
    return path


def _write_labels(group: h5py.Group, labels: Mapping[str, Any], types: Mapping[str, Label]) -> None:
    for name, label in types.items():
        data = group.create_dataset(name, data=labels[name])
        data.attrs["kind"], data.attrs["time"] = label.kind, "varying" if label.varying else "static"
        data.attrs.create("names", list(label.names), dtype=h5py.string_dtype())
        data.attrs["unit"], data.attrs["period"] = label.unit, label.period or 0.0
