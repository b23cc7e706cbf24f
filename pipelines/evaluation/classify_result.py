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
FEW = 3  # values that an interval needs at least: of two, Student's t reaches from nothing to everything
ORIGIN = ("data_set", "manifest_build", "order_key", "checkpoint_sha256", "checkpoint_step", "trained_on_build")


@dataclass(frozen=True)
class Estimate:
    """A mean over runs with its interval of Student's t.

    Attributes:
        mean: in [0, 1].
        low, high: the 95% interval, cut off at 0 and 1; None for fewer than `FEW` values, which are told themselves, and
            for values that are all the same, of which it would claim to be exact.
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
        if len(values) < FEW or min(values) == max(values):
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
        """Return the mean in percent and its interval, or in its place the values."""
        return f"{100 * self.mean:.1f}%{self._span()}"

    def _span(self) -> str:
        if self.low is not None and self.high is not None:
            return f" ({100 * self.low:.1f} to {100 * self.high:.1f})"
        if len(self.values) < 2:
            return ""
        if min(self.values) == max(self.values):
            return f" (all {len(self.values)})"
        return f" ({', '.join(f'{100 * value:.1f}' for value in self.values)})"


def spread_of(count: int, what: str, drawn: bool = False) -> str:
    """Return what stands beside a mean of some values: `mean of 5 draws, in brackets its 95% interval`.

    Args:
        count: of the values.
        what: each is of.
        drawn: whether it is a picture that is spoken of, and not a text.
    """
    if count < 2:
        return f"one {what}"
    if count < FEW:
        return f"mean of {count} {what}s, {'each a small hollow mark' if drawn else 'each in brackets'}"
    return f"mean of {count} {what}s, {'bars' if drawn else 'in brackets'}: its 95% interval"


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
        classes: (K,) training rows of each class; empty where it is not known.
    """

    draw: int
    seed: int
    rows: int
    steps: int
    validation: float
    accuracy: Mapping[str, float]
    confusion: Mapping[str, NDArray[np.int64]]
    classes: tuple[int, ...] = ()


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
                    "train_classes": list(r.classes),
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

    @property
    def commonest(self) -> str:
        """The most frequent class of the training rows, which `chance` is the accuracy of naming always."""
        return self.names[int(np.argmax(self.train_classes))]

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
        lines += [line for point in self.points if (line := self._unseen(point))]
        if self.shared:
            lines.append(
                f"{self.shared} groups of the test clips are in the train clips too: this is no score on new ones"
            )
        return lines

    def _unseen(self, point: Point) -> str:
        """Return the line on classes of test rows that some draws' training rows lack, while others have them."""
        some = [k for k, rows in enumerate(zip(self.train_classes, self.test_classes, strict=True)) if all(rows)]
        lacking = {self.names[k]: sum(not run.classes[k] for run in point.runs if run.classes) for k in some}
        told = [f"{name} in {count} of {len(point.runs)} fits" for name, count in lacking.items() if count]
        if not told:
            return ""
        group = f"{point.groups} training {self.settings['group']}{'s' * (point.groups > 1)}"
        return f"with {group} no training row shows {', '.join(told)}: these test rows cannot be told there"

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
