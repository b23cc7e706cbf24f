"""An independent judge of identity: does a generated frame still show the digits (or the chair) that it should?

The judge is a small network trained on true frames of the training split; see `drnet.pipelines.evaluation.classifier`. It
looks at a digit where it finds it, not where it ought to be: whether a digit has kept its place is another question, which
the position error answers.

Axes: N frames, L labels, B clips, H height, W width, C channels, D side of a digit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from drnet.datasets.contract import DataError
from drnet.datasets.draws import integers, key_of, permutation, words
from drnet.model import DrNet
from drnet.pipelines.evaluation.classifier import Classifier, ClassifierConfig, Task, train_classifier
from drnet.pipelines.loader import to_device
from drnet.pipelines.looking.pictures import unit_to_uint8
from drnet.pipelines.prediction.rollout import predicted_frames
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.source import Collection
from drnet.predictor import PosePredictor
from drnet.scores import share_interval

STEPS = (10, 95, 500)  # of a rollout at which its frames are judged
CLIPS = 200
AT_ONCE = 100  # clips swapped or rolled out together

Bytes = NDArray[np.uint8]
Classes = NDArray[np.int64]


def digit_crops(frames: Bytes) -> Bytes:
    """Cut the red and the green digit out of frames, each from its own colour plane, where it is found.

    A digit is looked for in the window of its size that holds most ink; the crop is centred on the ink in there.

    Args:
        frames: (N, 1, H, W, 3), W being H.

    Returns:
        (N, 2, D, D, 1), D being half of H; 0 beyond the frame's border.
    """
    planes = frames[:, 0, ..., :2].transpose(0, 3, 1, 2).reshape(-1, *frames.shape[2:4])  # (2N, H, W)
    side = planes.shape[1] // 2
    sums = np.zeros((len(planes), planes.shape[1] + 1, planes.shape[2] + 1), np.int64)
    sums[:, 1:, 1:] = planes.cumsum(1, dtype=np.int64).cumsum(2)
    ink = sums[:, side:, side:] - sums[:, :-side, side:] - sums[:, side:, :-side] + sums[:, :-side, :-side]
    top, left = np.unravel_index(ink.reshape(len(ink), -1).argmax(1), ink.shape[1:])
    within = _windows(planes, top, left, side)
    total = np.maximum(within.sum((1, 2), dtype=np.int64), 1)
    at = np.arange(side) - (side - 1) / 2
    down = np.rint((within.sum(2, dtype=np.int64) * at).sum(1) / total).astype(int)
    right = np.rint((within.sum(1, dtype=np.int64) * at).sum(1) / total).astype(int)
    padded = np.pad(planes, ((0, 0), (side, side), (side, side)))
    crops = _windows(padded, top + down + side, left + right + side, side)
    return crops.reshape(len(frames), 2, side, side, 1)


def _windows(planes: Bytes, top: NDArray[Any], left: NDArray[Any], side: int) -> Bytes:
    """Cut a square out of each plane: (M, H, W) -> (M, side, side)."""
    along = np.arange(side)
    each = np.arange(len(planes))[:, None, None]
    cut: Bytes = planes[each, top[:, None, None] + along[:, None], left[:, None, None] + along]
    return cut


def whole_frame(frames: Bytes) -> Bytes:
    """Show the frame as it is: (N, 1, H, W, C) -> (N, 1, H, W, C)."""
    return frames


FRAMES = ClassifierConfig(steps=800, batch_size=64, width=8)  # whole frames have many times a digit's pixels
TASKS: Mapping[str, Task] = {
    "mnist": Task("a digit in its colour plane", ("digit_red", "digit_green"), 1, digit_crops, "front"),
    "chairs": Task("a frame", ("style",), 1, whole_frame),
    "norb": Task("a frame", ("category",), 1, whole_frame),
}
"""What is identity, by the name of the data set."""


def train_judge(
    training: Collection,
    held_out: Collection,
    cache: Path | None = None,
    device: str = "cpu",
    seed: int = 0,
    progress: Progress | None = None,
    config: ClassifierConfig | None = None,
) -> Classifier:
    """Train a judge of identity on true frames of the training split, or take it from the folder where it is kept.

    Args:
        training, held_out: the data set's two splits.
        cache: a folder, or None.
        device: `cpu` or `cuda`.
        seed: of the weights, the examples and the batches.
        progress: told of each step.
        config: how it is trained, its seed included.

    Raises:
        DataError: where the data set has no label for the identity of what it shows.
    """
    name = training.manifest.about["data_set"] if training.manifest else "shards without a manifest"
    if name not in TASKS:
        raise DataError(f"no label of '{name}' says what a frame shows; identity is judged for {', '.join(TASKS)}")
    task = TASKS[name]
    config = config or replace(FRAMES if task.view is whole_frame else ClassifierConfig(), seed=seed)
    return train_classifier(task, training, held_out, config, cache, device, progress)


def identity(
    model: DrNet,
    predictor: PosePredictor | None,
    collection: Collection,
    judge: Classifier,
    observe: int = 5,
    steps: Sequence[int] = STEPS,
    clips: int = CLIPS,
    device: str = "cpu",
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure in how many swapped and predicted frames the judge still reads what the content's clip shows.

    Args:
        model: in evaluation mode.
        predictor: of that model; None leaves rollouts out.
        collection: held-out clips.
        judge: from `train_judge`.
        observe: frames that a rollout observes, from the clip's first one.
        steps: numbers of the predicted frames that are judged, from 1; the true frame of the same time stands beside one
            where every clip is that long.
        clips: how many clips, and how many pairs, at most.
        device: where the model is.
        seed: of the clips, pairs and frames.
        progress: told of each step of a rollout.

    Returns:
        `judge`, see `Classifier.to_json`; `true`, `swap` (`as_pose`: read as what the pose's clip shows), `rollout`: a row
        for each step. A row holds `same`, the share of frames in which every label is read rightly, its `interval`, the
        share `by_label`, that of the digit in `front`, which nothing hides, `chance`: the share read as what another clip
        shows, and `frames`, their number.

    Raises:
        DataError: for fewer than two clips, or none of more than `observe` frames.
    """
    if len(collection) < 2:
        raise DataError(f"{len(collection)} held-out clip is not enough to swap; build at least 2 with --test-clips")
    order = permutation(key_of("identity", seed), len(collection)).tolist()
    long = [clip for clip in order if collection.sample(clip).length > observe][:clips]
    if len(long) < 2:
        raise DataError(f"fewer than 2 held-out clips have more than the {observe} observed frames; observe fewer")
    truth = _Truth.of(collection, judge, long)
    drawn = integers(words(key_of("identity frames", seed), 0, len(long)), 2**31)  # (B, 4)
    found: dict[str, Any] = {
        "judge": judge.to_json(),
        "seed": seed,
        "observe": observe,
        "short_clips": sum(collection.sample(clip).length <= observe for clip in range(len(collection))),
        "true": truth.row(judge.read(_frames(collection, long, drawn[:, 0])[:, None])),
        "swap": _swaps(model, collection, judge, long, truth, drawn, torch.device(device)),
    }
    if predictor is not None:
        found["rollout"] = _rollout(
            model, predictor, collection, judge, long, truth, observe, steps, progress or Silent()
        )
    return found


@dataclass(frozen=True)
class _Truth:
    """What clips show: (B, L) classes, and (B,) which of the labels is that of the thing in front; None where unknown."""

    classes: Classes
    front: Classes | None

    @classmethod
    def of(cls, collection: Collection, judge: Classifier, clips: Sequence[int]) -> "_Truth":
        rows = [collection.labels(clip) for clip in clips]
        classes = np.array([[labels[name] for name in judge.task.labels] for labels in rows], np.int64)
        front = judge.task.front
        return cls(classes, np.array([labels[front] for labels in rows], np.int64) if front else None)

    def row(self, read: Classes) -> dict[str, Any]:
        """Score what was read of a frame of each clip, (B, L)."""
        right = read == self.classes
        whole = right.all(1)
        front = {} if self.front is None else {"front": float(right[np.arange(len(right)), self.front].mean())}
        return {
            "same": float(whole.mean()),
            "interval": list(share_interval(int(whole.sum()), len(whole))),
            "by_label": right.mean(0).tolist(),
            **front,
            "chance": self.read_as(read, np.roll(np.arange(len(read)), 1)),
            "frames": len(read),
        }

    def read_as(self, read: Classes, clips: Classes) -> float:
        """Return the share of frames that are read as what other clips show, (B,) places."""
        return float((read == self.classes[clips]).all(1).mean())


def _frames(collection: Collection, clips: Sequence[int], times: NDArray[np.int64]) -> Bytes:
    """Return one frame of each clip, at the time modulo its length: (B, H, W, C)."""
    return np.stack([collection.frames(c)[t % collection.sample(c).length] for c, t in zip(clips, times, strict=True)])


@torch.no_grad()
def _swaps(
    model: DrNet,
    collection: Collection,
    judge: Classifier,
    clips: list[int],
    truth: _Truth,
    drawn: Classes,
    device: torch.device,
) -> dict[str, Any]:
    """Decode each clip's content in the pose of another clip."""
    count = len(clips)
    other = (np.arange(count) + 1 + drawn[:, 1] % (count - 1)) % count
    contents = _frames(collection, clips, drawn[:, 2])
    poses = _frames(collection, [clips[place] for place in other], drawn[:, 3])
    read = []
    for first in range(0, count, AT_ONCE):
        part = slice(first, first + AT_ONCE)
        content = model.content_encoder(to_device(contents[part], device))
        decoded = model.decode(content, model.pose_encoder(to_device(poses[part], device)))
        read.append(judge.read(unit_to_uint8(decoded.float().movedim(-3, -1).cpu().numpy())[:, None]))
    together = np.concatenate(read)
    return truth.row(together) | {"as_pose": truth.read_as(together, other)}


def _rollout(
    model: DrNet,
    predictor: PosePredictor,
    collection: Collection,
    judge: Classifier,
    clips: list[int],
    truth: _Truth,
    observe: int,
    steps: Sequence[int],
    progress: Progress,
) -> list[dict[str, Any]]:
    """Judge predicted frames; the rollouts of some clips at a time, in constant memory."""
    last = max(steps)
    read: dict[int, list[Classes]] = {step: [] for step in steps}
    progress.start("judging rollouts", last * -(-len(clips) // AT_ONCE), "steps")
    try:
        for first in range(0, len(clips), AT_ONCE):
            seen = np.stack([collection.frames(clip)[:observe] for clip in clips[first : first + AT_ONCE]])
            for step, frames in enumerate(predicted_frames(model, predictor, seen, last), 1):
                if step in read:
                    read[step].append(judge.read(frames[:, None]))
                progress.advance(1)
    finally:
        progress.stop()
    rows = []
    for step in steps:
        row: dict[str, Any] = {"step": step, **truth.row(np.concatenate(read[step])), "true": None}
        time = observe + step - 1
        if all(collection.sample(clip).length > time for clip in clips):
            true = _frames(collection, clips, np.full(len(clips), time))
            row["true"] = truth.row(judge.read(true[:, None]))["same"]
        rows.append(row)
    return rows


COLUMNS = ("frames", "same", "95% interval", "the judge on true frames", "chance")


def identity_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Return the result of `identity` as rows of text under the columns `COLUMNS`."""
    true = found["true"]["same"]
    rows = [("true frames", found["true"], true), ("swapped", found["swap"], true)]
    rows += [
        (f"step {row['step']}", row, true if row["true"] is None else row["true"]) for row in found.get("rollout", ())
    ]
    return [
        [name, f"{row['same']:.3f}", "{:.3f} to {:.3f}".format(*row["interval"]), f"{base:.3f}", f"{row['chance']:.3f}"]
        for name, row, base in rows
    ]
