"""The judge of identity: where it looks, what it learns from, and what it says of models whose answers are known."""

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits, draw
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.evaluation import classifier as module
from drnet.pipelines.evaluation.classifier import Classifier, ClassifierConfig, Task, train_classifier
from drnet.pipelines.evaluation.judge import (
    COLUMNS,
    digit_crops,
    identity,
    identity_rows,
    train_judge,
    whole_frame,
)
from drnet.pipelines.looking.dots import Dots
from drnet.pipelines.progress import Silent
from drnet.pipelines.run import load_run
from drnet.pipelines.source import Collection, open_shards
from drnet.predictor import PosePredictor, PredictorConfig

QUICK = ClassifierConfig(steps=120, batch_size=64, width=8)
SIZE = 32
DIGIT = np.zeros((16, 16), np.uint8)
DIGIT[3:13, 5:7] = DIGIT[11:13, 5:11] = 200  # an L
NOTHING = np.zeros_like(DIGIT)


class Planted(nn.Module):
    """A model without weights, whose content and pose are frames, and which decodes one of the two."""

    def __init__(self, shows: str) -> None:
        super().__init__()
        self.shows = shows

    def content_encoder(self, frames: Tensor) -> Tensor:
        return frames

    pose_encoder = content_encoder

    def decode(self, content: Tensor, pose: Tensor) -> Tensor:
        return {"content": content, "pose": pose, "nothing": torch.zeros_like(pose)}[self.shows]


class Stays(PosePredictor):
    """A predictor that expects the last pose for ever."""

    def __init__(self) -> None:
        super().__init__(PredictorConfig())

    def rollout(self, content: Tensor, poses: Tensor, steps: int) -> Iterator[Tensor]:
        yield from (poses[:, -1] for _ in range(steps))


class Notes(Silent):
    """Progress that keeps what is said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits to learn from: 600 train and 120 test clips of 8 frames."""
    folder = tmp_path_factory.mktemp("many") / "data"
    build(plan_build(BouncingDigits("optdigits", clips=600, test_clips=120, frames=8, size=SIZE), "raw", 120), folder)
    return folder


@pytest.fixture(scope="module")
def splits(many: Path) -> tuple[Collection, Collection]:
    return open_shards(many), open_shards(many, ["test"])


@pytest.fixture(scope="module")
def judge(splits: tuple[Collection, Collection]) -> Classifier:
    return train_judge(*splits, config=QUICK)


def measured(model: str, judge: Classifier, held_out: Collection, **settings: Any) -> dict[str, Any]:
    return identity(Planted(model), Stays(), held_out, judge, steps=(1, 3, 30), **settings)  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(x=st.integers(0, 16), y=st.integers(0, 16))
def test_a_digit_is_cut_out_alike_wherever_it_is(x: int, y: int) -> None:
    frames = draw(DIGIT, NOTHING, x, y, 0, 0, 0, SIZE)
    crops = digit_crops(frames[:, None])
    assert crops.shape == (1, 2, 16, 16, 1)
    assert np.array_equal(crops, digit_crops(draw(DIGIT, NOTHING, 8, 8, 0, 0, 0, SIZE)[:, None]))
    assert crops[0, 0].sum() == DIGIT.sum()
    assert not crops[0, 1].any()


def test_each_colour_is_cut_from_its_own_plane_and_haze_elsewhere_does_not_move_the_crop() -> None:
    frame = draw(DIGIT, DIGIT.T.copy(), 0, 0, 16, 16, 0, SIZE)
    red, green = digit_crops(frame[:, None])[0]
    hazy = frame.copy()
    hazy[:, 20:, 20:, 0] += 2
    assert np.array_equal(digit_crops(hazy[:, None])[0, 0], red)
    assert red.sum() == green.sum() == DIGIT.sum()
    assert not np.array_equal(red, green)


def test_the_judge_reads_held_out_digits_and_says_how_well(judge: Classifier) -> None:
    said = judge.to_json()
    assert said["accuracy"] > 0.6  # a tenth by chance; digits hide each other
    assert said["interval"][0] < said["accuracy"] < said["interval"][1]
    assert set(said["accuracy_by_label"]) == {"digit_red", "digit_green"}
    assert said["held_out"] == {"examples": 1920, "clips": 120}
    assert said["classes_seen"] == 10


def test_the_judge_learns_from_the_train_split_alone(splits: tuple[Collection, Collection]) -> None:
    training, held_out = splits
    with pytest.raises(DataError, match="learns from the train split alone"):
        train_judge(held_out, held_out, config=QUICK)
    with pytest.raises(DataError, match="is measured on the test split alone"):
        train_judge(training, training, config=QUICK)


def test_a_model_that_shows_the_contents_frame_keeps_identity(
    judge: Classifier, splits: tuple[Collection, Collection]
) -> None:
    found = measured("content", judge, splits[1])
    for row in (found["swap"], *found["rollout"]):
        assert abs(row["same"] - found["true"]["same"]) < 0.15
        assert row["same"] > row["chance"] + 0.25
        assert row["front"] > row["same"]
    assert found["swap"]["as_pose"] < 0.15


def test_a_model_that_shows_the_poses_frame_loses_identity_in_swaps_to_the_pose(
    judge: Classifier, splits: tuple[Collection, Collection]
) -> None:
    found = measured("pose", judge, splits[1])
    assert found["swap"]["as_pose"] > 0.3
    assert found["swap"]["same"] < 0.15


def test_a_model_that_shows_nothing_is_at_chance(judge: Classifier, splits: tuple[Collection, Collection]) -> None:
    found = measured("nothing", judge, splits[1])
    assert max(found["swap"]["same"], found["rollout"][0]["same"]) < 0.1


def test_true_frames_of_the_same_time_stand_beside_predicted_ones_as_far_as_clips_go(
    judge: Classifier, splits: tuple[Collection, Collection]
) -> None:
    found = measured("content", judge, splits[1], observe=5, clips=40)
    assert [row["step"] for row in found["rollout"]] == [1, 3, 30]
    assert [row["true"] is None for row in found["rollout"]] == [False, False, True]  # of 8 frames the last is step 3
    assert {row["frames"] for row in (found["true"], found["swap"], *found["rollout"])} == {40}
    assert json.loads(json.dumps(found, allow_nan=False))
    assert found == measured("content", judge, splits[1], observe=5, clips=40)
    rows = identity_rows(found)
    assert [row[0] for row in rows] == ["true frames", "swapped", "step 1", "step 3", "step 30"]
    assert {len(row) for row in rows} == {len(COLUMNS)}


def test_a_real_model_that_has_hardly_been_trained_is_near_chance(
    judge: Classifier, splits: tuple[Collection, Collection], trained: Path
) -> None:
    model = load_run(trained)[0]
    predictor = PosePredictor(PredictorConfig(model.config.pose_dim, model.config.content_dim)).eval()
    found = identity(model, predictor, splits[1], judge, steps=(1, 4), clips=20)
    assert max(found["swap"]["same"], found["rollout"][0]["same"]) < 0.25
    assert found["true"]["same"] > 0.3


def test_without_a_predictor_there_is_no_rollout(judge: Classifier, splits: tuple[Collection, Collection]) -> None:
    assert "rollout" not in identity(Planted("content"), None, splits[1], judge)  # type: ignore[arg-type]


def test_clips_too_short_to_observe_are_told(judge: Classifier, splits: tuple[Collection, Collection]) -> None:
    with pytest.raises(DataError, match="8 observed frames"):
        measured("content", judge, splits[1], observe=8)


def test_a_judge_is_kept_and_taken_again_and_another_seed_is_another_judge(
    splits: tuple[Collection, Collection], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ClassifierConfig(steps=3, batch_size=16, width=4)
    first = train_judge(*splits, tmp_path, config=config)
    names = {path.name for path in tmp_path.iterdir()}
    assert len(names) == 2
    frames = splits[1].frames(0)[:, None]
    with monkeypatch.context() as patch:
        patch.setattr(module, "_fit", None)
        again = train_judge(*splits, tmp_path, config=config)
    assert np.array_equal(first.probabilities(frames), again.probabilities(frames))
    assert first.to_json() == again.to_json()
    fresh = train_judge(*splits, None, config=config)
    assert np.array_equal(first.probabilities(frames), fresh.probabilities(frames))
    train_judge(*splits, tmp_path, config=ClassifierConfig(steps=3, batch_size=16, width=4, seed=1))
    assert len(list(tmp_path.iterdir())) == 4


def one_of_each(kept: Path) -> tuple[Path, Path]:
    """The weights and the JSON of the only judge that is kept."""
    (weights,), (facts,) = kept.glob("*.safetensors"), kept.glob("*.json")
    return weights, facts


def test_two_evaluations_at_once_leave_a_judge_that_fits_its_weights(
    splits: tuple[Collection, Collection], tmp_path: Path
) -> None:
    """A GPU does not train to the same bits twice: here another seed plays the other evaluation."""
    first, second = (
        train_judge(*splits, tmp_path / name, config=ClassifierConfig(steps=3, batch_size=16, width=4, seed=seed))
        for seed, name in enumerate("ab")
    )
    (weights, facts), (others, _) = one_of_each(tmp_path / "a"), one_of_each(tmp_path / "b")
    same = others.rename(weights.with_name(weights.name[:22] + others.name[22:]))  # written last, before its JSON
    assert same != weights
    heard = Notes()
    again = train_judge(
        *splits, tmp_path / "a", progress=heard, config=ClassifierConfig(steps=3, batch_size=16, width=4)
    )
    assert heard.lines == []
    frames = splits[1].frames(0)[:, None]
    assert np.array_equal(first.probabilities(frames), again.probabilities(frames))
    assert not np.array_equal(second.probabilities(frames), again.probabilities(frames))
    assert facts.stem == weights.name[:22]


@pytest.mark.parametrize("damage", ["weights", "facts", "gone", "unreadable", "elsewhere"])
def test_a_kept_judge_that_is_damaged_is_trained_again_and_that_is_said(
    damage: str, splits: tuple[Collection, Collection], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path, *_: str) -> Any:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    config = ClassifierConfig(steps=3, batch_size=16, width=4)
    first = train_judge(*splits, tmp_path, config=config)
    weights, facts = one_of_each(tmp_path)
    kept = facts.read_bytes()
    if damage == "weights":
        weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    elif damage == "facts":
        facts.write_text("{}")
    elif damage == "unreadable":
        monkeypatch.setattr(module, "read_json", refused)
    elif damage == "elsewhere":
        facts.write_text(json.dumps(json.loads(kept) | {"sha256": "../" * 21 + "x"}))
    else:
        weights.unlink()
    heard = Notes()
    again = train_judge(*splits, tmp_path, progress=heard, config=config)
    assert len(heard.lines) == 1
    assert "trained again" in heard.lines[0]
    assert "checkpoint" not in heard.lines[0]
    monkeypatch.undo()
    assert facts.read_bytes() == kept
    frames = splits[1].frames(0)[:, None]
    assert np.array_equal(first.probabilities(frames), again.probabilities(frames))
    heard.lines.clear()
    train_judge(*splits, tmp_path, progress=heard, config=config)
    assert not heard.lines


def test_data_whose_frames_show_no_known_thing_has_no_judge(tmp_path: Path) -> None:
    build(plan_build(Dots(8), "raw", 8), tmp_path / "dots")
    dots = open_shards(tmp_path / "dots")
    with pytest.raises(DataError, match=r"'dots'.*mnist, chairs, norb"):
        train_judge(dots, dots)


def test_a_whole_frame_can_be_judged_and_labels_that_are_no_static_category_cannot(
    splits: tuple[Collection, Collection],
) -> None:
    config = ClassifierConfig(steps=2, batch_size=8, width=4)
    front = train_classifier(Task("a frame", ("front",), 1, whole_frame), *splits, config)
    assert front.classes == ("red", "green")
    assert front.probabilities(splits[1].frames(0)[:, None]).shape == (8, 1, 2)
    for labels in (("x_red",), ("nobody",), ("front", "digit_red")):
        with pytest.raises(DataError, match="no static categories"):
            train_classifier(Task("a frame", labels, 1, whole_frame), *splits, config)
