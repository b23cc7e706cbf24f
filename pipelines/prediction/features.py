"""What a predictor is trained on: frozen features of windows of clips, computed once where they fit into memory.

Axes: B windows, W frames of a window, P pose_dim, C content_dim, H height, N frames.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from drnet.datasets.contract import DataError
from drnet.datasets.reading.source_files import sha256_file
from drnet.model import vector_of
from drnet.pipelines.fields import HASH, text
from drnet.pipelines.files import canonical_json, pretty_json, read_json, write_whole
from drnet.pipelines.loader import to_device
from drnet.pipelines.progress import Progress
from drnet.pipelines.run import RunError, load_tensors
from drnet.pipelines.source import Collection

MEMORY = 1 << 30  # bytes of features that are kept, in memory and beside the predictor
FRAMES_AT_ONCE = 512
CACHE, CACHE_STATE = "features.safetensors", "features.json"

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Windows:
    """The windows of a collection's clips: `observe` frames and the `predict` ones that follow.

    Attributes:
        collection: the clips.
        observe, predict: frames of a window.
        cyclic: whether clips are whole turns, so that a window may pass a clip's end.
        clips: (M,) numbers of the clips that are long enough.
        lengths: (M,) their frames.
        short: how many clips are shorter.
    """

    collection: Collection
    observe: int
    predict: int
    cyclic: bool
    clips: Ints
    lengths: Ints
    short: int

    @property
    def window(self) -> int:
        """Frames of a window."""
        return self.observe + self.predict

    @property
    def starts(self) -> Ints:
        """Windows of each clip, (M,)."""
        return self.lengths if self.cyclic else self.lengths - self.window + 1

    def counts(self) -> list[int]:
        """Return how many of the clips each shard holds."""
        shard = np.searchsorted(self.collection.starts, self.clips, side="right") - 1
        return np.bincount(shard, minlength=len(self.collection.places)).tolist()

    def times(self, rows: Ints, starts: Ints) -> Ints:
        """Return the frames of windows, (B, W); `rows` are numbers in `clips`."""
        times: Ints = starts[:, None] + np.arange(self.window)
        return times % self.lengths[rows][:, None] if self.cyclic else times

    def last_observed(self, row: int) -> Ints:
        """Return the last observed frame of each window of a clip, in the order of their starts."""
        return (np.arange(self.starts[row]) + self.observe - 1) % self.lengths[row]


def windows_of(collection: Collection, observe: int, predict: int, cyclic: bool = False) -> Windows:
    """Find the clips that hold a window.

    Raises:
        DataError: where none does.
    """
    lengths = np.array([collection.sample(clip).length for clip in range(len(collection))], np.int64)
    enough = lengths >= (1 if cyclic else observe + predict)
    if not enough.any():
        raise DataError(
            f"observe {observe} and predict {predict} take {observe + predict} frames, and the longest clip has "
            f"{lengths.max()}; give a lower --observe or --predict, or build longer clips"
        )
    return Windows(collection, observe, predict, cyclic, np.flatnonzero(enough), lengths[enough], int((~enough).sum()))


class Encoded(Protocol):
    """Features of windows."""

    def gather(self, rows: Ints, starts: Ints) -> tuple[Tensor, Tensor]:
        """Return poses (B, W, P) and content of the last observed frame (B, C); `rows` are numbers in `clips`."""

    def poses_of(self, row: int) -> Tensor:
        """Return the poses of all frames of a clip, (T, P)."""


@torch.no_grad()
def encoded(encoder: Any, frames: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Return the vectors (N, P or C), in float32, of frames (N, H, W, C) uint8."""
    found = []
    for first in range(0, len(frames), FRAMES_AT_ONCE):
        part = to_device(np.array(frames[first : first + FRAMES_AT_ONCE]), device)  # a copy: clips are read-only
        found.append(vector_of(encoder(part.contiguous(memory_format=torch.channels_last))).float())
    return torch.cat(found)


class EncodedLater:
    """Features that do not fit into memory: each batch is read and encoded when it is asked for."""

    def __init__(self, model: Any, windows: Windows, device: torch.device) -> None:
        self.model, self.windows, self.device = model, windows, device

    def gather(self, rows: Ints, starts: Ints) -> tuple[Tensor, Tensor]:
        """Read and encode windows."""
        windows = self.windows
        frames = np.empty((len(rows), windows.window, *windows.collection.frame_shape), np.uint8)
        for place, clip, times in zip(frames, windows.clips[rows].tolist(), windows.times(rows, starts), strict=True):
            shard, index = windows.collection.locate(clip)
            shard.read_frames(index, times.tolist(), place)
        poses = encoded(self.model.pose_encoder, frames.reshape(-1, *frames.shape[2:]), self.device)
        content = encoded(self.model.content_encoder, frames[:, windows.observe - 1], self.device)
        return poses.reshape(len(rows), windows.window, -1), content

    def poses_of(self, row: int) -> Tensor:
        """Encode a clip."""
        frames = self.windows.collection.frames(int(self.windows.clips[row]))
        return encoded(self.model.pose_encoder, frames, self.device)


class EncodedOnce:
    """Features in the device's memory.

    Args:
        windows: of which clips.
        pose: (sum of T, P), of all frames, clip after clip.
        content: (sum of starts, C), of the last observed frame of every window, clip after clip.
    """

    def __init__(self, windows: Windows, pose: Tensor, content: Tensor) -> None:
        self.windows, self.pose, self.content = windows, pose, content
        self._poses = np.cumsum(windows.lengths) - windows.lengths
        self._contents = np.cumsum(windows.starts) - windows.starts

    def gather(self, rows: Ints, starts: Ints) -> tuple[Tensor, Tensor]:
        """Pick windows."""
        device = self.pose.device
        frames = torch.from_numpy(self._poses[rows][:, None] + self.windows.times(rows, starts)).to(device)
        return self.pose[frames], self.content[torch.from_numpy(self._contents[rows] + starts).to(device)]

    def poses_of(self, row: int) -> Tensor:
        """Pick a clip."""
        return self.pose[self._poses[row] : self._poses[row] + self.windows.lengths[row]]


def encode_windows(
    model: Any, windows: Windows, sizes: tuple[int, int], device: torch.device, progress: Progress, stop: Event
) -> EncodedOnce | None:
    """Compute the features of all windows; None where it was stopped.

    Args:
        model: in evaluation mode.
        windows: of which clips.
        sizes: P and C.
        device: of the model, which keeps the features.
        progress: told of each clip.
        stop: ends it when set.
    """
    pose = torch.empty((int(windows.lengths.sum()), sizes[0]), device=device)
    content = torch.empty((int(windows.starts.sum()), sizes[1]), device=device)
    at = held = 0
    progress.start("features", len(windows.clips), "clips")
    try:
        for rows in _groups(windows.lengths):
            if stop.is_set():
                return None
            clips = [windows.collection.frames(int(windows.clips[row])) for row in rows]
            lasts = [clip[windows.last_observed(row)] for row, clip in zip(rows, clips, strict=True)]
            for encoder, found, into, first in (
                (model.pose_encoder, clips, pose, at),
                (model.content_encoder, lasts, content, held),
            ):
                vectors = encoded(encoder, np.concatenate(found), device)
                into[first : first + len(vectors)] = vectors
            at, held = at + sum(map(len, clips)), held + sum(map(len, lasts))
            progress.advance(len(rows))
    finally:
        progress.stop()
    return EncodedOnce(windows, pose, content)


def _groups(lengths: Ints) -> Iterator[Sequence[int]]:
    """Yield rows in a row that have about `FRAMES_AT_ONCE` frames together."""
    first = frames = 0
    for row, length in enumerate(lengths.tolist()):
        frames += length
        if frames >= FRAMES_AT_ONCE or row + 1 == len(lengths):
            yield range(first, row + 1)
            first, frames = row + 1, 0


def features_of(
    model: Any,
    windows: Windows,
    sizes: tuple[int, int],
    identity: dict[str, Any],
    folder: Path,
    device: torch.device,
    progress: Progress,
    stop: Event,
) -> Encoded | None:
    """Return the features of a collection's windows: of earlier training, computed now, or computed for each batch.

    Args:
        model, windows, sizes, device, progress, stop: as for `encode_windows`.
        identity: what the features depend on; kept ones of another are computed anew.
        folder: the predictor's, which keeps them.

    Returns:
        The features, or None where it was stopped while they were computed.
    """
    needed = 4 * (int(windows.lengths.sum()) * sizes[0] + int(windows.starts.sum()) * sizes[1])
    if needed > MEMORY:
        progress.note(
            f"{needed / 2**20:,.0f} MiB of features are too many to be kept: they are computed for each batch"
        )
        return EncodedLater(model, windows, device)
    return _kept(windows, sizes, identity, folder, device) or _keep(
        encode_windows(model, windows, sizes, device, progress, stop), identity, folder
    )


def _kept(
    windows: Windows, sizes: tuple[int, int], identity: dict[str, Any], folder: Path, device: torch.device
) -> EncodedOnce | None:
    """Return the features that an earlier training left, whole and of the same identity."""
    if not (folder / CACHE_STATE).exists():
        return None
    try:
        state = read_json(folder / CACHE_STATE, "what the features are of")
        if canonical_json(state["of"]) != canonical_json(identity):
            return None
        found = load_tensors(folder / CACHE, text(state, "sha256", HASH))
    except (RunError, KeyError, TypeError, ValueError, OSError):
        return None  # they are computed again
    shapes = {"pose": (int(windows.lengths.sum()), sizes[0]), "content": (int(windows.starts.sum()), sizes[1])}
    if {name: tuple(value.shape) for name, value in found.items()} != shapes:
        return None
    return EncodedOnce(windows, found["pose"].to(device), found["content"].to(device))


def _keep(features: EncodedOnce | None, identity: dict[str, Any], folder: Path) -> EncodedOnce | None:
    """Write features beside the predictor: the description last, so that it never describes other ones."""
    if features is None:
        return None
    (folder / CACHE_STATE).unlink(missing_ok=True)
    temporary = folder / f".{CACHE}.new.tmp"
    save_file({"pose": features.pose.cpu(), "content": features.content.cpu()}, temporary)
    digest = sha256_file(temporary)
    temporary.replace(folder / CACHE)
    write_whole(folder / CACHE_STATE, pretty_json({"of": identity, "sha256": digest}))
    return features
