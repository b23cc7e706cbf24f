"""Probe a features file: for every label, how well content and pose each tell it on unseen clips.

The protocol: fit on 4,000 train clips or all, score on 1,000 test clips or all, three seeds. A static label is told from
the mean vector of a clip's frames, a varying one from each frame's vector. Numbers are scored by R2, categories by accuracy.
A number with a period (an azimuth) is told as sine and cosine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drnet.datasets.contract import SPLITS, DataError, Label
from drnet.datasets.draws import key_of, permutation
from drnet.pipelines.export import Features, load_features
from drnet.pipelines.progress import Progress, Silent
from drnet.probes import logistic, mlp, r2, ridge, standardise

FIT_CLIPS, SCORE_CLIPS = 4000, 1000
SEEDS = 3
FEATURES = ("content", "pose")


@dataclass(frozen=True)
class Rows:
    """Vectors of some clips, a row for each clip (static) or frame (varying): (R, D), and the clip of each, (R,)."""

    vectors: NDArray[np.float32]
    clips: NDArray[np.int64]
    frames: NDArray[np.int64] | None


def rows_of(features: Features, name: str, clips: NDArray[np.int64], varying: bool) -> Rows:
    """Return a feature's rows for some clips: means over their valid frames, or every valid frame."""
    values = getattr(features, name)[clips]  # (N, T, D)
    if not values.shape[2]:  # of an autoencoder, whose content has no numbers: it tells what a constant does
        values = np.zeros((*values.shape[:2], 1), np.float32)
    valid = np.arange(values.shape[1]) < features.length[clips, None]  # (N, T)
    if varying:
        number, frame = np.nonzero(valid)
        return Rows(values[number, frame], clips[number], frame)
    means = (values * valid[..., None]).sum(1) / features.length[clips, None]
    return Rows(means.astype(np.float32), clips, None)


def targets_of(features: Features, name: str, rows: Rows) -> NDArray:
    """Return a label's values for rows: (R,) classes, (R, 1) numbers, or (R, 2) sine and cosine."""
    label, values = features.label_types[name], features.labels[name]
    chosen = values[rows.clips] if rows.frames is None else values[rows.clips, rows.frames]
    if label.kind == "category":
        return chosen.astype(np.int64)
    if label.period:
        angle = 2 * np.pi * chosen / label.period
        return np.stack([np.sin(angle), np.cos(angle)], 1).astype(np.float32)
    return chosen[:, None].astype(np.float32)


def choose_clips(features: Features, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the clips a probe fits on and is scored on."""
    train, test = np.flatnonzero(features.split == "train"), np.flatnonzero(features.split == "test")
    if not len(train) or not len(test):
        raise DataError("the features need clips of both splits, train and test; export them from a data set's folder")
    chosen = [
        np.sort(clips[permutation(key_of("probe", seed, split), len(clips))[:most]])
        for split, clips, most in (("train", train, FIT_CLIPS), ("test", test, SCORE_CLIPS))
    ]
    return chosen[0], chosen[1]


def probed_labels(features: Features, draws: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]) -> dict[str, str]:
    """Return for every label why it is not probed on these draws of clips, or an empty text where it is."""
    reasons = {}
    keys = {features.attributes.get("split_key"), features.attributes.get("content_key")}
    for name, label in features.label_types.items():
        poor = [
            split
            for number, split in enumerate(SPLITS)
            if any(len(np.unique(valid_values(features, name, draw[number]))) < 2 for draw in draws)
        ]
        if name in keys or label.unit == "id":
            reasons[name] = "is a name without an order"
        elif poor:
            reasons[name] = f"has one value only in {' and '.join(poor)}"
        else:
            reasons[name] = ""
    return reasons


def valid_values(features: Features, name: str, clips: NDArray) -> NDArray:
    """Return all values of a label over some clips, without the padding."""
    values = features.labels[name][clips]
    return values[~np.isnan(values)] if features.label_types[name].kind == "number" else values[values >= 0]


def probe(path: Path, progress: Progress | None = None, seeds: int = SEEDS) -> dict[str, Any]:
    """Probe every label of a features file.

    Args:
        path: from `export_features`.
        progress: told of each probe.
        seeds: how many draws of clips and weights.

    Returns:
        `labels`: by name, `kind`, `chance`, `variance`, and for content and pose the `linear` and `mlp` score as
        `[mean, spread]` over the seeds; `left_out`: labels not probed, with the reason; `clips`; `protocol`.

    Raises:
        DataError: where the file is not right or lacks a split.
    """
    progress = progress or Silent()
    features = load_features(path)
    draws = [choose_clips(features, seed) for seed in range(seeds)]
    reasons = probed_labels(features, draws)
    names = [name for name, reason in reasons.items() if not reason]
    progress.start("probing", seeds * len(FEATURES), "rounds")
    scores: dict[str, dict[str, dict[str, list[float]]]] = {n: {f: {} for f in FEATURES} for n in names}
    chances: dict[str, list[float]] = {name: [] for name in names}
    for seed, (fit, score) in enumerate(draws):
        for feature in FEATURES:
            for varying in (False, True):
                chosen = [name for name in names if features.label_types[name].varying == varying]
                found = _round(features, feature, chosen, fit, score, varying, seed)
                for name, (linear, strong, chance) in found.items():
                    scores[name][feature].setdefault("linear", []).append(linear)
                    scores[name][feature].setdefault("mlp", []).append(strong)
                    chances[name].append(chance)
            progress.advance(1)
    progress.stop()
    labels = {name: _row(features.label_types[name], features, name, scores[name], chances[name]) for name in names}
    return {
        "labels": labels,
        "left_out": {name: reason for name, reason in reasons.items() if reason},
        "clips": {"fit": len(fit), "scored": len(score)},
        "seeds": seeds,
        "checkpoint": {name: features.attributes[f"checkpoint_{name}"] for name in ("step", "sha256")},
    }


def _row(
    label: Label, features: Features, name: str, scores: Mapping[str, Mapping[str, list[float]]], chances: list[float]
) -> dict[str, Any]:
    valid = valid_values(features, name, np.ones(len(features.key), bool))
    return {
        "kind": label.kind,
        "score": "accuracy" if label.kind == "category" else "R2",
        "chance": float(np.mean(chances)),
        "variance": float(valid.var()),
        **{
            feature: {probe: [float(np.mean(v)), float(np.std(v))] for probe, v in scores[feature].items()}
            for feature in FEATURES
        },
    }


def _round(
    features: Features,
    feature: str,
    names: list[str],
    fit: NDArray[np.int64],
    score: NDArray[np.int64],
    varying: bool,
    seed: int,
) -> dict[str, tuple[float, float, float]]:
    """Fit and score all labels of one kind of time on one feature: name -> (linear, mlp, chance)."""
    if not names:
        return {}
    train, test = rows_of(features, feature, fit, varying), rows_of(features, feature, score, varying)
    x, x_test = standardise(train.vectors, test.vectors)
    found = {}
    for name in names:
        if features.label_types[name].kind == "category":
            y, y_test = targets_of(features, name, train), targets_of(features, name, test)
            guesses = logistic(x, y, x_test), mlp(x, y, x_test, seed, train.clips)
            linear, strong = (float((guess == y_test).mean()) for guess in guesses)
            found[name] = linear, strong, float((y_test == np.bincount(y).argmax()).mean())
    numbers = [name for name in names if features.label_types[name].kind == "number"]
    if numbers:
        columns = [targets_of(features, name, train) for name in numbers]
        ends = np.cumsum([column.shape[1] for column in columns])
        y = np.concatenate(columns, 1)
        y_test = np.concatenate([targets_of(features, name, test) for name in numbers], 1)
        linear_r2, strong_r2 = r2(y_test, ridge(x, y, x_test)), r2(y_test, mlp(x, y, x_test, seed, train.clips))
        for name, end, column in zip(numbers, ends, columns, strict=True):
            part = slice(end - column.shape[1], end)
            found[name] = float(linear_r2[part].mean()), float(strong_r2[part].mean()), 0.0
    return found


SCORES = ("label", "score", "chance", "content linear", "content MLP", "pose linear", "pose MLP")


def score_rows(found: Mapping[str, Any]) -> list[list[str]]:
    """Return a probe's results as rows of text under the columns `SCORES`."""
    rows = []
    for name, row in found["labels"].items():
        cells = [row[feature][kind] for feature in FEATURES for kind in ("linear", "mlp")]
        numbers = [f"{mean:.3f} ± {spread:.3f}" for mean, spread in cells]
        rows.append([name, row["score"], f"{row['chance']:.3f}", *numbers])
    return rows
