"""Swap errors against the truth: the content of one held-out clip in the pose of another, as PSNR and SSIM.

Axes: B pairs, H height, W width, C channels; frames are uint8 (B, H, W, C).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from drnet.datasets.contract import DataError
from drnet.pipelines.evaluation.frames import as_tensor, psnr, ssim
from drnet.pipelines.evaluation.intervals import Bootstrap
from drnet.pipelines.loader import to_device
from drnet.pipelines.looking.pictures import Frames, unit_to_uint8
from drnet.pipelines.looking.truth import Truth
from drnet.pipelines.progress import Progress
from drnet.pipelines.source import Collection

PAIRS, OF_A_CLIP, AT_ONCE = 512, 16, 64  # pairs of all clips at most, of each clip on average at most, in a batch
ROWS = {
    "own_pose": "content of one frame of the clip, pose of the true drawing itself: what is best for this decoder",
    "other_pose": "content of one frame of the clip, pose of the other clip's frame: the swap",
    "pose_frame": "the other clip's frame as it is: right pose, wrong content",
    "content_frame": "the frame that the content is from: right content, wrong pose",
    "mean_frame": "the mean of the clips' frames",
}


@torch.no_grad()
def swap_scores(
    model: Any,
    collection: Collection,
    truth: Truth,
    clips: Sequence[int],
    device: torch.device,
    progress: Progress,
    pairs: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Score swaps of random pairs of different clips, a random frame of each.

    Args:
        model: in evaluation mode.
        collection: the clips.
        truth: draws what the swap should show.
        clips: numbers in the collection, two or more.
        device: of the model.
        progress: told of each pair.
        pairs: how many; None: 512, or 16 times the number of clips where that is less.
        seed: of the pairs.

    Raises:
        DataError: for fewer than two clips.
    """
    if pairs is None:
        pairs = min(PAIRS, OF_A_CLIP * len(clips))
    if len(clips) < 2:
        raise DataError(f"{len(clips)} held-out clip is not enough to swap; build at least 2 with --test-clips")
    mean = sum(collection.frames(clip).mean(0, dtype=np.float64) for clip in clips) / len(clips)
    mean_frame = np.rint(mean).astype(np.uint8)
    values: dict[str, list[np.ndarray]] = {row: [] for row in ROWS}
    chosen = []
    progress.start("swapping", pairs, "pairs")
    for contents, frames, poses, truths in _batches(collection, truth, clips, pairs, seed):
        chosen += contents
        vectors = model.content_encoder(to_device(frames, device))
        shown = {
            "own_pose": _decoded(model, vectors, truths, device),
            "other_pose": _decoded(model, vectors, poses, device),
            "pose_frame": poses,
            "content_frame": frames,
            "mean_frame": np.broadcast_to(mean_frame, truths.shape),
        }
        target = as_tensor(truths)
        for row, found in shown.items():
            values[row].append(np.stack([metric(as_tensor(found), target) for metric in (psnr, ssim)], 1))
        progress.advance(len(truths))
    progress.stop()
    bootstrap = Bootstrap(chosen, seed)
    scores: dict[str, Any] = {"psnr": {}, "ssim": {}}
    for row, parts in values.items():
        interval = bootstrap.interval(np.concatenate(parts)).to_json()
        for column, metric in enumerate(scores):
            scores[metric][row] = {name: found[column] for name, found in interval.items()}
    return {"rows": ROWS, "pairs": pairs, "clips": len(set(chosen)), "seed": seed} | scores


def _batches(
    collection: Collection, truth: Truth, clips: Sequence[int], pairs: int, seed: int
) -> Iterator[tuple[list[int], Frames, Frames, Frames]]:
    """Yield, for batches of pairs, the content's clips, a frame of each, a frame of each other clip, and the truth."""
    draw = np.random.default_rng(seed)
    first = draw.integers(0, len(clips), pairs)
    second = (first + draw.integers(1, len(clips), pairs)) % len(clips)
    for start in range(0, pairs, AT_ONCE):
        rows = []
        for a, b in zip(first[start : start + AT_ONCE], second[start : start + AT_ONCE], strict=True):
            content, pose = collection.frames(clips[a]), collection.frames(clips[b])
            time = int(draw.integers(len(pose)))
            frame = content[draw.integers(len(content))]
            rows.append((frame, pose[time], truth(clips[a], clips[b], time)))
        frames, poses, truths = (np.stack(part) for part in zip(*rows, strict=True))
        yield [clips[a] for a in first[start : start + AT_ONCE]], frames, poses, truths


def _decoded(model: Any, content: Any, pose: Frames, device: torch.device) -> Frames:
    decoded = model.decode(content, model.pose_encoder(to_device(pose, device)))
    return unit_to_uint8(decoded.float().movedim(-3, -1).cpu().numpy())
