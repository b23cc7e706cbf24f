"""The truth for swaps, against the data sets' own drawings."""

from pathlib import Path

import numpy as np
import pytest

from drnet.datasets.chairs import Chairs
from drnet.datasets.mnist import BouncingDigits
from drnet.pipelines.build import build, plan_build
from drnet.pipelines.looking.truth import digits_truth, truth_of
from drnet.pipelines.source import Collection, open_shards


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    out = tmp_path_factory.mktemp("digits") / "data"
    build(plan_build(BouncingDigits("optdigits", clips=6, test_clips=4, frames=6, size=32), "zstd"), out)
    return open_shards(out, ["test"])


def test_a_clip_in_its_own_pose_is_itself(digits: Collection) -> None:
    truth = truth_of(digits)
    assert truth is not None
    for clip in range(len(digits)):
        frames = digits.frames(clip)
        for time in range(len(frames)):
            np.testing.assert_array_equal(truth(clip, clip, time), frames[time])


def test_swapped_digits_stand_where_the_other_clip_has_them(digits: Collection) -> None:
    frame = digits_truth(digits, "optdigits")(0, 1, 3)
    labels = digits.labels(1)
    red, green = frame[..., 0], frame[..., 1]
    for plane, colour in ((red, "red"), (green, "green")):
        rows, columns = np.nonzero(plane)
        x, y = labels[f"x_{colour}"][3], labels[f"y_{colour}"][3]
        assert x <= columns.min() <= columns.max() < x + 16
        assert y <= rows.min() <= rows.max() < y + 16


def test_the_contents_own_digit_stays_in_front(digits: Collection) -> None:
    fronts = [digits.labels(clip)["front"] for clip in range(len(digits))]
    content = 0
    pose = next(clip for clip in range(len(digits)) if fronts[clip] != fronts[content])
    data = BouncingDigits("optdigits", clips=6, test_clips=4, frames=6, size=32)
    moved = dict(digits.labels(content))
    for axis in "xy":
        for colour in ("red", "green"):
            moved[f"{axis}_{colour}"] = digits.labels(pose)[f"{axis}_{colour}"]
            moved[f"v{axis}_{colour}"] = digits.labels(pose)[f"v{axis}_{colour}"]
    expected = data.redraw(moved, range(6))
    truth = truth_of(digits)
    assert truth is not None
    for time in range(6):
        np.testing.assert_array_equal(truth(content, pose, time), expected[time])


def test_a_swapped_chair_is_the_same_chair_from_the_other_azimuth(tmp_path: Path) -> None:
    pytest.importorskip("pybullet")
    data = Chairs(clips=2, test_clips=2, size=32, frames=4)
    build(plan_build(data, "zstd"), tmp_path / "data")
    collection = open_shards(tmp_path / "data", ["test"])
    truth = truth_of(collection)
    assert truth is not None
    azimuth = collection.labels(1)["azimuth"][2]
    np.testing.assert_array_equal(truth(0, 1, 2), data.render("test", 0, [azimuth])[0])


def test_where_the_digits_are_not_at_hand_no_truth_is_claimed(digits: Collection) -> None:
    assert truth_of(Collection(digits.places, None)) is None
