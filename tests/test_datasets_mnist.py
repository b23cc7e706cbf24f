"""Bouncing digits: what a clip shows agrees with its labels, and follows from its number alone."""

import hashlib
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drnet.datasets import mnist
from drnet.datasets.contract import Clip, DataError, DataSet, Split
from drnet.datasets.mnist import BouncingDigits, draw, position
from drnet.datasets.reading import digits
from drnet.datasets.scale import scale


def clip_of(dataset: BouncingDigits, index: int, split: Split = "train") -> Clip:
    (clip,) = dataset.clips(split, index)
    return clip


def clips_of(dataset: BouncingDigits, count: int, split: Split = "train") -> Iterator[Clip]:
    for index in range(count):
        yield from dataset.clips(split, index)


def simulated(start: int, velocity: int, steps: int, span: int) -> list[int]:
    """Move one step at a time and turn round at the borders."""
    path = [start]
    for _ in range(steps):
        start += velocity
        if start < 0:
            start, velocity = -start, -velocity
        elif start > span:
            start, velocity = 2 * span - start, -velocity
        path.append(start)
    return path


@given(st.data())
def test_the_closed_form_is_the_motion_step_by_step(data: st.DataObject) -> None:
    span = data.draw(st.integers(1, 64))
    start = data.draw(st.integers(0, span))
    velocity = data.draw(st.integers(-span, span))
    assert position(start, velocity, np.arange(301), span).tolist() == simulated(start, velocity, 300, span)


def test_a_position_thousands_of_steps_away_is_the_simulated_one() -> None:
    assert position(5, -3, 12_345, 32) == simulated(5, -3, 12_345, 32)[-1]


def test_a_span_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="span 0"):
        position(0, 1, 1, 0)


def square(side: int, value: int) -> np.ndarray:
    return np.full((side, side), value, np.uint8)


@pytest.mark.parametrize("front", [0, 1])
def test_the_front_digit_hides_the_other(front: int) -> None:
    clip = draw(square(8, 200), square(8, 100), [4], [4], [8], [6], front=front, size=16)
    assert clip.shape == (1, 16, 16, 3)
    red, green, blue = np.moveaxis(clip[0], -1, 0)
    expected_red, expected_green = np.zeros((2, 16, 16), int)
    expected_red[4:12, 4:12], expected_green[6:14, 8:16] = 200, 100
    both = (expected_red > 0) & (expected_green > 0)
    (expected_green if front == 0 else expected_red)[both] = 0
    assert both.sum() == 24
    assert np.array_equal(red, expected_red)
    assert np.array_equal(green, expected_green)
    assert not blue.any()


@pytest.mark.parametrize("front", [0, 1])
def test_the_other_digit_is_seen_through_the_dark_parts_of_the_front_one(front: int) -> None:
    ring = square(8, 50)
    ring[2:6, 2:6] = 0
    pair = [square(8, 90), square(8, 90)]
    pair[front] = ring
    clip = draw(pair[0], pair[1], [0], [0], [0], [0], front=front, size=16)[0, :8, :8]
    assert np.array_equal(clip[..., front], ring)
    assert np.array_equal(clip[..., 1 - front], np.where(ring > 0, 0, 90))


def test_added_digits_keep_both_planes_whole() -> None:
    clips = [draw(square(8, 9), square(8, 7), [0], [0], [2], [1], front, 16, overlap="add") for front in (0, 1)]
    assert np.array_equal(clips[0], clips[1])
    assert (clips[0][0, :8, :8, 0] == 9).all()
    assert (clips[0][0, 1:9, 2:10, 1] == 7).all()
    assert clips[0].astype(int).sum() == 64 * 16


@pytest.mark.parametrize("x", [-1, 9])
def test_a_digit_outside_the_frame_is_refused(x: int) -> None:
    with pytest.raises(ValueError, match=r"lie in \[0, 8\]"):
        draw(square(8, 1), square(8, 1), [x], [0], [0], [0], front=0, size=16)


@pytest.fixture(scope="module")
def optdigits() -> BouncingDigits:
    return BouncingDigits("optdigits", clips=600)


def test_the_data_set_keeps_the_builders_contract(optdigits: BouncingDigits) -> None:
    assert isinstance(optdigits, DataSet)
    assert (optdigits.count("train"), optdigits.count("test")) == (600, 60)
    assert optdigits.frame_shape() == (64, 64, 3)
    names = [optdigits.item(split, index) for split in ("train", "test") for index in range(optdigits.count(split))]
    assert len(set(names)) == 660
    assert names[:600] == sorted(names[:600])
    assert json.loads(json.dumps(optdigits.parameters()))["source"] == "optdigits"
    with pytest.raises(IndexError):
        clip_of(optdigits, 600)


def test_the_default_build_is_10000_train_and_1000_test_clips() -> None:
    dataset = BouncingDigits()
    assert (dataset.count("train"), dataset.count("test")) == (10_000, 1_000)
    assert BouncingDigits(clips=5).count("test") == 1


def test_labels_are_plain_json_of_the_declared_kinds(optdigits: BouncingDigits) -> None:
    for clip in clips_of(optdigits, 50):
        assert json.loads(json.dumps(clip.labels)) == clip.labels
        assert clip.labels.keys() == optdigits.labels.keys() | {"file", "content"}
        for name, label in optdigits.labels.items():
            value = clip.labels[name]
            values = value if label.varying else [value]
            assert len(values) == (20 if label.varying else 1)
            assert all(type(item) is int for item in values)
            assert label.kind == "number" or 0 <= value < len(label.names)


@pytest.mark.parametrize(("size", "overlap"), [(32, "hide"), (64, "hide"), (64, "add"), (128, "hide")])
def test_labels_alone_draw_a_clip_again(size: int, overlap: Any) -> None:
    dataset = BouncingDigits("optdigits", clips=10, test_clips=10, size=size, overlap=overlap)
    for split in ("train", "test"):
        for clip in clips_of(dataset, 10, split):
            assert clip.frames.shape == (20, size, size, 3)
            assert clip.frames.dtype == np.uint8
            stored = json.loads(json.dumps(clip.labels))
            assert np.array_equal(dataset.redraw(stored, range(20)), clip.frames)


def test_a_redrawn_clip_continues_the_stored_one(optdigits: BouncingDigits) -> None:
    longer = BouncingDigits("optdigits", clips=600, frames=500)
    stored, truth = clip_of(optdigits, 3), clip_of(longer, 3)
    assert np.array_equal(optdigits.redraw(stored.labels, range(500)), truth.frames)
    assert np.array_equal(optdigits.redraw(stored.labels, [450]), truth.frames[450:451])


def test_labels_of_another_source_are_not_drawn(optdigits: BouncingDigits) -> None:
    labels = dict(clip_of(optdigits, 0).labels)
    with pytest.raises(DataError, match="optdigits-train"):
        BouncingDigits(None).redraw(labels, range(2))


def test_labels_say_what_is_seen(optdigits: BouncingDigits) -> None:
    images, names = digits.load("optdigits", "train")
    for clip in clips_of(optdigits, 40):
        front = mnist.COLOURS[clip.labels["front"]]
        channel, ink = clip.labels["front"], scale(images[[clip.labels[f"index_{front}"]]], 32, 32)[0]
        assert clip.labels[f"digit_{front}"] == names[clip.labels[f"index_{front}"]]
        for frame, x, y in zip(clip.frames, clip.labels[f"x_{front}"], clip.labels[f"y_{front}"], strict=True):
            assert np.array_equal(frame[y : y + 32, x : x + 32, channel], ink)
            assert int(frame[..., channel].sum()) == int(ink.sum()), "nothing else is of that colour"


def test_a_clip_depends_on_its_number_alone(optdigits: BouncingDigits) -> None:
    for index in (0, 31, 32, 130):
        clip = clip_of(optdigits, index)
        other = clip_of(BouncingDigits("optdigits", clips=131, frames=7), index)
        assert np.array_equal(other.frames, clip.frames[:7])
        assert other.key == clip.key
        static = [name for name, label in optdigits.labels.items() if not label.varying]
        assert [other.labels[name] for name in static] == [clip.labels[name] for name in static]


def test_another_seed_or_split_gives_other_clips(optdigits: BouncingDigits) -> None:
    first = clip_of(optdigits, 0).frames
    assert not np.array_equal(first, clip_of(BouncingDigits("optdigits", clips=600, seed=1), 0).frames)
    assert not np.array_equal(first, clip_of(optdigits, 0, "test").frames)


def test_the_first_clip_is_pinned(optdigits: BouncingDigits) -> None:
    """Other values here mean other bytes for the same parameters: raise the version in `About`."""
    clip = clip_of(optdigits, 0)
    static = [clip.labels[name] for name, label in optdigits.labels.items() if not label.varying]
    assert static == [7, -2, -4, 523, 2, -3, 1, 57, 1]
    assert clip.labels["x_red"][:12] == [20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0, 2]
    assert (
        hashlib.sha256(clip.frames.tobytes()).hexdigest()
        == "216c03831f972274acfc827a211fe5e7e86a73638cdffbc8d4e902d287d9b939"
    )


@pytest.mark.parametrize(("size", "fastest"), [(32, 2), (64, 4), (128, 8)])
def test_starts_and_velocities_fill_their_range_and_no_digit_stands_still(size: int, fastest: int) -> None:
    dataset = BouncingDigits("optdigits", clips=3000, size=size, frames=1)
    facts = [clip.labels for clip in clips_of(dataset, 3000)]
    for colour in mnist.COLOURS:
        velocities = {(row[f"vx_{colour}"], row[f"vy_{colour}"]) for row in facts}
        assert (0, 0) not in velocities
        assert len(velocities) == (2 * fastest + 1) ** 2 - 1, "every other pair is drawn"
        assert max(max(map(abs, pair)) for pair in velocities) == fastest
        assert {row[f"x_{colour}"][0] for row in facts} == set(range(size // 2 + 1))
        assert {row[f"digit_{colour}"] for row in facts} == set(range(10))
    assert 0.46 < np.mean([row["front"] for row in facts]) < 0.54


def test_the_two_digits_move_independently(optdigits: BouncingDigits) -> None:
    rows = [clip.labels for clip in clips_of(optdigits, 600)]
    columns = [name for name in rows[0] if name[0] in "xyv" or name.startswith("digit")] + ["front"]
    table = np.array([[np.ravel(row[name])[0] for name in columns] for row in rows], float)
    correlation = np.corrcoef(table.T) - np.eye(len(columns))
    assert np.abs(correlation).max() < 0.2


def test_train_shows_training_digits_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every training image is of one value and every test image of another, so a stray one would be seen."""
    pools = {
        "train": (np.full((50, 28, 28), 200, np.uint8), np.zeros(50, np.uint8)),
        "test": (np.full((20, 28, 28), 100, np.uint8), np.ones(20, np.uint8)),
    }
    monkeypatch.setattr(digits, "load", lambda source, split: pools[split])
    dataset = BouncingDigits("/invented", clips=100, test_clips=100, frames=2)
    for split, value, digit, file in (
        ("train", 200, 0, "train-images-idx3-ubyte"),
        ("test", 100, 1, "t10k-images-idx3-ubyte"),
    ):
        for clip in clips_of(dataset, 100, split):
            assert np.unique(clip.frames).tolist() == [0, value]
            assert clip.labels["digit_red"] == clip.labels["digit_green"] == digit
            assert clip.labels["file"] == file
            assert max(clip.labels["index_red"], clip.labels["index_green"]) < len(pools[split][0])


def test_content_is_equal_only_where_the_pair_and_its_front_are(optdigits: BouncingDigits) -> None:
    names = ("file", "index_red", "index_green", "front")
    splits: tuple[tuple[Split, int], ...] = (("train", 600), ("test", 60))
    rows = [clip.labels for split, count in splits for clip in clips_of(optdigits, count, split)]
    assert len({row["content"] for row in rows}) == len({tuple(row[name] for name in names) for row in rows})


def test_a_data_set_travels_to_a_worker_in_under_four_kilobytes(optdigits: BouncingDigits) -> None:
    clip = clip_of(optdigits, 5)
    data = pickle.dumps(optdigits)
    assert len(data) < 4096
    again = clip_of(pickle.loads(data), 5)  # noqa: S301 - made one line above
    assert np.array_equal(again.frames, clip.frames)
    assert again.labels == clip.labels


def test_a_relative_source_still_holds_in_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = BouncingDigits("here")
    assert dataset.source == str(tmp_path / "here")
    assert str(tmp_path) not in json.dumps(dataset.parameters())
    with pytest.raises(DataError, match="is not a folder"):
        dataset.sources()


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"clips": 0}, "clips 0 is not allowed; it must be at least 1"),
        ({"test_clips": -1}, "test-clips -1 is not allowed"),
        ({"frames": 0}, "frames 0 is not allowed"),
        ({"seed": -1}, "seed -1 is not allowed"),
        ({"size": 60}, "size 60 is not allowed; it must be a multiple of 16"),
        ({"size": 0}, "size 0 is not allowed"),
        ({"overlap": "mix"}, "overlap 'mix' is not allowed; it must be 'hide' or 'add'"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(setting: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as caught:
        BouncingDigits("optdigits", **setting)
    assert expected in str(caught.value)
