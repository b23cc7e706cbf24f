"""Export features: content and pose of every frame of every clip, with all labels, into one HDF5 file.

Axes: N clips, T frames (of the longest clip), C content_dim, P pose_dim. Shorter clips are padded; `length` says how far
they go. Frames stream through, so memory does not grow with N.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray

from drnet.datasets.contract import SPLITS, DataError, Label
from drnet.model import DrNet
from drnet.pipelines.files import regular_size, sync, sync_folder
from drnet.pipelines.loader import to_device
from drnet.pipelines.mistaken import FEATURES, mistaken
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.run import Checkpoint, data_error_if_size_differs, load_run
from drnet.pipelines.source import Collection, open_shards
from drnet.pipelines.train import choose_device

FEATURES_FORMAT = 1
FRAMES_AT_ONCE = 512
TEXTS_AT_ONCE, TEXT_LIMIT = 64, 80  # clips' keys and splits
ORIGIN = ("data_set", "split_key", "content_key")  # facts of the data set that a features file repeats


@dataclass(frozen=True)
class Features:
    """A features file as arrays.

    Attributes:
        content: (N, T, C) float32. pose: (N, T, P) float32. Both 0 beyond a clip's length.
        length: (N,) int32, frames of each clip.
        key, split: (N,) str.
        labels: (N,) or (N, T) by name; categories int64, numbers float64, -1 or NaN beyond a clip's length.
        label_types: the labels' types.
        attributes: format, hashes of checkpoint and manifest, and what the features come from.
    """

    content: NDArray[np.float32]
    pose: NDArray[np.float32]
    length: NDArray[np.int32]
    key: NDArray[np.str_]
    split: NDArray[np.str_]
    labels: Mapping[str, NDArray[Any]]
    label_types: Mapping[str, Label]
    attributes: Mapping[str, Any]


def load_features(path: Path) -> Features:
    """Load a features file.

    Raises:
        DataError: where it is not one, of another format version, or holds what no features file does.
    """
    if path.is_dir():
        raise DataError(
            mistaken(path, FEATURES)
            or f"{path}: a folder, not a features file; `drnet export-features RUN --shards S --out F.h5` writes one"
        )
    try:
        limit = regular_size(path)
        file = h5py.File(path, "r")
    except FileNotFoundError:
        raise DataError(f"{path}: missing; `drnet export-features RUN --shards S --out {path}` writes it") from None
    except OSError:
        if path.suffix != ".h5" and (found := mistaken(path, FEATURES)):
            raise DataError(found) from None
        raise DataError(f"{path}: not an HDF5 file, or damaged; export the features again") from None
    with file:
        try:
            found = _plain(file.attrs.get("format"))
            if found != FEATURES_FORMAT:
                known = f"this version reads {FEATURES_FORMAT}"
                raise DataError(f"{path}: features of format {found!r} are not known; {known}")
            return _read(file, limit)
        except (KeyError, TypeError, ValueError, OSError, RuntimeError, MemoryError) as error:
            if isinstance(error, DataError):
                raise
            reason = " ".join(str(error).split())[:200]
            raise DataError(f"{path}: damaged ({reason}); export the features again") from None


def _read(file: h5py.File, limit: int) -> Features:
    key, split = (_texts(_own(file, name, "O", limit)) for name in ("key", "split"))
    content, pose, length = (
        _own(file, name, kind, limit) for name, kind in (("content", "f"), ("pose", "f"), ("length", "i"))
    )
    group = file["labels"] if isinstance(file.get("labels", getlink=True), h5py.HardLink) else None
    if not isinstance(group, h5py.Group):
        raise ValueError("labels are no group of their own")
    labels = {name: _own(group, name, "fi", limit) for name in group}
    clips, frames = content.shape[:2]
    wrong = [data.name for data in (pose, *labels.values()) if data.shape[:2] not in ((clips,), (clips, frames))]
    if wrong or content.ndim != 3 or pose.ndim != 3 or {len(key), len(split), *length.shape} != {clips}:
        raise ValueError(f"{wrong[0] if wrong else 'content'} is of another number of clips or frames")
    return Features(
        content=content[:],
        pose=pose[:],
        length=length[:],
        key=key,
        split=split,
        labels={name: data[:] for name, data in labels.items()},
        label_types={name: _label_type(data.attrs) for name, data in labels.items()},
        attributes={name: _plain(value) for name, value in file.attrs.items()},
    )


def _own(group: h5py.Group, name: str, kinds: str, limit: int) -> h5py.Dataset:
    """Return a dataset that lies in this file as the exporter writes it: no other file is opened, nothing is unpacked.

    Raises ValueError for links, data kept elsewhere, other types, and sizes that a file of `limit` bytes cannot hold.
    """
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise ValueError(f"{name} is a link")
    data = group[name]
    if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external or data.dtype.kind not in kinds:
        raise ValueError(f"{name} is no dataset of its own, or of another type")
    if data.id.get_create_plist().get_nfilters() or data.nbytes > limit:
        raise ValueError(f"{name} is compressed, or larger than the file")
    return data


def _texts(data: h5py.Dataset) -> NDArray[np.str_]:
    """Return a list of short texts, read a few at a time: many long ones may share the file's bytes."""
    found: list[str] = []
    for first in range(0, len(data), TEXTS_AT_ONCE):
        found.extend(data.asstr()[first : first + TEXTS_AT_ONCE])
        if any(len(text) > TEXT_LIMIT for text in found[first:]):
            raise ValueError(f"{data.name} holds a text of more than {TEXT_LIMIT} letters")
    return np.array(found, np.str_)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _label_type(attributes: Mapping[str, Any]) -> Label:
    names = tuple(str(name) for name in attributes["names"])
    period = float(attributes["period"]) or None
    return Label(attributes["kind"], attributes["time"] == "varying", names, attributes["unit"], period)


def export_features(
    run: Path,
    shards: str | Path,
    out: Path,
    device: str = "auto",
    progress: Progress | None = None,
    checkpoint: str = "last",
) -> dict[str, int]:
    """Write the features of all clips, of every split of the shards, to an HDF5 file.

    Args:
        run: the run folder; its model is used in evaluation mode.
        shards: folder, brace pattern or URL.
        out: the file; it appears when it is whole.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        progress: told of each clip.
        checkpoint: `last`, `best` or a step.

    Returns:
        Clips written, by split.

    Raises:
        ValueError: where the run or the shards are not right, or do not fit each other.
    """
    progress = progress or Silent()
    chosen = choose_device(device)
    model, found, config = load_run(run, str(chosen), checkpoint)
    collection = open_shards(shards, SPLITS)
    data_error_if_size_differs(config, collection.frame_shape)
    trained, here = config["data"]["build"], collection.manifest.build if collection.manifest else None
    if trained != here:
        progress.note(f"the run was trained on data set {str(trained)[:12]}, these shards are of {str(here)[:12]}")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    progress.start("exporting features", len(collection), "clips")
    try:
        with h5py.File(temporary, "w") as file:
            writer = FeatureWriter(file, collection, model)
            file.attrs.update(describe_origin(collection, found, config))
            for first, clips in clip_groups(collection):
                writer.write(first, clips, encode(model, clips, chosen))
                progress.advance(len(clips))
        with temporary.open("rb+") as written:
            sync(written)
        temporary.replace(out)
        sync_folder(out.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        progress.stop()
    return {split: sum(p.clips for p in collection.places if p.split == split) for split in SPLITS}


def describe_origin(collection: Collection, checkpoint: Checkpoint, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a features file's attributes: its format, and what its content comes from (empty texts where unknown)."""
    manifest = collection.manifest
    return {
        "format": FEATURES_FORMAT,
        "checkpoint_sha256": checkpoint.sha256,
        "checkpoint_step": checkpoint.step,
        "trained_on_build": config["data"].get("build") or "",
        "manifest_build": manifest.build if manifest else "",
        "order_key": collection.order_key,
        **{name: str(manifest.about[name]) if manifest else "" for name in ORIGIN},
    }


def clip_groups(collection: Collection) -> Iterator[tuple[int, list[NDArray[np.uint8]]]]:
    """Yield consecutive clips, of about `FRAMES_AT_ONCE` frames together, with the number of the first."""
    group: list[NDArray[np.uint8]] = []
    frames = 0
    for number in range(len(collection)):
        group.append(collection.frames(number))
        frames += len(group[-1])
        if frames >= FRAMES_AT_ONCE or number + 1 == len(collection):
            yield number + 1 - len(group), group
            group, frames = [], 0


@torch.no_grad()
def encode(
    model: DrNet, clips: list[NDArray[np.uint8]], device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return content and pose of all frames of some clips, one after the other: (sum of T, C) and (sum of T, P)."""
    frames = np.concatenate(clips)
    contents, poses = [], []
    for first in range(0, len(frames), FRAMES_AT_ONCE):  # a single clip may be longer
        part = to_device(frames[first : first + FRAMES_AT_ONCE], device)
        content, pose = model.encode(part.contiguous(memory_format=torch.channels_last))
        contents.append(content.float().cpu().numpy())
        poses.append(pose.float().cpu().numpy())
    return np.concatenate(contents), np.concatenate(poses)


class FeatureWriter:
    """The datasets of a features file, filled clip by clip."""

    def __init__(self, file: h5py.File, collection: Collection, model: DrNet) -> None:
        self.collection = collection
        clips, frames = len(collection), longest(collection)
        config = model.config

        def feature(name: str, dim: int) -> h5py.Dataset:
            chunks = (1, frames, dim) if dim else None  # an autoencoder's content has no numbers
            return file.create_dataset(name, (clips, frames, dim), "f4", chunks=chunks)

        self.content, self.pose = feature("content", config.content_dim), feature("pose", config.pose_dim)
        text = h5py.string_dtype()
        self.key, self.split = (file.create_dataset(name, (clips,), text) for name in ("key", "split"))
        self.length = file.create_dataset("length", (clips,), "i4")
        self.labels = {}
        group = file.create_group("labels")
        for name, label in collection.label_types.items():
            shape = (clips, frames) if label.varying else (clips,)
            category = label.kind == "category"
            data = group.create_dataset(name, shape, "i8" if category else "f8", fillvalue=-1 if category else np.nan)
            data.attrs["kind"], data.attrs["time"] = label.kind, "varying" if label.varying else "static"
            data.attrs.create("names", list(label.names), dtype=text)
            data.attrs["unit"], data.attrs["period"] = label.unit, label.period or 0.0
            self.labels[name] = data

    def write(
        self,
        first: int,
        clips: list[NDArray[np.uint8]],
        features: tuple[NDArray[np.float32], NDArray[np.float32]],
    ) -> None:
        """Write consecutive clips from number `first` on."""
        at = 0
        for number, clip in enumerate(clips, first):
            length = len(clip)
            self.content[number, :length] = features[0][at : at + length]
            self.pose[number, :length] = features[1][at : at + length]
            self.key[number], self.split[number] = self.collection.sample(number).key, self.collection.split_of(number)
            self.length[number] = length
            labels = self.collection.labels(number)
            for name, data in self.labels.items():
                if self.collection.label_types[name].varying:
                    data[number, :length] = labels[name]
                else:
                    data[number] = labels[name]
            at += length


def longest(collection: Collection) -> int:
    """Return the number of frames of the longest clip."""
    return max(collection.sample(number).length for number in range(len(collection)))
