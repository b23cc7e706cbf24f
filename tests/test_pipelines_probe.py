"""Probing a features file: planted facts are found on unseen clips, and nothing else is."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from drnet.datasets.contract import DataError, Label
from drnet.pipelines.export import load_features
from drnet.pipelines.probe import (
    SCORES,
    choose_clips,
    probe,
    probed_labels,
    rows_of,
    score_rows,
    targets_of,
)

CLIPS, FRAMES = 260, 5
TYPES = {
    "colour": Label("category", names=("red", "green", "blue")),
    "height": Label("number", unit="pixel"),
    "angle": Label("number", varying=True, unit="degree", period=360.0),
    "moving": Label("category", varying=True, names=("no", "yes")),
    "person": Label("number", unit="number"),
    "index": Label("number", unit="id"),
    "always": Label("number", unit="pixel"),
}


def write(path: Path, types: Mapping[str, Label], labels: Mapping[str, Any], **arrays: Any) -> Path:
    """Write a features file as its format says, without the exporter."""
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": 1, "checkpoint_sha256": "abc", "checkpoint_step": 7, "split_key": "person"})
        file.attrs["content_key"] = "person"
        text = h5py.string_dtype()
        for name, values in arrays.items():
            file.create_dataset(name, data=values, dtype=text if isinstance(values, list) else None)
        for name, label in types.items():
            data = file.create_dataset(f"labels/{name}", data=labels[name])
            data.attrs["kind"], data.attrs["time"] = label.kind, "varying" if label.varying else "static"
            data.attrs.create("names", list(label.names), dtype=text)
            data.attrs["unit"], data.attrs["period"] = label.unit, label.period or 0.0
    return path


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Content that tells the static labels, pose that tells the varying ones, both among noise; clips of 1 to 5 frames."""
    draw = np.random.default_rng(0)
    length = draw.integers(1, FRAMES + 1, CLIPS).astype(np.int32)
    colour, height = draw.integers(0, 3, CLIPS), draw.uniform(0, 50, CLIPS)
    angle, moving = draw.uniform(0, 360, (CLIPS, FRAMES)), draw.integers(0, 2, (CLIPS, FRAMES))
    content = 0.1 * draw.normal(size=(CLIPS, FRAMES, 6))
    content[..., :3] += np.eye(3)[colour][:, None]
    content[..., 3] += height[:, None]
    pose = 0.05 * draw.normal(size=(CLIPS, FRAMES, 4))
    radians = np.deg2rad(angle)
    pose[..., 0] += np.sin(radians)
    pose[..., 1] += np.cos(radians)
    pose[..., 2] += moving
    padding = np.arange(FRAMES) >= length[:, None]
    content[padding], pose[padding] = 1e6, -1e6  # a reader that takes the padding for frames is lost
    angle[padding], moving[padding] = np.nan, -1
    labels = {"colour": colour, "height": height, "angle": angle, "moving": moving}
    labels |= {"person": np.arange(CLIPS) * 1.0, "index": np.arange(CLIPS) * 1.0, "always": np.full(CLIPS, 3.0)}
    return write(
        tmp_path_factory.mktemp("planted") / "features.h5",
        TYPES,
        labels,
        content=content.astype(np.float32),
        pose=pose.astype(np.float32),
        length=length,
        key=[f"clip{number}" for number in range(CLIPS)],
        split=["train"] * 200 + ["test"] * 60,
    )


@pytest.fixture(scope="module")
def found(planted: Path) -> dict[str, Any]:
    return probe(planted, seeds=2)


@pytest.mark.parametrize(("label", "feature"), [("colour", "content"), ("moving", "pose")])
def test_a_planted_category_is_told_and_the_other_vector_is_at_chance(
    found: dict[str, Any], label: str, feature: str
) -> None:
    row, other = found["labels"][label], {"content": "pose", "pose": "content"}[feature]
    assert row["score"] == "accuracy"
    assert row[feature]["linear"][0] > 0.97
    assert row[feature]["mlp"][0] > 0.97
    assert abs(row[other]["linear"][0] - row["chance"]) < 0.2
    assert 0.2 < row["chance"] < 0.65


@pytest.mark.parametrize(("label", "feature"), [("height", "content"), ("angle", "pose")])
def test_a_planted_number_is_told_and_the_other_vector_knows_nothing(
    found: dict[str, Any], label: str, feature: str
) -> None:
    row, other = found["labels"][label], {"content": "pose", "pose": "content"}[feature]
    assert row["score"] == "R2"
    assert row[feature]["linear"][0] > 0.95
    assert row[feature]["mlp"][0] > 0.9
    assert row[other]["linear"][0] < 0.1
    assert row["chance"] == 0


def test_a_number_without_its_period_could_not_be_told(planted: Path) -> None:
    features = load_features(planted)
    rows = rows_of(features, "pose", np.arange(CLIPS), varying=True)
    targets = targets_of(features, "angle", rows)
    angle = features.labels["angle"][rows.clips, rows.frames]
    assert targets.shape == (features.length.sum(), 2)
    assert np.allclose(np.arctan2(targets[:, 0], targets[:, 1]) % (2 * np.pi), np.deg2rad(angle), atol=1e-4)


def test_rows_are_valid_frames_or_their_means(planted: Path) -> None:
    features, clips = load_features(planted), np.array([3, 11, 40])
    means = rows_of(features, "content", clips, varying=False)
    frames = rows_of(features, "content", clips, varying=True)
    assert means.clips.tolist() == clips.tolist()
    assert len(frames.vectors) == features.length[clips].sum()
    assert float(np.abs(frames.vectors).max()) < 1e5  # no padding
    for number, clip in enumerate(clips):
        own = features.content[clip, : features.length[clip]]
        assert np.allclose(means.vectors[number], own.mean(0), atol=1e-4)
        assert np.array_equal(frames.vectors[frames.clips == clip], own)


def test_probes_fit_on_train_clips_and_are_scored_on_test_clips(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = load_features(planted)
    fit, score = choose_clips(features, 0)
    assert set(features.split[fit]) == {"train"}
    assert set(features.split[score]) == {"test"}
    assert (len(fit), len(score)) == (200, 60)
    monkeypatch.setattr("drnet.pipelines.probe.FIT_CLIPS", 50)
    monkeypatch.setattr("drnet.pipelines.probe.SCORE_CLIPS", 20)
    draws = [choose_clips(features, seed) for seed in (0, 1, 0)]
    assert [(len(fit), len(score)) for fit, score in draws] == [(50, 20)] * 3
    assert np.array_equal(draws[0][0], draws[2][0])
    assert not np.array_equal(draws[0][0], draws[1][0])
    assert len(set(draws[0][0].tolist())) == 50


def test_names_and_constants_are_left_out_with_the_reason(found: dict[str, Any], planted: Path) -> None:
    assert found["left_out"] == {
        "person": "is a name without an order",
        "index": "is a name without an order",
        "always": "has one value only in train and test",
    }
    assert set(found["labels"]) == {"colour", "height", "angle", "moving"}
    features = load_features(planted)
    assert probed_labels(features, [choose_clips(features, 0)])["colour"] == ""


def test_a_label_that_is_constant_where_the_probe_is_fitted_is_left_out(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    types = {"once": Label("category", names=("a", "b")), "other": Label("category", names=("a", "b"))}
    labels = {"once": np.array([0] * 40 + [0, 1] * 5), "other": np.array([0, 1] * 25)}
    arrays = {name: draw.normal(size=(50, 2, 3)).astype(np.float32) for name in ("content", "pose")}
    keys = [str(number) for number in range(50)]
    split = ["train"] * 40 + ["test"] * 10
    length = np.full(50, 2, np.int32)
    found = probe(write(tmp_path / "f.h5", types, labels, length=length, key=keys, split=split, **arrays), seeds=1)
    assert found["left_out"] == {"once": "has one value only in train"}
    assert set(found["labels"]) == {"other"}


def test_the_result_is_json_of_a_known_shape(found: dict[str, Any]) -> None:
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert set(found) == {"labels", "left_out", "clips", "seeds", "checkpoint"}
    assert found["clips"] == {"fit": 200, "scored": 60}
    assert (found["seeds"], found["checkpoint"]) == (2, {"step": 7, "sha256": "abc"})
    for row in found["labels"].values():
        assert set(row) == {"kind", "score", "chance", "variance", "content", "pose"}
        for feature in ("content", "pose"):
            assert set(row[feature]) == {"linear", "mlp"}
            assert all(len(score) == 2 and score[1] >= 0 for score in row[feature].values())
    assert found["labels"]["height"]["variance"] == pytest.approx(50**2 / 12, rel=0.2)


def test_the_result_makes_a_table(found: dict[str, Any]) -> None:
    rows = score_rows(found)
    assert [row[0] for row in rows] == list(found["labels"])
    assert all(len(row) == len(SCORES) for row in rows)


def test_features_of_one_split_cannot_be_probed(planted: Path, tmp_path: Path) -> None:
    (tmp_path / "f.h5").write_bytes(planted.read_bytes())
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        file["split"][:] = ["train"] * CLIPS
    with pytest.raises(
        DataError, match="need clips of both splits, train and test; export them from a data set's folder"
    ):
        probe(tmp_path / "f.h5")
