"""The Inception Score of predicted actions (Fig. 9, appendix B), as the paper defines it.

A convolutional classifier tells the action from 10 frames, concatenated along the channels; it is trained on the training
split. The score of windows is exp(E_x KL(p(y|x) || p(y))): 1 where they all look alike or like nothing, the number of
actions where each is sure and all are as frequent. The offset is how far the first frame of a window lies from the last
observed one: 1 is the frame after it.

The score grows with the number of windows (of N it is at most N), and knows nothing of whether the action is the right one:
the share of windows whose action is told rightly stands beside it, and the share of the most frequent action.

True windows end with their clips, predicted ones do not. So predicted frames have two rows: of every start, as in the paper,
and of the windows whose true frames are there, which alone are of the same clips as the real frames' row.

Axes: N windows, T frames, H height, W width, C channels, Y actions.
"""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drnet.autoencoder import Autoencoder
from drnet.datasets.contract import DataError
from drnet.model import DrNet
from drnet.pipelines.evaluation.classifier import Classifier, ClassifierConfig, Task, train_classifier
from drnet.pipelines.prediction.rollout import predicted_frames
from drnet.pipelines.progress import Progress, Silent
from drnet.pipelines.source import Collection
from drnet.predictor import PosePredictor
from drnet.scores import inception_score, jackknife

WINDOW = 10  # frames that the classifier sees (appendix B)
OFFSETS = tuple(range(1, 92, 10))  # up to the 100th predicted frame
AT_ONCE = 64  # windows rolled out together
CONFIG = ClassifierConfig(steps=1000, batch_size=32, lr=0.002, width=16, mirrored=True)
NOT_IMPLEMENTED = "not implemented"
TRUE, OURS = "real frames", "DrNet"
SAME = ", same windows"  # as the real frames
OTHERS = ("MCNet",)  # rows of Fig. 9 that this project does not compute


def concatenated(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Concatenate frames along their channels: (N, T, H, W, C) -> (N, 1, H, W, T * C)."""
    count, length, height, width, channels = frames.shape
    return np.moveaxis(frames, 1, 3).reshape(count, 1, height, width, length * channels)


TASK = Task("concatenated frames", ("action",), WINDOW, concatenated)


def train_action_classifier(
    training: Collection,
    held_out: Collection,
    cache: Path | None = None,
    device: str = "cpu",
    seed: int = 0,
    progress: Progress | None = None,
    config: ClassifierConfig | None = None,
) -> Classifier:
    """Train the classifier of the action, or take it from the folder where it is kept.

    Args:
        training, held_out: the data set's two splits.
        cache: a folder, or None.
        device: `cpu` or `cuda`.
        seed: of the weights, the examples and the batches.
        progress: told of each step.
        config: how it is trained, its seed included.

    Raises:
        DataError: where the clips have no label `action`, or are shorter than 10 frames.
    """
    config = config or replace(CONFIG, seed=seed)
    return train_classifier(TASK, training, held_out, config, cache, device, progress)


@dataclass(frozen=True)
class _Start:
    """A place in a clip where frames are observed."""

    clip: int
    first: int
    action: int


@dataclass(frozen=True)
class _Judged:
    """Probabilities of windows at an offset, (N, Y), the starts they belong to."""

    probabilities: NDArray[np.float64]
    starts: Sequence[_Start]

    def of(self, starts: Sequence[_Start]) -> "_Judged":
        """Return the windows of some of the starts, which are in the same order."""
        wanted = set(starts)
        kept = [start in wanted for start in self.starts]
        return _Judged(self.probabilities[kept], list(starts))

    def row(self) -> dict[str, Any]:
        clips = np.array([start.clip for start in self.starts])
        actions = np.array([start.action for start in self.starts])
        if not len(clips):
            return {"score": None, "error": None, "right": None, "frequent": None, "windows": 0, "clips": 0}
        lone = len(clips) < 2
        error = math.nan if lone else jackknife(inception_score, self.probabilities, clips)
        return {
            "score": None if lone else inception_score(self.probabilities),
            "error": None if math.isnan(error) else error,
            "right": float((self.probabilities.argmax(1) == actions).mean()),
            "frequent": float(np.bincount(actions).max() / len(actions)),
            "windows": len(clips),
            "clips": len(np.unique(clips)),
        }


def inception(
    model: DrNet | None,
    predictor: PosePredictor | None,
    collection: Collection,
    classifier: Classifier,
    observe: int = 10,
    offsets: Sequence[int] = OFFSETS,
    stride: int = 20,
    device: str = "cpu",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Score true and predicted windows of 10 frames against the offset at which they begin.

    Args:
        model: in evaluation mode, with its `predictor`; None for either leaves DrNet's row without numbers.
        predictor: of the model.
        collection: held-out clips.
        classifier: from `train_action_classifier`.
        observe: frames that a prediction observes.
        offsets: of a window's first frame from the last observed one, from 1.
        stride: frames between two places of a clip at which observing begins.
        device: where the model is; the classifier knows its own.
        progress: told of each step.

    Returns:
        `classifier`, see `Classifier.to_json`; `offsets`; `rows`: by method, a row for each offset (`score`, its standard
        `error` over clips, `right`: share of windows told as the clip's action, `frequent`: share of the most frequent
        action, `windows`, `clips`), or a text that says why there is none. True windows end with their clips, so that
        their number falls with the offset; the row whose name ends in `SAME` has the model's windows of the same places.
        A lone window has no score: it would be 1 whatever the window shows.

    Raises:
        DataError: where an offset or the stride is not allowed, or no clip is long enough.
    """
    if not offsets or min(offsets) < 1 or stride < 1:
        raise DataError(f"offsets {list(offsets)} and stride {stride} are not allowed; they must be at least 1")
    progress = progress or Silent()
    starts = _starts(collection, classifier, observe, stride)
    true = list(_true(collection, classifier, starts, observe, offsets))
    rows: dict[str, Any] = {TRUE: [judged.row() for judged in true]}
    if model is None or predictor is None:
        rows[_name(model)] = "no predictor is trained for this run"
    else:
        found = _predicted(model, predictor, collection, classifier, starts, observe, offsets, progress)
        same = [judged.of(other.starts) for judged, other in zip(found, true, strict=True)]
        rows[_name(model) + SAME] = [judged.row() for judged in same]
        rows[_name(model)] = [judged.row() for judged in found]
    return {
        "classifier": classifier.to_json(),
        "window": WINDOW,
        "observe": observe,
        "stride": stride,
        "offsets": list(offsets),
        "rows": rows | dict.fromkeys(OTHERS, NOT_IMPLEMENTED),
    }


def _name(model: object) -> str:
    return "autoencoder" if isinstance(model, Autoencoder) else OURS


def _starts(collection: Collection, classifier: Classifier, observe: int, stride: int) -> list[_Start]:
    """Return where observing begins: every clip's first frame, and further ones that leave a frame to predict."""
    found = []
    for clip in range(len(collection)):
        action = collection.labels(clip)[classifier.task.labels[0]]
        places = range(0, collection.sample(clip).length - observe, stride)
        found += [_Start(clip, first, action) for first in places]
    if not found:
        raise DataError(f"no held-out clip has more than the {observe} observed frames; observe fewer")
    return found


def _true(
    collection: Collection, classifier: Classifier, starts: Sequence[_Start], observe: int, offsets: Sequence[int]
) -> Iterator[_Judged]:
    """Yield the true windows at each offset, of the starts whose clips go so far."""
    for offset in offsets:
        ahead = observe + offset - 1
        far = [s for s in starts if s.first + ahead + WINDOW <= collection.sample(s.clip).length]
        parts = [np.zeros((0, len(classifier.classes)))]
        for at in range(0, len(far), AT_ONCE):
            windows = [
                collection.frames(s.clip)[s.first + ahead : s.first + ahead + WINDOW] for s in far[at : at + AT_ONCE]
            ]
            parts.append(classifier.probabilities(np.stack(windows))[:, 0])
        yield _Judged(np.concatenate(parts), far)


def _predicted(
    model: DrNet,
    predictor: PosePredictor,
    collection: Collection,
    classifier: Classifier,
    starts: Sequence[_Start],
    observe: int,
    offsets: Sequence[int],
    progress: Progress,
) -> list[_Judged]:
    """Return the predicted windows at each offset; only the last 10 frames of some rollouts are kept at a time."""
    steps = max(offsets) + WINDOW - 1
    found: dict[int, list[NDArray[np.float64]]] = {offset: [] for offset in offsets}
    progress.start("rollouts for the Inception Score", steps * -(-len(starts) // AT_ONCE), "steps")
    try:
        for at in range(0, len(starts), AT_ONCE):
            part = starts[at : at + AT_ONCE]
            seen = np.stack([collection.frames(s.clip)[s.first : s.first + observe] for s in part])
            last: deque[NDArray[np.uint8]] = deque(maxlen=WINDOW)
            for step, frames in enumerate(predicted_frames(model, predictor, seen, steps), 1):
                last.append(frames)
                if (offset := step - WINDOW + 1) in found:
                    found[offset].append(classifier.probabilities(np.stack(last, 1))[:, 0])
                progress.advance(1)
    finally:
        progress.stop()
    return [_Judged(np.concatenate(found[offset]), starts) for offset in offsets]


COLUMNS = (
    "method",
    "offset",
    "Inception Score",
    "standard error",
    "action told rightly",
    "most frequent action",
    "windows",
    "clips",
)


def inception_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Return the result of `inception` as rows of text under the columns `COLUMNS`."""
    lines = []
    for method, rows in found["rows"].items():
        if isinstance(rows, str):
            lines.append([method, "-", rows, *["-"] * (len(COLUMNS) - 3)])
            continue
        for offset, row in zip(found["offsets"], rows, strict=True):
            score = ["-" if row[name] is None else f"{row[name]:.3f}" for name in ("score", "error")]
            shares = ["-" if row[name] is None else f"{100 * row[name]:.1f}%" for name in ("right", "frequent")]
            lines.append([method, str(offset), *score, *shares, str(row["windows"]), str(row["clips"])])
    return lines
