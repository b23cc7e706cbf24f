"""The Inception Score: windows at the right offsets, a classifier that is shown, and scores of known generators."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from drnet.datasets.contract import About, Clip, DataError, Label, SourceFile, Split
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.evaluation.classifier import Classifier, ClassifierConfig
from drnet.pipelines.evaluation.inception import (
    COLUMNS,
    OURS,
    SAME,
    TASK,
    TRUE,
    concatenated,
    inception,
    inception_rows,
    train_action_classifier,
)
from drnet.pipelines.evaluation.inception_pictures import save_scores
from drnet.pipelines.source import Collection, open_shards
from drnet.predictor import PosePredictor, PredictorConfig

ACTIONS = ("falling", "rising", "blinking")
SIDE, FRAMES = 16, 24
QUICK = ClassifierConfig(steps=200, batch_size=32, width=8, mirrored=True)


class Actions:
    """Bars that fall, rise or blink; the first clip of the test split has 12 frames only."""

    about = About("actions", 1, "bars", "MIT", "drnet", "bar", "bar")
    labels: Mapping[str, Label] = {"action": Label("category", names=ACTIONS), "bar": Label("number", unit="id")}

    def parameters(self) -> dict[str, Any]:
        return {}

    def sources(self) -> list[SourceFile]:
        return []

    def frame_shape(self) -> tuple[int, int, int]:
        return SIDE, SIDE, 1

    def count(self, split: Split) -> int:
        return 36 if split == "train" else 12

    def item(self, split: Split, index: int) -> str:
        return f"{split}-{index:03d}"

    def clips(self, split: Split, index: int) -> Iterator[Clip]:
        action = index % 3
        draw = np.random.default_rng([index, split == "test"])
        length = 12 if split == "test" and not index else FRAMES
        frames = draw.integers(0, 40, (length, SIDE, SIDE, 1)).astype(np.uint8)
        at, left = draw.integers(SIDE), draw.integers(SIDE - 4)
        for time in range(length):
            row = (at + (time, -time, 0)[action]) % SIDE
            if action < 2 or time % 2:
                frames[time, row, left : left + 4] = 255
        yield Clip(self.item(split, index), frames, {"action": action, "bar": index + 1000 * (split == "test")})


class Counting(nn.Module):
    """A model that decodes the number of the step, or always the last observed frame."""

    def __init__(self, frozen: bool = False) -> None:
        super().__init__()
        self.frozen = frozen

    def content_encoder(self, frames: Tensor) -> Tensor:
        return frames

    def pose_encoder(self, frames: Tensor) -> Tensor:
        return torch.zeros(len(frames), 1)

    def decode(self, content: Tensor, pose: Tensor) -> Tensor:
        return content if self.frozen else torch.ones_like(content) * pose[:, :, None, None] / 255


class Counts(PosePredictor):
    """A predictor whose pose is the number of the step."""

    def __init__(self) -> None:
        super().__init__(PredictorConfig())

    def rollout(self, content: Tensor, poses: Tensor, steps: int) -> Iterator[Tensor]:
        yield from (torch.full_like(poses[:, -1], step) for step in range(1, steps + 1))


class Recorder:
    """Stands where the classifier does, is sure of the first action, and keeps what it was shown."""

    task, classes = TASK, ACTIONS

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        self.seen.append(frames)
        return np.eye(3)[np.zeros(len(frames), int)][:, None]

    def to_json(self) -> dict[str, Any]:
        return {}


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Collection, Collection]:
    folder = tmp_path_factory.mktemp("actions") / "data"
    build(plan_build(Actions(), "raw", 12), folder)
    return open_shards(folder), open_shards(folder, ["test"])


@pytest.fixture(scope="module")
def classifier(splits: tuple[Collection, Collection]) -> Classifier:
    return train_action_classifier(*splits, config=QUICK)


def test_frames_are_concatenated_along_the_channels_in_order() -> None:
    frames = np.arange(2 * 10 * 4 * 4 * 3).reshape(2, 10, 4, 4, 3).astype(np.uint8)
    joined = concatenated(frames)
    assert joined.shape == (2, 1, 4, 4, 30)
    assert np.array_equal(joined[1, 0, ..., 12:15], frames[1, 4])


def test_the_classifier_tells_held_out_actions_and_is_shown_with_its_accuracy(classifier: Classifier) -> None:
    said = classifier.to_json()
    assert said["accuracy"] > 0.9
    assert said["classes"] == list(ACTIONS)
    assert said["origin"]["window"] == 10
    assert said["held_out"]["clips"] == 12
    assert said["held_out"]["examples"] == 11 * 15 + 3  # every place of a window of 10 in 24 and in 12 frames


def test_true_frames_score_nearly_as_many_as_there_are_actions_and_frozen_ones_less(
    splits: tuple[Collection, Collection], classifier: Classifier
) -> None:
    found = inception(Counting(frozen=True), Counts(), splits[1], classifier, observe=4, offsets=(1, 6))  # type: ignore[arg-type]
    true, ours = found["rows"][TRUE], found["rows"][OURS]
    assert true[0]["score"] > 2.3
    assert true[0]["right"] > 0.9
    assert ours[0]["score"] < true[0]["score"] - 0.5
    assert ours[0]["right"] < 0.75
    assert 0 <= true[0]["error"] < 0.5
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_mcnet_has_a_row_that_says_it_is_not_implemented(splits: tuple[Collection, Collection]) -> None:
    found = inception(None, None, splits[1], Recorder(), observe=4, offsets=(1,))  # type: ignore[arg-type]
    assert found["rows"]["MCNet"] == "not implemented"
    assert "no predictor" in found["rows"][OURS]
    rows = inception_rows(found)
    assert [row[0] for row in rows] == [TRUE, OURS, "MCNet"]
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert rows[0][4:6] == [
        "27.3%",
        "36.4%",
    ]  # always told to be the first action, of 3 of 11 clips that are long enough


def test_the_most_frequent_class_of_the_held_out_examples_stands_beside_the_accuracy(classifier: Classifier) -> None:
    said = classifier.to_json()
    windows = [15 - 12 * (not clip) for clip in range(12)]  # the first clip has 12 frames only
    shares = {name: sum(windows[number::3]) / sum(windows) for number, name in enumerate(ACTIONS)}
    assert said["most_frequent"]["share"] == pytest.approx(max(shares.values()))
    assert shares[said["most_frequent"]["class"]] == max(shares.values())


def test_real_and_predicted_frames_are_scored_on_the_same_windows_too(splits: tuple[Collection, Collection]) -> None:
    shown = Recorder()
    found = inception(Counting(frozen=True), Counts(), splits[1], shown, observe=4, offsets=(1, 11, 12), stride=5)  # type: ignore[arg-type]
    true, same, whole = (found["rows"][name] for name in (TRUE, OURS + SAME, OURS))
    counts = [[(row["windows"], row["clips"], row["frequent"]) for row in rows] for rows in (true, same)]
    assert counts[0] == counts[1]
    assert [row["windows"] for row in same] == [33, 11, 0]
    assert [row["windows"] for row in whole] == [46, 46, 46]  # 11 clips of 4 starts, and 2 of the short clip
    assert [row["right"] for row in same[:2]] == [row["right"] for row in true[:2]]  # it always tells the same


def test_the_picture_of_scores_shows_both_rows_of_the_model(tmp_path: Path) -> None:
    def row(score: float, windows: int) -> dict[str, Any]:
        return {"score": score, "error": 0.1, "windows": windows}

    rows = {TRUE: [row(2.0, 9), row(1.0, 1)], OURS + SAME: [row(1.9, 9), row(1.0, 1)], OURS: [row(1.8, 9), row(1.5, 9)]}
    sheets = []
    for number, shown in enumerate(
        (rows, {name: rows[name] for name in (TRUE, OURS)}, rows | {TRUE: [row(2.0, 9)] * 2})
    ):
        save_scores(
            tmp_path / f"{number}.png", {"offsets": [1, 11], "window": 10, "rows": shown | {"MCNet": "not there"}}
        )
        with Image.open(tmp_path / f"{number}.png") as picture:
            sheets.append(np.asarray(picture.convert("L")))
    assert all(sheet.std() > 10 for sheet in sheets)
    assert not any(np.array_equal(sheets[0], other) for other in sheets[1:])


def test_the_offset_is_counted_from_the_last_observed_frame(splits: tuple[Collection, Collection]) -> None:
    shown = Recorder()
    inception(Counting(), Counts(), splits[1], shown, observe=4, offsets=(1, 7), stride=99)  # type: ignore[arg-type]
    near, far, first, second = shown.seen  # true ones, then predicted ones
    clip = splits[1].frames(1)
    assert len(near) == 11  # the clip of 12 frames ends before the window does
    assert np.array_equal(near[0], clip[4:14])
    assert np.array_equal(far[0], clip[10:20])
    assert first.shape[:2] == (12, 10)
    assert first[:, :, 0, 0, 0].tolist() == [list(range(1, 11))] * 12
    assert second[:, :, 0, 0, 0].tolist() == [list(range(7, 17))] * 12


def test_clips_that_end_before_the_window_are_counted_out_and_none_left_gives_no_number(
    splits: tuple[Collection, Collection],
) -> None:
    found = inception(None, None, splits[1], Recorder(), observe=4, offsets=(1, 11, 12), stride=5)  # type: ignore[arg-type]
    counts = [(row["windows"], row["clips"]) for row in found["rows"][TRUE]]
    assert counts == [(33, 11), (11, 11), (0, 0)]  # starts 0, 5 and 10 of 24 frames; 4 + 10 + 10 = 24
    assert found["rows"][TRUE][2]["score"] is None
    assert found["rows"][TRUE][0]["score"] == pytest.approx(1)  # sure, and always of the same action
    assert found["rows"][TRUE][0]["right"] == pytest.approx(3 / 11, abs=0.1)


class Two(Actions):
    """Of two test clips one is long enough for a true window behind the observed frames."""

    def count(self, split: Split) -> int:
        return 2


def test_a_lone_window_has_no_score(tmp_path: Path) -> None:
    build(plan_build(Two(), "raw", 2), tmp_path / "data")
    held_out = open_shards(tmp_path / "data", ["test"])
    found = inception(Counting(frozen=True), Counts(), held_out, Recorder(), observe=4, offsets=(1,), stride=99)  # type: ignore[arg-type]
    lone, same, whole = (found["rows"][name][0] for name in (TRUE, OURS + SAME, OURS))
    assert [row["windows"] for row in (lone, same, whole)] == [1, 1, 2]
    assert [row["score"] for row in (lone, same, whole)] == [None, None, pytest.approx(1)]
    assert lone["error"] is None
    assert lone["right"] == 0  # it shows the second action, and is told to be the first
    assert [row[2] for row in inception_rows(found)[:3]] == ["-", "-", "1.000"]
    save_scores(tmp_path / "scores.png", found)


@pytest.mark.parametrize("wrong", [{"offsets": ()}, {"offsets": (0, 1)}, {"stride": 0}])
def test_offsets_and_stride_from_1_are_allowed(wrong: dict[str, Any], splits: tuple[Collection, Collection]) -> None:
    with pytest.raises(DataError, match="at least 1"):
        inception(None, None, splits[1], Recorder(), **wrong)  # type: ignore[arg-type]


def test_clips_without_room_to_predict_are_told(splits: tuple[Collection, Collection]) -> None:
    with pytest.raises(DataError, match="24 observed frames"):
        inception(None, None, splits[1], Recorder(), observe=24)  # type: ignore[arg-type]


def test_data_without_actions_has_no_classifier(digits: Path) -> None:
    with pytest.raises(DataError, match="no static categories action"):
        train_action_classifier(open_shards(digits), open_shards(digits, ["test"]), config=QUICK)


def test_clips_shorter_than_a_window_are_told(splits: tuple[Collection, Collection]) -> None:
    from drnet.pipelines.evaluation.classifier import Task, train_classifier

    with pytest.raises(DataError, match="30 frames in a row"):
        train_classifier(Task("long", ("action",), 30, concatenated), *splits, QUICK)
