"""Disentanglement scores of a features file: leakage both ways, DCI, MIG, and a table with a row for every factor.

A factor is a label that probes can be asked for. One that stays the same in a clip is content's and told from the mean
vector of a clip's frames; one that varies is pose's and told from a frame's vector, as `drnet.pipelines.probe` does it.

* Leakage: how well the wrong vector tells a factor, between chance (0) and the better of the two vectors (1).
* DCI and MIG see content and pose as one code. They ask for one factor in one number, which DrNet never asks of
  itself: it parts two vectors, not their numbers. DCI is therefore given for the two vectors as well.

Factors that neither vector tells are named and take no part in leakage, disentanglement, completeness and MIG; they do in
the informativeness.

Axes: R rows, D numbers of content and pose together, K factors.
"""

import importlib.metadata
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drnet import scores
from drnet.datasets.contract import DataError, Label
from drnet.datasets.draws import key_of, permutation
from drnet.pipelines.export import Features
from drnet.pipelines.probe import FEATURES, Rows, choose_clips, probed_labels, rows_of, targets_of
from drnet.pipelines.progress import Progress, Silent
from drnet.probes import logistic, mlp, ridge, standardise

FIT_ROWS, SCORE_ROWS = 4000, 2000  # of each factor: they bound the time
READABLE = 0.2  # a factor counts as told where the better vector goes this far from chance to all that can be told
KINDS = ("content", "pose")  # of factors: those that stay in a clip, those that vary

COLUMNS = (
    "factor",
    "of",
    "score",
    "chance",
    "content linear",
    "content MLP",
    "pose linear",
    "pose MLP",
    "leakage",
    "MIG",
)


@dataclass(frozen=True)
class _Sample:
    """The rows that one kind of factors is told from, standardised: by feature, (R, C) or (R, P)."""

    fit: Mapping[str, NDArray[np.float32]]
    score: Mapping[str, NDArray[np.float32]]
    fit_rows: Rows
    score_rows: Rows

    @property
    def codes(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Content and pose as one code, (R, D), to fit on and to score."""
        both = [np.concatenate([part[name] for name in FEATURES], 1) for part in (self.fit, self.score)]
        return both[0], both[1]


@dataclass(frozen=True)
class _Factor:
    """What was found out about a factor; `told` by feature and probe."""

    name: str
    label: Label
    chance: float
    told: Mapping[str, Mapping[str, float]]
    importance: NDArray[np.float64]
    guessed: float  # by the forest
    gap: float

    @property
    def kind(self) -> str:
        return KINDS[self.label.varying]

    @property
    def measure(self) -> str:
        return "accuracy" if self.label.kind == "category" else "R2"

    @property
    def best(self) -> float:
        return max(score for probes in self.told.values() for score in probes.values())

    @property
    def readable(self) -> bool:
        return scores.above_chance(self.best, self.chance) >= READABLE

    @property
    def leakage(self) -> float:
        """How well the vector that should not know it tells it, by the stronger probe: 0 chance, 1 the better vector."""
        wrong = FEATURES[FEATURES.index(self.kind) - 1]
        return scores.above_chance(max(self.told[wrong].values()), self.chance, self.best)


def disentanglement(features: Features, seed: int = 0, progress: Progress | None = None) -> dict[str, Any]:
    """Score how far content and pose are apart, on clips of the test split.

    Args:
        features: from `load_features`; both splits.
        seed: of the clips and rows chosen, the probes and the trees.
        progress: told of each factor.

    Returns:
        `factors`, by name: `of` (content or pose), `score`, `chance`, `content` and `pose` (each `linear` and `mlp`),
        `leakage` (None where not told), `importance` (the share of content and of pose), `mig`, `forest`;
        `leakage`: `content_in_pose` and `pose_in_content`;
        `dci`: `disentanglement`, `completeness`, `informativeness`, and the first two for the two vectors, `blocks`;
        `mig`; `not_told` and `left_out`; `protocol`. A mean over no factor is None.

    Raises:
        DataError: where the features lack a split, or every label is left out.
    """
    progress = progress or Silent()
    draw = choose_clips(features, seed)
    reasons = probed_labels(features, [draw])
    names = [name for name, reason in reasons.items() if not reason]
    if not names:
        raise DataError("no label of these features can be told; `drnet probe` lists the reasons")
    samples = {
        varying: _sample(features, draw, varying, seed)
        for varying in {features.label_types[name].varying for name in names}
    }
    progress.start("scoring disentanglement", len(names), "factors")
    factors = []
    try:
        for name in names:
            factors.append(_factor(features, name, samples[features.label_types[name].varying], seed))
            progress.advance(1)
    finally:
        progress.stop()
    content = features.content.shape[2]
    return {
        "factors": {factor.name: _row(factor, content) for factor in factors},
        **_summary(factors, content),
        "left_out": {name: reason for name, reason in reasons.items() if reason},
        "protocol": {
            "seed": seed,
            "rows": {
                KINDS[varying]: [len(s.fit_rows.clips), len(s.score_rows.clips)] for varying, s in samples.items()
            },
            "readable_from": READABLE,
            "trees": scores.TREES,
            "bins": scores.BINS,
            "scikit-learn": importlib.metadata.version("scikit-learn"),
        },
        "checkpoint": {name: features.attributes.get(f"checkpoint_{name}") for name in ("step", "sha256")},
        "data": features.attributes.get("manifest_build"),
    }


def _sample(features: Features, draw: Sequence[NDArray[np.int64]], varying: bool, seed: int) -> _Sample:
    """Choose at most `FIT_ROWS` and `SCORE_ROWS` rows, the same of content and of pose."""
    parts: list[dict[str, Rows]] = []
    for part, (clips, most) in enumerate(zip(draw, (FIT_ROWS, SCORE_ROWS), strict=True)):
        found = {name: rows_of(features, name, clips, varying) for name in FEATURES}
        count = len(found["pose"].clips)
        chosen = np.sort(permutation(key_of("rows", seed, part, varying), count)[:most])
        parts.append({name: _part(rows, chosen) for name, rows in found.items()})
    pairs = {name: standardise(parts[0][name].vectors, parts[1][name].vectors) for name in FEATURES}
    fit, score = ({name: pair[part] for name, pair in pairs.items()} for part in (0, 1))
    return _Sample(fit, score, parts[0]["pose"], parts[1]["pose"])


def _part(rows: Rows, chosen: NDArray[np.int64]) -> Rows:
    frames = None if rows.frames is None else rows.frames[chosen]
    return Rows(rows.vectors[chosen], rows.clips[chosen], frames)


def _factor(features: Features, name: str, sample: _Sample, seed: int) -> _Factor:
    values, truth = targets_of(features, name, sample.fit_rows), targets_of(features, name, sample.score_rows)
    chance = float((truth == np.bincount(values).argmax()).mean()) if values.ndim == 1 else 0.0
    told = {}
    for feature in FEATURES:
        x, x_test = sample.fit[feature], sample.score[feature]
        told[feature] = {"linear": chance, "mlp": chance}  # of a vector without numbers, as a baseline's content is
        if x.shape[1]:
            guess = (logistic if values.ndim == 1 else ridge)(x, values, x_test)
            strong = mlp(x, values, x_test, seed, sample.fit_rows.clips)
            told[feature] = {"linear": scores.told(guess, truth), "mlp": scores.told(strong, truth)}
    codes, test_codes = sample.codes
    importance, guesses = scores.forest(codes, values, test_codes, seed)
    gap = scores.gap(*scores.information(codes, values))
    return _Factor(name, features.label_types[name], chance, told, importance, scores.told(guesses, truth), gap)


def _row(factor: _Factor, content: int) -> dict[str, Any]:
    shares = factor.importance[:content].sum(), factor.importance[content:].sum()
    return {
        "of": factor.kind,
        "score": factor.measure,
        "chance": factor.chance,
        **{name: dict(probes) for name, probes in factor.told.items()},
        "leakage": _plain(factor.leakage) if factor.readable else None,
        "importance": dict(zip(FEATURES, map(float, shares), strict=True)),
        "mig": _plain(factor.gap),
        "forest": factor.guessed,
    }


def _summary(factors: Sequence[_Factor], content: int) -> dict[str, Any]:
    """Return the one number of each score."""
    readable = [factor for factor in factors if factor.readable]
    leaks = {kind: _mean([f.leakage for f in readable if f.kind == kind]) for kind in KINDS}
    return {
        "leakage": {"content_in_pose": leaks["content"], "pose_in_content": leaks["pose"]},
        "dci": {
            **_dci(np.stack([f.importance for f in readable], 1) if readable else None),
            "informativeness": _mean([scores.above_chance(f.guessed, f.chance) for f in factors]),
            "blocks": _dci(_blocks(readable, content)),
        },
        "mig": _mean([factor.gap for factor in readable]),
        "not_told": [factor.name for factor in factors if not factor.readable],
    }


def _blocks(factors: Sequence[_Factor], content: int) -> NDArray[np.float64] | None:
    """Return the importance of the two vectors for the two kinds of factors, (2, 2); None where one has no part."""
    columns = []
    for kind in KINDS:
        own = [factor.importance for factor in factors if factor.kind == kind]
        if not own:
            return None
        mean = np.mean(own, 0)
        columns.append([mean[:content].sum(), mean[content:].sum()])
    return np.array(columns).T if 0 < content < len(mean) else None


def _dci(importance: NDArray[np.float64] | None) -> dict[str, float | None]:
    if importance is None:
        return {"disentanglement": None, "completeness": None}
    whole = float(scores.completeness(importance).mean())
    return {"disentanglement": scores.disentanglement(importance), "completeness": whole}


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _plain(value: float) -> float | None:
    """Return a number as JSON may hold it."""
    return None if math.isnan(value) else value


def factor_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Return the factors of `disentanglement` as rows of text under the columns `COLUMNS`."""
    rows = []
    for name, row in found["factors"].items():
        cells = [row["chance"], *(row[feature][probe] for feature in FEATURES for probe in ("linear", "mlp"))]
        last = ["not told" if row["leakage"] is None else f"{row['leakage']:.3f}"]
        last.append("-" if row["mig"] is None else f"{row['mig']:.3f}")
        rows.append([name, row["of"], row["score"], *(f"{cell:.3f}" for cell in cells), *last])
    return rows
