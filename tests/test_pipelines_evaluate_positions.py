"""Digits drawn again from their clips, and found again where they are."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from drnet.datasets.mnist import COLOURS, BouncingDigits, Overlap
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.evaluation.positions import PositionMeter, locate, position_errors
from drnet.pipelines.evaluation.scenes import DigitScenes, digit_scenes
from drnet.pipelines.source import Collection, open_shards

CLIPS = 40


def scenes_of(out: Path, overlap: Overlap) -> DigitScenes:
    data = BouncingDigits("optdigits", clips=1, test_clips=CLIPS, frames=20, size=32, overlap=overlap)
    build(plan_build(data, "zstd"), out)
    found = digit_scenes(open_shards(out, ["test"]))
    assert found is not None
    return found


@pytest.fixture(scope="module", params=["hide", "add"])
def scenes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> DigitScenes:
    return scenes_of(tmp_path_factory.mktemp("digits") / "data", request.param)


@pytest.fixture(scope="module")
def hiding(tmp_path_factory: pytest.TempPathFactory) -> DigitScenes:
    return scenes_of(tmp_path_factory.mktemp("digits") / "data", "hide")


def test_scenes_are_those_of_the_data_set_at_any_time(scenes: DigitScenes) -> None:
    data = BouncingDigits("optdigits", frames=20, size=32, overlap=scenes.overlap)
    whole = [clip for clip in range(CLIPS) if scenes.scene(clip).whole]
    assert len(whole) >= (0.8 if scenes.overlap == "hide" else 1) * CLIPS
    for clip in whole:
        times = [0, 19, 20, 95, 504]
        truth = data.redraw(scenes.collection.labels(clip), times)
        for time, frame in zip(times, truth, strict=True):
            np.testing.assert_array_equal(scenes.frame(clip, time), frame)


def test_a_swap_is_one_clips_digits_at_the_others_places(scenes: DigitScenes) -> None:
    frame, places = scenes.swapped(3, 8, 100), scenes.positions(8, 100)
    np.testing.assert_array_equal(places, scenes.positions(8, 100 + scenes.period))
    np.testing.assert_array_equal(frame, scenes.drawn(3, places))
    front = scenes.scene(3).front
    x, y = places[front]
    np.testing.assert_array_equal(frame[y : y + 16, x : x + 16, front], scenes.scene(3).digits[front])


def test_a_pixel_that_is_never_seen_makes_a_scene_that_is_not_whole(hiding: DigitScenes) -> None:
    collection = hiding.collection

    class Short(Collection):
        """The first frame alone, in which digits may cover each other."""

        def frames(self, clip: int) -> NDArray[np.uint8]:
            frames = super().frames(clip).copy()
            frames[:, 10:14] = 0
            return frames

    short = DigitScenes(Short(collection.places, collection.manifest))
    assert not any(short.scene(clip).whole for clip in range(CLIPS))


def test_true_drawings_have_no_error(scenes: DigitScenes) -> None:
    steps = (1, 10, 95, 500)
    meter = PositionMeter(scenes, list(range(CLIPS)), [4] * CLIPS, steps, ["predicted"])
    for step in (*steps, 7):
        truth = np.stack([scenes.frame(clip, 4 + step) for clip in range(CLIPS)])
        meter.add(np.arange(CLIPS), step, truth, {"predicted": truth})
    report = meter.report(0)
    assert report["steps"] == [1, 10, 95, 500]
    assert report["clips_drawn_again_exactly"] == sum(scenes.scene(clip).whole for clip in range(CLIPS))
    for row in ("predicted", "truth"):
        found = report["errors"][row]
        assert max(found["error"]["mean"]) < 0.1
        assert max(found["median"]) == 0
        assert max(found["not_found"]) <= 0.025  # behind the other digit


@pytest.mark.parametrize("worse", ["darker", "noisy", "blurred"])
def test_a_worse_drawing_is_found_where_it_is(hiding: DigitScenes, worse: str) -> None:
    draw = np.random.default_rng(0)
    frames = np.stack([hiding.frame(clip, 33) for clip in range(CLIPS)]).astype(float)
    if worse == "darker":
        frames *= 0.4
    elif worse == "noisy":
        frames += draw.normal(0, 12, frames.shape)
    else:
        frames = sum(np.roll(frames, shift, (1, 2)) for shift in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))) / 5
    errors = errors_of(hiding, np.clip(frames, 0, 255).astype(np.uint8), 33)
    assert np.isinf(errors).mean() < 0.05
    assert errors[np.isfinite(errors)].mean() < 0.5


def errors_of(scenes: DigitScenes, frames: NDArray[np.uint8], time: int) -> NDArray[np.float64]:
    """Return the position errors of frames that show all clips, against their places at a time."""
    digits = np.stack([scenes.scene(clip).digits for clip in range(CLIPS)]).astype(np.float32) / 255
    fronts = np.array([scenes.scene(clip).front for clip in range(CLIPS)])
    places = np.stack([scenes.positions(clip, time) for clip in range(CLIPS)])
    return position_errors(frames, digits, fronts, places, scenes.overlap == "hide")


def test_the_error_is_the_distance_to_where_the_digit_must_be(scenes: DigitScenes) -> None:
    now, then = (np.stack([scenes.positions(clip, time) for clip in range(CLIPS)]) for time in (7, 12))
    frames = np.stack([scenes.frame(clip, 12) for clip in range(CLIPS)])
    errors, away = errors_of(scenes, frames, 7), np.linalg.norm(now - then, axis=2)
    assert np.median(np.abs(errors - away)) == 0
    assert np.mean(np.abs(errors - away) < 0.5) > 0.95


@pytest.mark.parametrize("colour", [0, 1])
def test_a_digit_that_is_not_drawn_is_not_found(scenes: DigitScenes, colour: int) -> None:
    frames = np.stack([scenes.frame(clip, 33) for clip in range(CLIPS)])
    frames[..., colour] = 0
    errors = errors_of(scenes, frames, 33)
    assert np.isinf(errors[:, colour]).all()
    behind = np.array([scenes.scene(clip).front != colour for clip in range(CLIPS)])  # the others are left with a hole
    assert np.isfinite(errors[behind, 1 - colour]).mean() > 0.95
    assert np.isinf(errors_of(scenes, np.zeros_like(frames), 33)).all()


def test_even_grey_is_no_digit(scenes: DigitScenes) -> None:
    grey = np.full((CLIPS, 32, 32, 3), 90, np.uint8)
    assert np.isinf(errors_of(scenes, grey, 33)).mean() > 0.95


def test_digits_that_are_lost_are_counted_and_not_averaged(scenes: DigitScenes) -> None:
    meter = PositionMeter(scenes, list(range(CLIPS)), [4] * CLIPS, [3], ["predicted"])
    truth = np.stack([scenes.frame(clip, 7) for clip in range(CLIPS)])
    shown = truth.copy()
    shown[:10] = 0
    meter.add(np.arange(CLIPS), 3, truth, {"predicted": shown})
    found = meter.report(0)["errors"]["predicted"]
    assert found["not_found"][0] == pytest.approx(10 / CLIPS, abs=0.02)
    assert found["error"]["mean"][0] < 0.1


def test_what_is_hidden_may_lie_anywhere_behind(hiding: DigitScenes) -> None:
    digit = np.zeros((1, 4, 4), np.float32)
    digit[0, :, 0] = digit[0, 0] = 1  # an L upside down
    plane, visible = np.zeros((1, 9, 9), np.float32), np.ones((1, 9, 9), np.float32)
    plane[0, 3:7, 2:6] = digit
    plane[0, :, 5:] = visible[0, :, 5:] = 0  # its right end is covered
    found = locate(plane, digit, visible)
    assert found.found.tolist() == [True]
    assert found.places.tolist() == [[2, 3]]


def test_only_bouncing_digits_have_scenes(hiding: DigitScenes) -> None:
    assert digit_scenes(Collection(hiding.collection.places, None)) is None
    assert COLOURS == ("red", "green")


def test_chance_is_the_place_of_another_clip_not_of_the_same_one_later(scenes: DigitScenes) -> None:
    meter = PositionMeter(scenes, [0, 0, 1], [4, 9, 4], [1], ["predicted"])
    meter_of_one = PositionMeter(scenes, [0, 0], [4, 9], [1], ["predicted"])
    assert "other_clip" not in meter_of_one.errors
    truth = np.stack([scenes.frame(clip, start + 1) for clip, start in ((0, 4), (0, 9), (1, 4))])
    meter.add(np.arange(3), 1, truth, {"predicted": truth})
    places = [scenes.positions(clip, time) for clip, time in ((0, 5), (0, 10), (1, 5))]
    away = [np.linalg.norm(places[a] - places[b], axis=1) for a, b in ((2, 0), (2, 1), (0, 2))]
    np.testing.assert_allclose(meter.errors["other_clip"][:, :, 0], away)
