"""Classify features as the paper does: Table 1 (objects from single images) and Fig. 8 (actions from 24 poses).

The protocol: a row is a window of consecutive frames' vectors, standardised by the training rows. A quarter of the training
groups (persons, toys, clips), at least one, is held out to stop the network early, never single rows: of KTH's 16 training
persons this leaves the paper's 12. Logistic regression is fitted to the same training rows. Both are scored on the test
split. Each seed draws other groups and other weights; the interval is Student's t over them, at 95%; with fewer than
three the values stand in its place. It says how far another draw would differ, and nothing of the choice of the test clips.
"""

import dataclasses
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from drnet.classifier import ClassifierConfig, fit_classifier, tell
from drnet.datasets.contract import DataError
from drnet.datasets.draws import key_of, permutation
from drnet.guess import guess
from drnet.pipelines.evaluation.classify_result import CLASSIFIERS, Point, Result, Run, origin_of
from drnet.pipelines.evaluation.windows import (
    CLIP,
    Rows,
    Which,
    category,
    clips_of,
    groups_of,
    vectors_of,
    window_rows,
)
from drnet.pipelines.export import Features
from drnet.pipelines.progress import Progress, Silent
from drnet.probes import logistic, standardise

PAPER_WINDOWS = {"kth": 24}  # Sec. 4.3: "pose vectors from video sequences of length 24"
IMAGE_HIDDEN, WINDOW_HIDDEN = 256, 1200  # appendix D: NORB's images, KTH's sequences
HELD_OUT = 4  # one in so many groups
SEEDS = DRAWS = 5


@dataclass(frozen=True)
class ClassifySettings:
    """What is told from what, and how. None: as the paper has it for such data.

    Attributes:
        label: the category to tell.
        features: `content`, `pose` or `both`.
        window: consecutive frames of a row; None: 24 for KTH, else 1, single images.
        stride: frames between the starts of two windows of a clip; None: the window, so that none overlap.
        hidden: units of each hidden layer; None: 256 for single images, 1200 for windows.
        dropout: share of the hidden units that a step leaves out.
        group: the label whose values are kept together, or `clip`; None: what the data set is split by.
        persons: numbers of training groups to draw; empty: all that are not held out, once.
        draws: how often the groups are drawn for each number of `persons`.
        seeds: fits of each draw; None: 1 with `persons`, else 5.
        clips: at most so many clips of each split, drawn; None: all.
    """

    label: str
    features: Which = "content"
    window: int | None = None
    stride: int | None = None
    hidden: int | None = None
    dropout: float = ClassifierConfig.dropout
    group: str | None = None
    persons: tuple[int, ...] = ()
    draws: int = DRAWS
    seeds: int | None = None
    clips: int | None = None

    def __post_init__(self) -> None:
        if self.features not in get_args(Which):
            meant = guess(self.features, get_args(Which))
            raise DataError(f"features '{self.features}' is not allowed{meant}; it must be 'content', 'pose' or 'both'")
        for name in ("window", "stride", "hidden", "draws", "seeds", "clips"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DataError(f"{name} {value} is not allowed; it must be at least 1")
        if any(count < 1 for count in self.persons) or len(set(self.persons)) < len(self.persons):
            raise DataError(f"persons {list(self.persons)} is not allowed; give different numbers of at least 1")
        if not 0 <= self.dropout < 1:
            raise DataError(f"dropout {self.dropout} is not allowed; it must lie in [0, 1)")

    def resolved(self, features: Features) -> "ClassifySettings":
        """Return the settings with every None replaced, except of `clips`."""
        named = str(features.attributes.get("data_set") or "")
        window = self.window or PAPER_WINDOWS.get(named, 1)
        keys = [str(features.attributes.get(name) or "") for name in ("split_key", "content_key")]
        known = [name for name in keys if name in features.label_types and not features.label_types[name].varying]
        return replace(
            self,
            window=window,
            stride=self.stride or window,
            hidden=self.hidden or (IMAGE_HIDDEN if window == 1 else WINDOW_HIDDEN),
            group=self.group or (known[0] if known else CLIP),
            persons=tuple(sorted(self.persons)),
            seeds=self.seeds or (1 if self.persons else SEEDS),
        )


@dataclass(frozen=True)
class Job:
    """Everything that the fits of one features file share: settings, rows, the rows' groups, and the classes' number."""

    settings: ClassifySettings
    train: Rows
    groups: NDArray[np.int64]  # (R,) of the training rows, from 0
    test: Rows
    classes: int
    device: torch.device

    @property
    def held(self) -> int:
        """How many groups are held out."""
        return held_out(self.count)

    @property
    def count(self) -> int:
        """How many groups have rows."""
        return int(self.groups.max()) + 1


def held_out(groups: int) -> int:
    """Return how many of some training groups are held out to stop early: a quarter, at least one."""
    return max(1, groups // HELD_OUT)


def classify(
    features: Features,
    settings: ClassifySettings,
    test: Features | None = None,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> Result:
    """Fit classifiers on the train split of some features and score them on the test split.

    Args:
        features: from `load_features`.
        settings: what to tell, and how.
        test: features whose test split is used instead, of the same checkpoint and with the same categories.
        device: where the networks are trained.
        progress: told of each fit.

    Raises:
        DataError: the label is no category, the test features do not fit, a split or the groups are too few.
    """
    progress, settings = progress or Silent(), settings.resolved(features)
    label = category(features, settings.label)
    if test is not None:
        check_fits(features, test, settings)
    tested = features if test is None else test
    job = prepare(features, tested, settings, len(label.names), torch.device(device))
    counts = settings.persons or (job.count - job.held,)
    draws, seeds = (settings.draws if settings.persons else 1), settings.seeds or SEEDS
    progress.start(f"classifying {settings.label}", len(counts) * draws * seeds, "fits")
    try:
        points = tuple(_point(job, count, draws, seeds, progress) for count in counts)
    finally:
        progress.stop()
    common = int(np.bincount(job.train.classes).argmax())
    return Result(
        label=settings.label,
        names=label.names,
        settings=dataclasses.asdict(settings),
        points=points,
        chance=float((job.test.classes == common).mean()),
        rows={"train": len(job.train.classes), "test": len(job.test.classes)},
        clips={"train": len(np.unique(job.train.clips)), "test": len(np.unique(job.test.clips))},
        groups={"train": job.count - job.held, "validation": job.held},
        shared=shared_groups(features, tested, job),
        left_out={"train": dict(job.train.left_out), "test": dict(job.test.left_out)},
        test_classes=tuple(np.bincount(job.test.classes, minlength=len(label.names)).tolist()),
        train_classes=tuple(np.bincount(job.train.classes, minlength=len(label.names)).tolist()),
        origin={"train": origin_of(features), "test": origin_of(tested)},
    )


def prepare(features: Features, test: Features, settings: ClassifySettings, classes: int, device: torch.device) -> Job:
    """Return the rows and groups of both splits; raises DataError where they are too few, or not finite."""
    window, stride, group = settings.window or 1, settings.stride or 1, settings.group or CLIP
    rows = []
    for split, source in (("train", features), ("test", test)):
        clips = clips_of(source, split, settings.clips)
        if not len(clips):
            raise DataError(f"the features hold no {split} clips; export them from a data set's folder, or name --test")
        rows.append(window_rows(source, settings.features, settings.label, clips, window, stride))
        if not np.isfinite(rows[-1].vectors).all():
            raise DataError(
                f"the {split} clips' {settings.features} holds NaN or infinity; the run that made it is broken"
            )
    train = rows[0]
    if len(np.unique(train.classes)) < 2:
        raise DataError(f"label '{settings.label}' has one value only in the train clips; choose another label")
    values, groups = np.unique(groups_of(features, group)[train.clips], return_inverse=True)
    if len(values) < 2:
        raise DataError(
            f"group '{group}' has one value only in the train clips, and one is held out to stop early; "
            f"choose another --group, such as {CLIP}"
        )
    free = len(values) - held_out(len(values))
    if settings.persons and max(settings.persons) > free:
        raise DataError(
            f"persons {max(settings.persons)} is not allowed: '{group}' has {len(values)} values in the train clips, less "
            f"{held_out(len(values))} held out to stop early; at most {free} can be drawn"
        )
    return Job(settings, train, groups.reshape(-1).astype(np.int64), rows[1], classes, device)


def check_fits(features: Features, test: Features, settings: ClassifySettings) -> None:
    """Raise DataError where other features cannot be the test of these: another network, label or size."""
    ours, theirs = category(features, settings.label), category(test, settings.label)
    if ours.names != theirs.names:
        raise DataError(
            f"label '{settings.label}' has other categories in the test features ({', '.join(theirs.names[:12])}) than in "
            f"the training features ({', '.join(ours.names[:12])}); build both data sets alike"
        )
    sizes = [vectors_of(one, settings.features).shape[-1] for one in (features, test)]
    if sizes[0] != sizes[1]:
        raise DataError(
            f"the test features' {settings.features} has {sizes[1]} numbers and the training features' {sizes[0]}; "
            "export both with the same run"
        )
    hashes = [str(one.attributes.get("checkpoint_sha256", "")) for one in (features, test)]
    if hashes[0] != hashes[1]:
        raise DataError(
            f"the test features come from checkpoint {hashes[1][:12]} and the training features from {hashes[0][:12]}; "
            "export both with the same run"
        )


def shared_groups(features: Features, test: Features, job: Job) -> int:
    """Return how many values of the data set's split key lie in the clips of both sides: 0, unless builds are mixed."""
    key = str(features.attributes.get("split_key") or "")
    if test is features or key not in features.label_types or key not in test.label_types:
        return 0
    return len(np.intersect1d(features.labels[key][job.train.clips], test.labels[key][job.test.clips]))


def _point(job: Job, count: int, draws: int, seeds: int, progress: Progress) -> Point:
    """Fit with `count` training groups, for every draw and seed."""
    runs = []
    for draw in range(draws):
        for seed in range(seeds):
            runs.append(_run(job, count, draw, seed))
            progress.advance(1, accuracy=runs[-1].accuracy["network"])
    return Point(count, tuple(runs))


def _run(job: Job, count: int, draw: int, seed: int) -> Run:
    """Draw groups, fit both classifiers, and score them.

    The order of the groups depends on the draw alone, so that a draw of fewer persons is part of one of more, and that
    two files of the same clips are compared on the same persons. Without `persons` there is one draw, and the seed orders.
    """
    settings = job.settings
    order = permutation(key_of("classify groups", draw if settings.persons else seed), job.count)
    train, held = (np.isin(job.groups, part) for part in (order[job.held : job.held + count], order[: job.held]))
    (x, y), (x_held, y_held) = job.train.part(train), job.train.part(held)
    if len(x) < 2:
        raise DataError(f"persons {count} gives {len(x)} row to train on; draw more groups, or give a lower --stride")
    x_test, (_, x_held) = standardise(x, job.test.vectors)[1], standardise(x, x_held)
    x = standardise(x, x)[0]
    size = ClassifierConfig(hidden=settings.hidden or IMAGE_HIDDEN, dropout=settings.dropout)
    weights = key_of("classify weights", draw, seed) % 2**31
    fitted = fit_classifier((x, y), (x_held, y_held), job.classes, size, weights, job.device)
    alone = len(np.unique(y)) < 2  # of few groups all may be of one class
    guesses = {
        "network": tell(fitted.model, x_test),
        "logistic": np.full(len(x_test), y[0]) if alone else logistic(x, y, x_test),
    }
    return Run(
        draw=draw,
        seed=seed,
        rows=len(x),
        steps=fitted.steps,
        validation=fitted.accuracy,
        accuracy={name: float((guesses[name] == job.test.classes).mean()) for name in CLASSIFIERS},
        confusion={name: confusion(job.test.classes, guesses[name], job.classes) for name in CLASSIFIERS},
        classes=tuple(np.bincount(y, minlength=job.classes).tolist()),
    )


def confusion(truth: NDArray[np.int64], told: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return how often class i was told to be class j: (K, K)."""
    return np.bincount(truth * classes + told, minlength=classes * classes).reshape(classes, classes)
