"""Rows for classifiers: windows of the frames that are there, and a count of what gave none."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted_features import CLASSES, FRAMES, planted

from drnet.datasets.contract import DataError, Label
from drnet.pipelines.evaluation.windows import category, clips_of, groups_of, vectors_of, window_rows

FEATURES = planted()
ALL = np.arange(len(FEATURES.key))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, FRAMES), st.integers(1, 8), st.lists(st.integers(0, 119), min_size=1, max_size=9, unique=True))
def test_windows_are_the_frames_of_their_clips_in_order(window: int, stride: int, numbers: list[int]) -> None:
    clips = np.array(sorted(numbers))
    expected = [
        (clip, start) for clip in clips for start in range(0, FRAMES, stride) if start + window <= FEATURES.length[clip]
    ]
    if not expected:
        with pytest.raises(DataError, match="is longer than every clip"):
            window_rows(FEATURES, "content", "action", clips, window, stride)
        return
    rows = window_rows(FEATURES, "content", "action", clips, window, stride)
    assert rows.clips.tolist() == [clip for clip, _ in expected]
    for vector, (clip, start) in zip(rows.vectors, expected, strict=True):
        assert np.array_equal(vector, FEATURES.content[clip, start : start + window].ravel())
    assert np.array_equal(rows.classes, FEATURES.labels["action"][rows.clips])
    assert float(np.abs(rows.vectors).max()) < 1e5  # no padding
    short = int((FEATURES.length[clips] < window).sum())
    assert dict(rows.left_out) == ({"clips shorter than the window": short} if short else {})


def test_a_label_that_varies_is_told_frame_by_frame_and_windows_in_which_it_changes_are_counted() -> None:
    single = window_rows(FEATURES, "pose", "phase", ALL, 1, 1)
    assert len(single.classes) == FEATURES.length.sum()
    assert dict(single.left_out) == {}
    double = window_rows(FEATURES, "pose", "phase", ALL, 2, 1)
    phase = FEATURES.labels["phase"]
    pairs = [(phase[c, t], phase[c, t + 1]) for c in ALL for t in range(FEATURES.length[c] - 1)]
    assert double.classes.tolist() == [a for a, b in pairs if a == b]
    assert dict(double.left_out) == {"windows in which the label changes": sum(a != b for a, b in pairs)}


def test_a_window_without_a_label_is_counted() -> None:
    action = FEATURES.labels["action"].copy()
    action[3] = -1
    rows = window_rows(replace(FEATURES, labels={**FEATURES.labels, "action": action}), "content", "action", ALL, 4, 4)
    assert 3 not in rows.clips
    assert dict(rows.left_out) == {"windows without label": 1}
    nothing = replace(FEATURES, labels={**FEATURES.labels, "action": np.full(120, -1)})
    with pytest.raises(DataError, match="label 'action' has no value that lasts for a window of 4 frames"):
        window_rows(nothing, "content", "action", ALL, 4, 4)


def test_both_are_content_and_pose_side_by_side() -> None:
    both = vectors_of(FEATURES, "both")
    assert both.shape[-1] == 6
    assert np.array_equal(both[..., :4], FEATURES.content)
    assert np.array_equal(both[..., 4:], FEATURES.pose)


def test_an_autoencoders_empty_content_is_refused_and_its_code_is_not() -> None:
    code = replace(FEATURES, content=FEATURES.content[..., :0])
    with pytest.raises(DataError, match="features 'content' have no numbers in this file; choose 'pose'"):
        vectors_of(code, "content")
    assert np.array_equal(vectors_of(code, "both"), FEATURES.pose)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (
            "acton",
            r"label 'acton' is not in the features \(did you mean 'action'\?\); categories are action, coin, phase",
        ),
        ("zzz", "label 'zzz' is not in the features; categories are action, coin, phase"),
        ("height", "label 'height' is a number, and only categories can be told apart; categories are action"),
    ],
)
def test_only_categories_can_be_told(label: str, message: str) -> None:
    assert category(FEATURES, "action").names == CLASSES
    with pytest.raises(DataError, match=message):
        category(FEATURES, label)


def test_features_without_any_category_say_so() -> None:
    bare = replace(FEATURES, label_types={"height": Label("number", unit="pixel")})
    with pytest.raises(DataError, match="the features have no categories"):
        category(bare, "height")


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("persn", r"group 'persn' is not in the features \(did you mean 'person'\?\); choose clip or a label of whole"),
        ("phase", "group 'phase' varies in time; choose clip or a label of whole clips: action, coin, person, height"),
    ],
)
def test_groups_are_labels_of_whole_clips_or_clips(group: str, message: str) -> None:
    assert groups_of(FEATURES, "person") is FEATURES.labels["person"]
    assert len(set(groups_of(FEATURES, "clip"))) == 120
    with pytest.raises(DataError, match=message):
        groups_of(FEATURES, group)


def test_some_clips_of_a_split_are_drawn_and_always_the_same() -> None:
    assert set(FEATURES.split[clips_of(FEATURES, "train", None)]) == {"train"}
    assert len(clips_of(FEATURES, "train", 1000)) == 60
    drawn = clips_of(FEATURES, "test", 7)
    assert (len(set(drawn)), sorted(drawn)) == (7, drawn.tolist())
    assert set(FEATURES.split[drawn]) == {"test"}
    assert np.array_equal(drawn, clips_of(FEATURES, "test", 7))
