"""Means and intervals over clips."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drnet.pipelines.evaluation.intervals import Bootstrap, as_list


def test_windows_of_one_clip_are_drawn_together() -> None:
    values = np.repeat(np.random.default_rng(0).normal(size=40), 25)[:, None]  # 25 windows of each clip say the same
    together = Bootstrap(np.repeat(np.arange(40), 25), 0).interval(values)
    apart = Bootstrap(np.arange(1000), 0).interval(values)
    assert together.mean == pytest.approx(apart.mean)
    assert (together.high - together.low)[0] > 4 * (apart.high - apart.low)[0]
    assert together.clips.tolist() == [40]


def test_an_interval_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(1).normal(3, 2, (400, 1))
    found = Bootstrap(np.arange(400), 0).interval(values)
    half = 1.96 * values.std() / np.sqrt(400)
    assert found.low[0] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found.high[0] == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    values = np.arange(12.0)[:, None]
    low = [Bootstrap(np.arange(12), seed).interval(values).low[0] for seed in (0, 0, 1)]
    assert low[0] == low[1] != low[2]


def test_one_clip_has_a_mean_and_no_interval() -> None:
    found = Bootstrap([7, 7], 0).interval(np.array([[1.0], [2.0]]))
    assert found.single() == {"mean": 1.5, "low": None, "high": None}


def test_every_step_counts_the_same_in_a_mean_over_steps() -> None:
    values = np.array([[1.0, 5.0], [3.0, np.nan]])  # the second clip ends after one step
    found = Bootstrap([0, 1], 0).mean_interval(values)
    assert found.mean.tolist() == [3.5]  # of the steps' means, 2 and 5
    assert found.clips.tolist() == [2]
    assert found.low <= found.mean <= found.high


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 4), st.floats(-9, 9) | st.just(np.nan)), min_size=1, max_size=30),
    st.integers(0, 3),
)
def test_a_mean_lies_in_its_interval_and_the_interval_among_the_values(
    rows: list[tuple[int, float]], seed: int
) -> None:
    values = np.array([[value] for _, value in rows])
    found = Bootstrap([clip for clip, _ in rows], seed).interval(values)
    known = values[~np.isnan(values)]
    if not len(known):
        assert np.isnan(found.mean[0])
        return
    assert found.mean[0] == pytest.approx(known.mean())
    if found.clips[0] > 1:
        assert known.min() - 1e-9 <= found.low[0] <= found.high[0] <= known.max() + 1e-9
    else:
        assert np.isnan(found.low[0])


def test_numbers_are_short_in_json_and_what_is_not_there_is_null() -> None:
    assert as_list(np.array([1 / 3, np.nan])) == [0.333333, None]
