"""What classifying features found: accuracies with their interval, confusion matrices, and what they were made from."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit  # type: ignore[import-untyped]

from drnet.pipelines.export import Features
from drnet.pipelines.versions import versions

CLASSIFIERS = ("network", "logistic")
CONFIDENCE = 0.95
ORIGIN = ("data_set", "manifest_build", "order_key", "checkpoint_sha256", "checkpoint_step", "trained_on_build")


@dataclass(frozen=True)
class Estimate:
    """A mean over runs with its interval of Student's t.

    Attributes:
        mean: in [0, 1].
        low, high: the 95% interval, cut off at 0 and 1; None for a single value, which has none.
        values: the values it is the mean of.
    """

    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimate":
        """Return mean and interval of values that were drawn independently."""
        mean = float(np.mean(values))
        if len(values) < 2:
            return cls(mean, None, None, tuple(values))
        half = (
            float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2))
            * float(np.std(values, ddof=1))
            / math.sqrt(len(values))
        )
        return cls(mean, max(0.0, mean - half), min(1.0, mean + half), tuple(values))

    def to_json(self) -> dict[str, Any]:
        """Return it as a plain dictionary."""
        return {"mean": self.mean, "low": self.low, "high": self.high, "values": list(self.values)}

    def text(self) -> str:
        """Return mean and interval in percent."""
        span = "" if self.low is None or self.high is None else f" ({100 * self.low:.1f} to {100 * self.high:.1f})"
        return f"{100 * self.mean:.1f}%{span}"


@dataclass(frozen=True)
class Run:
    """One fit of both classifiers.

    Attributes:
        draw, seed: which.
        rows: training rows.
        steps: of the network's weights, where it was stopped.
        validation: the network's accuracy on the held-out groups.
        accuracy: on the test rows, by classifier.
        confusion: (K, K) test rows by true class and class told, by classifier.
    """

    draw: int
    seed: int
    rows: int
    steps: int
    validation: float
    accuracy: Mapping[str, float]
    confusion: Mapping[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Point:
    """All fits with one number of training groups."""

    groups: int
    runs: tuple[Run, ...]

    def accuracy(self, classifier: str = "network") -> Estimate:
        """Return the accuracy over draws (each the mean of its seeds) or, of a single draw, over seeds."""
        draws = sorted({run.draw for run in self.runs})
        if len(draws) == 1:
            return Estimate.of([run.accuracy[classifier] for run in self.runs])
        own = [[run.accuracy[classifier] for run in self.runs if run.draw == draw] for draw in draws]
        return Estimate.of([float(np.mean(values)) for values in own])

    def confusion(self, classifier: str = "network") -> NDArray[np.int64]:
        """Return the confusion matrix (K, K), summed over all runs: each test row counts once in each."""
        return np.sum([run.confusion[classifier] for run in self.runs], axis=0)

    def to_json(self) -> dict[str, Any]:
        """Return it as a plain dictionary."""
        return {
            "groups": self.groups,
            **{name: self.accuracy(name).to_json() for name in CLASSIFIERS},
            "confusion": {name: self.confusion(name).tolist() for name in CLASSIFIERS},
            "runs": [
                {
                    "draw": r.draw,
                    "seed": r.seed,
                    "rows": r.rows,
                    "steps": r.steps,
                    "validation": r.validation,
                    **r.accuracy,
                }
                for r in self.runs
            ],
        }


@dataclass(frozen=True)
class Result:
    """How well a label is told from features.

    Attributes:
        label: what was told; `names` its K categories.
        settings: `ClassifySettings` as they were, resolved.
        points: one, or one for each number of training groups, rising.
        chance: accuracy of always naming the most frequent class of the training rows.
        rows, clips: used, of `train` (held-out ones included) and `test`.
        groups: how many were there to `train` on and for `validation`.
        shared: values of the data set's split key that lie on both sides: 0, unless two builds are mixed.
        left_out: what gave no row, of `train` and `test`, by reason.
        train_classes, test_classes: (K,) rows of each class.
        origin: what the features of `train` and `test` come from.
    """

    label: str
    names: tuple[str, ...]
    settings: Mapping[str, Any]
    points: tuple[Point, ...]
    chance: float
    rows: Mapping[str, int]
    clips: Mapping[str, int]
    groups: Mapping[str, int]
    shared: int
    left_out: Mapping[str, Mapping[str, int]]
    train_classes: tuple[int, ...]
    test_classes: tuple[int, ...]
    origin: Mapping[str, Mapping[str, Any]]

    def accuracy(self, classifier: str = "network") -> Estimate:
        """Return the accuracy with the most training groups."""
        return self.points[-1].accuracy(classifier)

    def confusion(self, classifier: str = "network") -> NDArray[np.int64]:
        """Return the confusion matrix with the most training groups, (K, K), summed over the runs."""
        return self.points[-1].confusion(classifier)

    def notes(self) -> list[str]:
        """Return a line for everything a reader of the figures must know."""
        lines = [
            f"{split}: {count} {why} left out" for split, whys in self.left_out.items() for why, count in whys.items()
        ]
        present = list(zip(self.names, self.train_classes, self.test_classes, strict=True))
        unseen = [name for name, train, test in present if test and not train]
        untested = [name for name, train, test in present if train and not test]
        if unseen:
            lines.append(f"no train clip shows {', '.join(unseen)}: these test rows cannot be told")
        if untested:
            lines.append(f"no test clip shows {', '.join(untested)}")
        if self.shared:
            lines.append(
                f"{self.shared} groups of the test clips are in the train clips too: this is no score on new ones"
            )
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values: figures, settings, what they were made from, and by which versions."""
        return {
            "label": self.label,
            "names": list(self.names),
            "settings": {name: list(value) if name == "persons" else value for name, value in self.settings.items()},
            "confidence": CONFIDENCE,
            "chance": self.chance,
            "points": [point.to_json() for point in self.points],
            "rows": dict(self.rows),
            "clips": dict(self.clips),
            "groups": dict(self.groups),
            "shared_groups": self.shared,
            "left_out": {split: dict(whys) for split, whys in self.left_out.items()},
            "train_classes": list(self.train_classes),
            "test_classes": list(self.test_classes),
            "notes": self.notes(),
            "origin": {split: dict(facts) for split, facts in self.origin.items()},
            "versions": versions("python", "torch", "numpy", "scikit-learn"),
        }


def origin_of(features: Features) -> dict[str, Any]:
    """Return what a features file says of where it comes from."""
    return {name: features.attributes[name] for name in ORIGIN if name in features.attributes}
