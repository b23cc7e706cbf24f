"""Scores on codes and probabilities whose true values are known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from drnet.scores import (
    BINS,
    above_chance,
    binned,
    classes_of,
    completeness,
    disentanglement,
    forest,
    gap,
    inception_score,
    information,
    jackknife,
    share_interval,
    told,
)

ROWS, FIT = 1200, 900


def planted() -> tuple[np.ndarray, list[np.ndarray]]:
    """A code of five numbers: three of them are a factor each (a class, a number, a number), two are noise."""
    draw = np.random.default_rng(0)
    code = draw.normal(size=(ROWS, 5))
    kind = draw.integers(0, 6, ROWS)
    code[:, 1] = kind + 0.01 * draw.normal(size=ROWS)
    return code, [kind, code[:, [3]] ** 3, -code[:, [4]]]


def rotated(code: np.ndarray) -> np.ndarray:
    return code @ np.linalg.qr(np.random.default_rng(1).normal(size=(5, 5)))[0]


def shuffled(code: np.ndarray) -> np.ndarray:
    return np.random.default_rng(2).permutation(code)


def dci(code: np.ndarray, factors: list[np.ndarray]) -> tuple[float, float, float]:
    found = [forest(code[:FIT], values[:FIT], code[FIT:], 0) for values in factors]
    importance = np.stack([weights for weights, _ in found], 1)
    scores = [told(guess, values[FIT:]) for (_, guess), values in zip(found, factors, strict=True)]
    return disentanglement(importance), float(completeness(importance).mean()), float(np.mean(scores))


def mean_gap(code: np.ndarray, factors: list[np.ndarray]) -> float:
    return float(np.mean([gap(*information(code, values)) for values in factors]))


def test_a_code_whose_numbers_are_the_factors_scores_near_1_in_all_of_dci() -> None:
    assert min(dci(*planted())) > 0.93


def test_the_same_code_rotated_is_as_informative_for_a_linear_reader_but_disentangled_no_more() -> None:
    code, factors = planted()
    apart, whole, informed = dci(rotated(code), factors)
    assert max(apart, whole) < 0.4
    assert informed > 0.5


def test_a_code_that_knows_nothing_scores_near_0_in_all_of_dci() -> None:
    code, factors = planted()
    apart, whole, informed = dci(shuffled(code), factors)
    assert max(apart, whole) < 0.12
    assert informed < 0.15  # a sixth of the guesses of a class are right; R2 is about 0


def test_dci_of_importances_by_hand() -> None:
    two_for_one = np.array([[0.5, 0.0], [0.5, 0.0], [0.0, 1.0]])  # two numbers share a factor: apart, not complete
    assert disentanglement(two_for_one) == pytest.approx(1)
    assert completeness(two_for_one) == pytest.approx([1 - math.log(2, 3), 1])
    one_for_two = np.array([[1.0, 1.0], [0.0, 0.0]])  # one number serves both factors: complete, not apart
    assert disentanglement(one_for_two) == pytest.approx(0)
    assert completeness(one_for_two) == pytest.approx([1, 1])
    half = np.array([[0.9, 0.3], [0.1, 0.7]])
    rows = [1 + sum(p * math.log2(p) for p in pair) for pair in ((0.75, 0.25), (0.125, 0.875))]
    assert disentanglement(half) == pytest.approx((1.2 * rows[0] + 0.8 * rows[1]) / 2)


@settings(max_examples=50, deadline=None)
@given(arrays.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.floats(0, 1)))
def test_dci_of_any_importances_lies_between_0_and_1_whatever_the_order_of_numbers(importance: np.ndarray) -> None:
    apart, whole = disentanglement(importance), completeness(importance)
    assert -1e-9 <= apart <= 1 + 1e-9
    assert ((whole >= -1e-9) & (whole <= 1 + 1e-9)).all()
    assert disentanglement(importance[::-1]) == pytest.approx(apart, abs=1e-9)


def test_forests_are_the_same_with_the_same_seed() -> None:
    code, factors = planted()
    for values in factors[:2]:
        first, again, other = (forest(code[:FIT], values[:FIT], code[FIT:], seed) for seed in (0, 0, 1))
        assert np.array_equal(first[0], again[0])
        assert np.array_equal(first[1], again[1])
        assert not np.array_equal(first[0], other[0])


def test_a_code_of_no_numbers_is_refused_by_the_forest() -> None:
    with pytest.raises(ValueError, match="no numbers"):
        forest(np.zeros((10, 0)), np.arange(10) % 2, np.zeros((2, 0)), 0)


def test_mig_is_near_1_for_factors_as_numbers_low_when_rotated_and_near_0_for_noise() -> None:
    code, factors = planted()
    assert mean_gap(code, factors) > 0.85
    assert mean_gap(rotated(code), factors) < 0.2
    assert mean_gap(shuffled(code), factors) < 0.03


def test_mig_is_0_where_two_numbers_tell_the_same_and_1_where_a_lone_number_tells_all() -> None:
    kind = np.arange(400) % 4
    twice = np.stack([kind, 3 - kind], 1).astype(float)
    assert gap(*information(twice, kind)) == pytest.approx(0)
    assert gap(*information(twice[:, :1], kind)) == pytest.approx(1, abs=0.02)
    assert math.isnan(gap(*information(twice, np.zeros(400, int))))


def test_information_is_in_nats_and_without_the_bias_of_a_finite_sample() -> None:
    draw = np.random.default_rng(0)
    kind = draw.integers(0, 8, 4000)
    code = np.stack([kind % 2, draw.normal(size=4000)], 1).astype(float)
    found, entropy = information(code, kind)
    assert entropy == pytest.approx(math.log(8), abs=0.01)
    assert found[0] == pytest.approx(math.log(2), abs=0.01)
    assert found[1] < 0.006  # the plain estimate is about 19 * 7 / 8000 = 0.017


def test_bins_hold_equally_many_and_angles_lie_in_arcs() -> None:
    assert np.bincount(binned(np.random.default_rng(0).normal(size=2000))).tolist() == [100] * BINS
    ties = binned(np.array([1.0, 1, 1, 2]))
    assert ties[0] == ties[1] == ties[2] < ties[3]
    degrees = np.array([0.0, 17.9, 18.1, 359.9])
    angle = np.stack([np.sin(np.radians(degrees)), np.cos(np.radians(degrees))], 1)
    assert classes_of(angle).tolist() == [0, 0, 1, BINS - 1]
    with pytest.raises(ValueError, match="3 columns"):
        classes_of(np.zeros((4, 3)))


def test_a_wrapping_number_is_one_factor_for_forest_and_information() -> None:
    draw = np.random.default_rng(0)
    turn = draw.uniform(0, 2 * np.pi, 1200)
    angle = np.stack([np.sin(turn), np.cos(turn)], 1)
    code = np.stack([turn, draw.normal(size=1200)], 1)
    weights, guesses = forest(code[:900], angle[:900], code[900:], 0)
    assert weights[0] > 0.97
    assert told(guesses, angle[900:]) > 0.95
    assert gap(*information(code, angle)) > 0.8  # bins and arcs begin at other places


def test_a_score_is_placed_between_chance_and_the_best() -> None:
    assert above_chance(0.55, 0.1) == pytest.approx(0.5)
    assert above_chance(0.4, 0.1, 0.7) == pytest.approx(0.5)
    assert above_chance(-3, 0) == 0
    assert above_chance(0.9, 0.1, 0.7) == 1
    assert math.isnan(above_chance(0.2, 0.3, 0.3))


def test_the_inception_score_of_probabilities_made_by_hand() -> None:
    assert inception_score(np.full((12, 6), 1 / 6)) == pytest.approx(1)
    assert inception_score(np.eye(6)[np.arange(12) % 6]) == pytest.approx(6)
    assert inception_score(np.eye(6)[np.zeros(12, int)]) == pytest.approx(1)  # sure, and always of the same class
    pair = np.array([[0.9, 0.1], [0.1, 0.9]])  # p(y) = 1/2: each row's divergence is ln 2 - H(0.9)
    divergence = math.log(2) + 0.9 * math.log(0.9) + 0.1 * math.log(0.1)
    assert inception_score(pair) == pytest.approx(math.exp(divergence))


@settings(max_examples=50, deadline=None)
@given(arrays.arrays(np.float64, (7, 4), elements=st.floats(0, 1)))
def test_the_inception_score_lies_between_1_and_the_classes(weights: np.ndarray) -> None:
    rows = (weights + 1e-3) / (weights + 1e-3).sum(1, keepdims=True)
    assert 1 - 1e-9 <= inception_score(rows) <= 4 + 1e-9
    assert inception_score(rows[::-1]) == pytest.approx(inception_score(rows))


@pytest.mark.parametrize("wrong", [np.zeros((0, 6)), np.zeros((3, 6)), np.ones(6) / 6, np.array([[1.5, -0.5]])])
def test_the_inception_score_refuses_what_is_no_distribution(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"not allowed|no distributions"):
        inception_score(wrong)


def test_the_jackknife_gives_the_standard_error_of_a_mean() -> None:
    values = np.random.default_rng(0).normal(size=50)
    error = jackknife(lambda rows: float(rows.mean()), values, np.arange(50))
    assert error == pytest.approx(values.std(ddof=1) / math.sqrt(50))
    twins = jackknife(lambda rows: float(rows.mean()), np.repeat(values, 2), np.repeat(np.arange(50), 2))
    assert twins == pytest.approx(error)  # the rows of a clip are not independent, and do not count as if
    assert math.isnan(jackknife(lambda rows: 0.0, values, np.zeros(50)))


def test_the_interval_of_a_share_is_wilsons() -> None:
    assert share_interval(90, 100) == pytest.approx((0.8256, 0.9448), abs=1e-4)
    assert share_interval(0, 10)[0] == 0
    assert share_interval(10, 10)[1] == pytest.approx(1)
    assert share_interval(0, 0) == (0, 1)
