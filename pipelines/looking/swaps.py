"""Swaps of held-out clips: the content of one in the pose of another, as grids, as animations, and as an error.

Axes: R rows (content), K columns (pose), T time, H height, W width, C channels.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from drnet.datasets.contract import DataError
from drnet.model import DrNet
from drnet.pipelines.loader import to_device
from drnet.pipelines.looking.pictures import Frames, enlarge, save_gif, swap_sheet, tile, unit_to_uint8, with_margins
from drnet.pipelines.looking.truth import Truth, truth_of
from drnet.pipelines.source import Collection, open_shards
from drnet.swap import swap

ROWS, COLUMNS = 6, 8


@dataclass(frozen=True)
class HeldOut:
    """Frames to swap, from clips that training does not see.

    Attributes:
        content: (R, H, W, C) uint8.
        pose: (K, H, W, C) uint8.
        truth: R rows of K frames, or None where it is not known.
    """

    content: NDArray[np.uint8]
    pose: NDArray[np.uint8]
    truth: list[list[Frames]] | None = None

    def grid(self, model: DrNet, device: torch.device) -> Frames:
        """Return the swap grid of a model as a picture; the model's mode is restored."""
        frames = swapped(model, self.content, self.pose, device)
        return swap_sheet(list(self.content), list(self.pose), frames, self.truth)


def swapped(
    model: DrNet, content: NDArray[np.uint8], pose: NDArray[np.uint8], device: torch.device
) -> NDArray[np.uint8]:
    """Return each content (R, H, W, C) in each pose (K, H, W, C): (R, K, H, W, C) uint8, in evaluation mode."""
    training = model.training
    model.eval()
    frames = swap(model, to_device(content, device), to_device(pose, device))
    model.train(training)
    return unit_to_uint8(frames.movedim(-3, -1).cpu().numpy())


def held_out_clips(shards: str | Path, training: Collection) -> Collection:
    """Return the test split of the data set that training clips belong to, or where it has none the training clips."""
    if training.manifest is None or not training.manifest.clips("test"):
        return training
    folder = shards if not str(shards).endswith(".tar") else str(shards).rpartition("/")[0] or "."
    return open_shards(folder, ["test"])


def held_out_frames(shards: str | Path, training: Collection) -> HeldOut:
    """Return frames to swap from the test split or, where its shards are not at hand, from the training clips."""
    try:
        return held_out(held_out_clips(shards, training))
    except DataError:
        return held_out(training)  # only the train shards were copied: pictures alone miss the others


def held_out(collection: Collection, rows: int = ROWS, columns: int = COLUMNS) -> HeldOut:
    """Choose contents from the first frames of the first clips, and poses from later frames of the clips after them."""
    count = len(collection)
    contents = [number % count for number in range(rows)]
    poses = [(rows + number) % count for number in range(columns)]
    content = np.stack([collection.frames(clip)[0] for clip in contents])
    lengths = [collection.sample(clip).length for clip in poses]
    times = [(5 * k + 2) % length for k, length in enumerate(lengths)]
    pose = np.stack([collection.frames(clip)[time] for clip, time in zip(poses, times, strict=True)])
    truth = truth_of(collection)
    drawn = truth and [[truth(c, p, t) for p, t in zip(poses, times, strict=True)] for c in contents]
    return HeldOut(content, pose, drawn)


@dataclass(frozen=True)
class SwapErrors:
    """Mean squared errors of held-out frames in [0, 1], over random pairs of clips.

    Attributes:
        own_pose: decoded from the content of one frame of the clip and the pose of the true drawing itself.
        other_pose: decoded with the pose of another clip, against the true drawing of that content in that pose.
        mean_frame: of the data set's mean frame, against the same drawings.
        pairs: how many.
    """

    own_pose: float
    other_pose: float
    mean_frame: float
    pairs: int


@torch.no_grad()
def swap_errors(
    model: DrNet, collection: Collection, truth: Truth, device: torch.device, pairs: int = 512, seed: int = 0
) -> SwapErrors:
    """Measure swaps against the truth on random pairs of a collection's clips; raises DataError for fewer than two."""
    draw = np.random.default_rng(seed)
    count = len(collection)
    if count < 2:
        raise DataError(f"{count} held-out clip is not enough to swap; build at least 2 with --test-clips")
    content = draw.integers(0, count, pairs)
    other = (content + draw.integers(1, count, pairs)) % count
    frames, poses, truths = [], [], []
    for a, b in zip(content.tolist(), other.tolist(), strict=True):
        clip, driver = collection.frames(a), collection.frames(b)
        time = int(draw.integers(len(driver)))
        frames.append(clip[draw.integers(len(clip))])
        poses.append(driver[time])
        truths.append(truth(a, b, time))
    content_vectors = model.content_encoder(to_device(np.stack(frames), device))
    target = to_device(np.stack(truths), device)

    def error(pose: list[Frames]) -> float:
        decoded = model.decode(content_vectors, model.pose_encoder(to_device(np.stack(pose), device)))
        return float((decoded - target).square().mean())

    mean = torch.from_numpy(mean_frame(collection)).movedim(-1, -3).to(device)
    return SwapErrors(error(truths), error(poses), float((target - mean).square().mean()), pairs)


def mean_frame(collection: Collection) -> NDArray[np.float32]:
    """Return the mean of all frames of a collection, (H, W, C) float32 in [0, 1]: the best constant prediction."""
    total = sum(collection.frames(number).mean(0, dtype=np.float64) for number in range(len(collection)))
    return np.asarray(total / len(collection) / 255, np.float32)


def save_driven(path: Path, model: DrNet, collection: Collection, device: torch.device, rows: int = 5) -> None:
    """Write an animation: the first clip drives, the clips after it move as it does, each beside its truth.

    Left, the driving clip; then one column for each driven clip: above, decoded from its first frame's content and the
    driver's pose at that time; below, the truth (where it is known).
    """
    truth = truth_of(collection)
    count = len(collection)
    driven = [number % count for number in range(1, rows + 1)]
    driver = np.array(collection.frames(0))  # decoded clips are read-only, PyTorch wants a copy
    content = np.stack([collection.frames(clip)[0] for clip in driven])
    moved = swapped(model, content, driver, device)  # (R, T, H, W, C)
    sheets = []
    for time in range(len(driver)):
        top: list[Frames | None] = [driver[time], *moved[:, time]]
        lines = [top] if truth is None else [top, [None, *(truth(clip, 0, time) for clip in driven)]]
        sheet = tile([[None if cell is None else enlarge(cell) for cell in line] for line in lines])
        title = "left: the held-out clip that drives; others: the content of other clips in its pose; below: the truth"
        sheets.append(with_margins(sheet, title))
    save_gif(path, sheets)
