"""Rollouts and their differences from the truth, as figures and movies."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from turning_bars import Turntable, frames_of, only

from drnet.datasets.contract import DataError
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.evaluation.frames import HIGHEST
from drnet.pipelines.figures import futures as futures_module
from drnet.pipelines.figures.beside import runs_beside
from drnet.pipelines.figures.difference import difference, difference_figure
from drnet.pipelines.figures.neighbours import neighbours_figure
from drnet.pipelines.figures.page import Picture, to_picture
from drnet.pipelines.figures.rollout import rollout_figure
from drnet.pipelines.figures.scene import Scene, open_scene
from drnet.pipelines.figures.score import decibels, shown
from drnet.pipelines.figures.sheet import Cell, Row, Sheet, page_of
from drnet.pipelines.run import RunError
from drnet.pipelines.train import train
from drnet.predictor import PosePredictor, PredictorConfig

OBSERVE, STEPS = 2, 8  # of digits' clips of 8 frames, whose truth is known beyond their end
BARS = 12  # predicted frames of turning bars, of 12 frames each: the last two have no truth


@pytest.fixture(scope="module")
def scene(trained: Path, digits: Path) -> Scene:
    return open_scene(trained, digits, device="cpu")


@pytest.fixture(scope="module")
def turning_scene(tmp_path_factory: pytest.TempPathFactory, tiny: dict[str, Any]) -> Scene:
    folder = tmp_path_factory.mktemp("turntable")
    build(plan_build(Turntable(), "zstd"), folder / "data")
    train(folder / "data", folder / "run", steps=1, overrides=tiny, device="cpu")
    return open_scene(folder / "run", folder / "data", device="cpu")


@pytest.fixture
def predicting(monkeypatch: pytest.MonkeyPatch) -> PosePredictor:
    """A predictor with random weights, for every run: one that was not trained shows as much of the figures."""
    torch.manual_seed(1)
    predictor = PosePredictor(PredictorConfig(pose_dim=5, content_dim=128, hidden=8, observe=OBSERVE)).eval()
    monkeypatch.setattr(futures_module, "load_predictor", lambda run, device, weights=None: predictor)
    return predictor


def test_a_rollout_shows_the_truth_as_far_as_it_goes(turning_scene: Scene, predicting: PosePredictor) -> None:
    figure = rollout_figure(turning_scene, ["test-001"], columns=4, steps=BARS, copy=True, missing=["MCNet"])
    sheet = only(figure)
    assert figure.numbers["times"] == [1, 2, 5, 8, 11, 14]
    assert figure.numbers["clips"] == [{"clip": "test-001", "first": 1, "true_frames": 12}]
    assert [row.label for row in sheet.rows] == ["truth", "DrNet", "last frame copied", "MCNet"]
    assert sheet.rows[3].words == "not implemented yet"
    clip = np.array(turning_scene.clips.frames(1))
    np.testing.assert_array_equal(frames_of(sheet, 0)[:5], clip[[0, 1, 4, 7, 10]])
    assert sheet.rows[0].cells[5].words == "clip has ended"
    assert all((frame == clip[1]).all() for frame in frames_of(sheet, 2)[2:])
    assert sheet.mark == 2  # between the observed and the predicted columns


def test_more_times_than_fit_side_by_side_go_on_below(turning_scene: Scene, predicting: PosePredictor) -> None:
    at = [1, 2, 3, 6, 9, 12, 13, 14]
    options: dict[str, Any] = {"at": at, "steps": BARS, "missing": ["MCNet"]}
    sheet = only(rollout_figure(turning_scene, ["test-001", "test-002:3"], across=3, **options))
    plain = only(rollout_figure(turning_scene, ["test-001", "test-002:3"], **options))
    whole = [[cell.frame for cell in row.cells if cell.frame is not None] for row in plain.rows]
    of_clip = [row.label for row in sheet.rows].index("MCNet") + 1
    for number in range(2):
        rows = sheet.rows[number * of_clip : (number + 1) * of_clip]
        for label, found in zip(("truth", "DrNet"), whole[3 * number :], strict=False):
            shown = [cell.frame for row in rows if row.label == label for cell in row.cells if cell.frame is not None]
            np.testing.assert_array_equal(shown, found)
        captions = [cell.caption for row in rows for cell in row.cells if cell.caption]
        assert captions == [f"t = {time}" for time in at]  # each once, where the truth has ended too
        assert [bool(row.section) for row in rows] == [True] + [False] * (of_clip - 1)
        assert rows[-1].words == "not implemented yet"
    assert [row.words for row in sheet.rows if "ended" in row.words] == [
        "the clip has ended at t = 12",
        "the clip has ended at t = 10",
    ]
    assert page_of(sheet).width < page_of(plain).width


def test_a_page_shows_large_frames_smaller_and_its_picture_keeps_their_pixels() -> None:
    frame = np.random.default_rng(0).integers(0, 255, (128, 128, 1)).astype(np.uint8)
    page = page_of(Sheet("title", [Row("truth", [Cell(frame, "t = 1")] * 11)], tile=64))
    assert page.width < 990
    picture = to_picture(page)
    assert picture.shape[:2] == (2 * page.height, 2 * page.width)
    first = next(item for item in page.items if isinstance(item, Picture))
    y, x = 2 * first.y, 2 * first.x
    np.testing.assert_array_equal(picture[y : y + 128, x : x + 128, :1], frame)
    assert (first.width, first.height) == (64, 64)


def test_the_truth_of_digits_goes_on_beyond_their_clip(scene: Scene, predicting: PosePredictor) -> None:
    figure = rollout_figure(scene, ["test-00000001:4"], at=[3, 5, 6, 10], steps=STEPS)
    assert figure.numbers["clips"][0]["true_frames"] == OBSERVE + STEPS
    longer = BouncingDigits("optdigits", clips=48, test_clips=16, frames=20, size=32)
    (clip,) = longer.clips("test", 1)
    np.testing.assert_array_equal(frames_of(only(figure), 0), clip.frames[[5, 7, 8, 12]])


def test_the_frames_of_a_rollout_are_those_of_their_time(scene: Scene, predicting: PosePredictor) -> None:
    every = frames_of(only(rollout_figure(scene, ["test-00000001"], columns=STEPS, steps=STEPS)), 1)
    some = frames_of(only(rollout_figure(scene, ["test-00000001"], at=[1, 4, 9], steps=STEPS)), 1)
    np.testing.assert_array_equal(some[1:], [every[2 + 1], every[2 + 6]])
    moving = list(rollout_figure(scene, ["test-00000001"], steps=STEPS, moving=True).sheets)
    assert len(moving) == OBSERVE + STEPS
    np.testing.assert_array_equal([frames_of(sheet, 0)[1] for sheet in moving[OBSERVE:]], every[2:])


def test_drawn_clips_are_observed_where_the_truth_is_long_enough(
    turning_scene: Scene, predicting: PosePredictor
) -> None:
    told = [rollout_figure(turning_scene, rows=6, steps=3, seed=seed).numbers["clips"] for seed in (0, 0, 1)]
    assert told[0] == told[1] != told[2]
    assert {clip["true_frames"] for clip in told[0]} == {OBSERVE + 3}
    assert len({clip["first"] for clip in told[0]}) > 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"at": [11]}, "time 11 is not there; frames are counted from 1 to 10"),
        ({"at": [1]}, "no predicted time is among"),
        ({"steps": 0}, "steps 0 is not allowed"),
        ({"columns": 0}, "columns 0 is not allowed"),
        ({"observe": 9}, "has 8 frames there; 9 must be observed"),
        ({"clips": ["test-00000001:8"]}, "has 1 frames there; 2 must be observed"),
    ],
)
def test_a_wrong_rollout_is_one_line(scene: Scene, predicting: PosePredictor, words: dict[str, Any], said: str) -> None:
    for figure in (rollout_figure, difference_figure):
        with pytest.raises(DataError, match=said):
            figure(scene, **{"steps": STEPS, **words})  # type: ignore[operator]


def test_differences_are_grey_where_frames_are_equal_and_brighter_where_the_truth_is() -> None:
    truth, frame = np.array([[[[0]]], [[[255]]], [[[7]]]], np.uint8), np.array([[[[255]]], [[[0]]], [[[7]]]], np.uint8)
    assert difference(truth, frame).ravel().tolist() == [0, 255, 127]


def test_each_prediction_has_its_psnr_and_its_difference(turning_scene: Scene, predicting: PosePredictor) -> None:
    figure = difference_figure(turning_scene, ["test-001"], columns=4, steps=BARS)
    sheet = only(figure)
    assert figure.numbers["times"] == [5, 8, 11, 14]
    scores = figure.numbers["clips"][0]["scores"]
    clip = np.array(turning_scene.clips.frames(1))
    errors = {str(t): np.square(clip[t - 1].astype(float) - clip[1]).mean() for t in range(3, 13)}  # no truth of 13, 14
    wanted = {time: 10 * np.log10(255**2 / error) for time, error in errors.items()}
    assert scores["last frame copied"]["psnr"] == pytest.approx(wanted, rel=1e-4)
    assert scores["last frame copied"]["mean_psnr"] == pytest.approx(np.mean(list(wanted.values())), rel=1e-4)
    assert f"{wanted['5']:.1f} dB" == sheet.rows[3].cells[1].caption
    np.testing.assert_array_equal(frames_of(sheet, 4)[1], difference(clip[4], clip[1]))
    assert sheet.rows[4].cells[4].words == "clip has ended"
    assert sheet.rows[-1].label == "MCNet"
    assert sheet.rows[-1].words == "not implemented yet"


def test_a_frame_that_equals_the_truth_is_told_so() -> None:
    frame = np.full((1, 32, 32, 1), 9, np.uint8)
    assert decibels(frame, frame) == pytest.approx([HIGHEST])
    assert [shown(value) for value in (*decibels(frame, frame), 20.04, None)] == ["equal", "20.0 dB", "unknown"]


def test_a_movie_of_differences_has_the_numbers_of_the_picture(turning_scene: Scene, predicting: PosePredictor) -> None:
    words: dict[str, Any] = {"clips": ["test-001", "test-002:3"], "steps": BARS}
    moving = difference_figure(turning_scene, moving=True, **words)
    sheets = list(moving.sheets)
    assert len(sheets) == 10  # as far as the longest truth goes
    assert len({page_of(sheet).height for sheet in sheets}) == 1
    assert moving.numbers["clips"] == difference_figure(turning_scene, **words).numbers["clips"]


def test_neighbours_of_generated_frames_are_of_the_predictors_own(scene: Scene, predicting: PosePredictor) -> None:
    shown = only(neighbours_figure(scene, ["test-00000001"], columns=2, predictor=predicting, steps=STEPS))
    rolled = only(rollout_figure(scene, ["test-00000001"], at=[3, 10], steps=STEPS))
    np.testing.assert_array_equal(frames_of(shown, 0), frames_of(rolled, 1))


def test_rows_of_one_name_are_refused(scene: Scene, predicting: PosePredictor) -> None:
    twice = runs_beside([f"DrNet={scene.run}"], (32, 32, 3), scene.device)
    with pytest.raises(DataError, match="two rows of one name are not allowed"):
        rollout_figure(scene, beside=twice)


def test_a_rollout_without_a_predictor_says_how_to_get_one(scene: Scene) -> None:
    with pytest.raises(RunError, match="drnet train-predictor"):
        rollout_figure(scene)
