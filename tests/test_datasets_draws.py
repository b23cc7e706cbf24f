"""Random draws: pinned for ever, reached anywhere in constant time, and fair."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drnet.datasets.draws import integers, key_of, permutation, uniforms, words

KEYS = st.integers(0, 2**128 - 1)


def test_the_draws_are_the_recorded_ones() -> None:
    key = key_of("golden", 7, 1.5)
    assert key == 35527165653041553369126342355361130947
    assert words(key, 0, 2).tolist() == [
        [13956538146418761858, 9098086148638405765, 13656991145133160441, 16561194976819646057],
        [8392006076451275649, 9633592401985745350, 11376891274777917376, 1476335044921954388],
    ]
    assert words(key, 10**12, 1).tolist() == [
        [1996466842535429950, 17936817682431734697, 15970213638402880281, 16949842556667758538]
    ]
    assert integers(words(key, 0, 2), 10).tolist() == [[7, 4, 7, 8], [4, 5, 6, 0]]
    assert uniforms(words(key, 0, 1)).tolist() == [
        [0.7565854489362018, 0.4932082383907017, 0.7403469734584334, 0.8977841786411941]
    ]
    assert permutation(key, 12).tolist() == [7, 11, 9, 4, 1, 5, 6, 8, 2, 0, 10, 3]


@given(KEYS, st.integers(0, 10**15), st.integers(1, 9), st.integers(0, 8), st.sampled_from([4, 8, 12]))
def test_any_part_of_the_stream_is_what_the_whole_one_holds(
    key: int, first: int, count: int, skip: int, width: int
) -> None:
    whole = words(key, first, skip + count, width)
    assert np.array_equal(words(key, first + skip, count, width), whole[skip:])
    assert whole.shape == (skip + count, width)


def test_a_far_draw_costs_no_more_than_a_near_one() -> None:
    began = time.perf_counter()
    for step in range(200):
        words(1, 10**12 + step, 1)
    assert time.perf_counter() - began < 2  # seconds; drawing all before would take hours


@pytest.mark.parametrize("width", [1, 2, 6, 7])
def test_a_width_that_would_share_a_block_is_refused(width: int) -> None:
    with pytest.raises(ValueError, match=f"width {width}"):
        words(0, 0, 1, width)


def test_keys_tell_values_types_and_borders_apart() -> None:
    parts = [("a",), ("b",), ("a", "b"), ("ab",), (1,), ("1",), (1.0,), (True,), (1, 1), (11,), ()]
    assert len({key_of(*part) for part in parts}) == len(parts)


@given(KEYS, st.integers(1, 2**31))
def test_integers_are_in_range(key: int, below: int) -> None:
    drawn = integers(words(key, 0, 50), below)
    assert drawn.dtype == np.int64
    assert 0 <= drawn.min() <= drawn.max() < below


def test_the_ends_of_the_range_are_reached_by_the_ends_of_the_words() -> None:
    raw = np.array([0, 2**64 - 1], np.uint64)
    assert integers(raw, 7).tolist() == [0, 6]
    assert integers(raw, 2**31).tolist() == [0, 2**31 - 1]
    assert uniforms(raw).tolist() == [0.0, 1 - 2.0**-53]


@pytest.mark.parametrize("below", [2, 3, 10, 100])
def test_integers_are_roughly_uniform(below: int) -> None:
    counts = np.bincount(integers(words(key_of("fair"), 0, 25_000).reshape(-1), below), minlength=below)
    expected = 100_000 / below
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    assert abs(chi2 - (below - 1)) < 6 * (2 * below) ** 0.5


def test_a_limit_for_each_draw_is_kept() -> None:
    below = np.arange(1, 1001)
    drawn = integers(words(3, 0, 1000)[:, 0], below)
    assert np.all(drawn < below)
    assert drawn[0] == 0
    assert abs(float((drawn / below).mean()) - 0.5) < 0.05


@pytest.mark.parametrize("below", [0, 2**31 + 1])
def test_a_limit_that_is_not_allowed_is_refused(below: int) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[1, 2\*\*31\]"):
        integers(words(0, 0, 1), below)
    with pytest.raises(ValueError, match=r"must lie in \[1, 2\*\*31\]"):
        integers(words(0, 0, 1), np.array([1, 1, 1, below]))


def test_uniforms_are_roughly_uniform() -> None:
    drawn = uniforms(words(key_of("fair"), 0, 25_000)).reshape(-1)
    assert 0 <= drawn.min() < 0.001
    assert 0.999 < drawn.max() < 1
    assert abs(float(drawn.mean()) - 0.5) < 0.005
    assert abs(float(drawn.var()) - 1 / 12) < 0.002


@given(KEYS, st.integers(0, 200))
def test_a_permutation_holds_each_number_once(key: int, size: int) -> None:
    drawn = permutation(key, size)
    assert sorted(drawn.tolist()) == list(range(size))


def test_every_number_comes_to_every_place() -> None:
    counts = np.zeros((5, 5))
    for seed in range(2000):
        counts[np.arange(5), permutation(key_of(seed), 5)] += 1
    assert 320 < counts.min() <= counts.max() < 480  # 400 expected


def test_neighbouring_keys_have_nothing_in_common() -> None:
    first, second = uniforms(words(1, 0, 5000)).reshape(-1), uniforms(words(2, 0, 5000)).reshape(-1)
    assert abs(float(np.corrcoef(first, second)[0, 1])) < 0.03
