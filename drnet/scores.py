"""Scores of a code against known factors, and of generated samples against a classifier: pure functions on arrays.

* DCI: disentanglement, completeness, informativeness (Eastwood and Williams, 2018), by a forest's importances.
* MIG: the mutual information gap (Chen et al., 2018), from binned mutual information.
* The Inception Score as DrNet's appendix B writes it.

Axes: R rows, D numbers of the code, K factors, N samples, Y classes. A factor's values are (R,) integer classes, or
(R, L) floats: a number, or a number that wraps as its sine and cosine.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.metrics import mutual_info_score

from drnet.probes import r2

TREES = 50
LEAF = 5  # rows that a leaf holds at least: without it, importances of noise grow with the rows
BINS = 20  # of numbers, in codes and factors, as in Locatello et al. 2019

Floats = NDArray[np.float64]


def forest(codes: NDArray, values: NDArray, test_codes: NDArray, seed: int) -> tuple[Floats, NDArray]:
    """Tell a factor from a code by extremely randomised trees; every split looks at all numbers of the code.

    Args:
        codes: (R, D). values: (R,) classes or (R, L) numbers. test_codes: (R', D).
        seed: of the trees.

    Returns:
        Each number's share in what the trees found out, (D,), of sum 1 (0 where they found nothing to split), and their
        guesses for the test rows, (R',) or (R', L).
    """
    if not codes.shape[1]:
        raise ValueError("a code of no numbers is not allowed; leave it out")
    kind = ExtraTreesClassifier if values.ndim == 1 else ExtraTreesRegressor
    trees = kind(TREES, max_features=1.0, min_samples_leaf=LEAF, random_state=seed)
    trees.fit(codes, values if values.ndim == 1 or values.shape[1] > 1 else values[:, 0])
    guesses = np.asarray(trees.predict(test_codes))
    return np.asarray(trees.feature_importances_, np.float64), guesses.reshape(len(test_codes), *values.shape[1:])


def told(guesses: NDArray, truth: NDArray) -> float:
    """Return how well guesses tell a factor: accuracy of (R,) classes, mean R2 of (R, L) numbers."""
    return float((guesses == truth).mean()) if truth.ndim == 1 else float(r2(truth, guesses).mean())


def above_chance(score: float, chance: float, best: float = 1.0) -> float:
    """Place a score between chance (0) and the best (1), cut off there; NaN where the best is no better than chance."""
    return min(max((score - chance) / (best - chance), 0.0), 1.0) if best > chance else math.nan


def disentanglement(importance: Floats) -> float:
    """How far each number of a code serves one factor only: 1 - entropy over the factors, weighted by importance.

    Eastwood and Williams 2018, Sec. 2. 1: each number serves one factor; 0: each serves all alike.

    Args:
        importance: (D, K), not negative; columns of sum 1.
    """
    shares = importance.sum(1)
    return float((_focus(importance) * shares).sum() / max(shares.sum(), 1e-12))


def completeness(importance: Floats) -> Floats:
    """How far each factor lies in one number only: 1 - entropy over the numbers. (D, K) -> (K,); ibid."""
    return _focus(importance.T)


def _focus(weights: Floats) -> Floats:
    """1 - entropy of each row's shares, to the base of their number: 1 all in one, 0 all alike. (A, B) -> (A,)."""
    if weights.shape[1] < 2:
        return np.ones(len(weights))  # nothing else to serve or to lie in
    totals = weights.sum(1, keepdims=True)
    shares = np.where(totals > 0, weights / np.where(totals > 0, totals, 1), 1 / weights.shape[1])
    logs = np.log(np.where(shares > 0, shares, 1))
    found: Floats = 1 + (shares * logs).sum(1) / np.log(weights.shape[1])
    return found


def binned(values: NDArray, bins: int = BINS) -> NDArray[np.int64]:
    """Return the bin of each value, bins holding equally many (ties stay together). (R,) -> (R,)."""
    edges = np.unique(np.quantile(values, np.arange(1, bins) / bins))
    return np.searchsorted(edges, values, side="right").astype(np.int64)


def classes_of(values: NDArray, bins: int = BINS) -> NDArray[np.int64]:
    """Return a factor as classes: itself, a number's bin, or the arc that an angle (R, 2) lies in. -> (R,)."""
    if values.ndim == 1:
        return values.astype(np.int64)
    if values.shape[1] == 1:
        return binned(values[:, 0], bins)
    if values.shape[1] == 2:
        turn = np.arctan2(values[:, 0], values[:, 1]) / (2 * np.pi) % 1
        return np.minimum(turn * bins, bins - 1).astype(np.int64)
    raise ValueError(f"a factor of {values.shape[1]} columns is not allowed; a number has 1, an angle 2")


def information(codes: NDArray, values: NDArray, bins: int = BINS) -> tuple[Floats, float]:
    """Mutual information of each number of a code with a factor, in nats, and the factor's entropy.

    Both are binned. A finite sample shows information where there is none; its expectation by Miller (1955), from the
    numbers of cells that are not empty, is taken off.

    Args:
        codes: (R, D). values: (R,) or (R, L).

    Returns:
        (D,), not negative, and a number.
    """
    classes = classes_of(values, bins)
    entropy = float(mutual_info_score(classes, classes))
    found = np.zeros(codes.shape[1])
    for number in range(codes.shape[1]):
        cells = binned(codes[:, number], bins)
        full, rows, columns = (len(np.unique(part)) for part in (cells * (classes.max() + 1) + classes, cells, classes))
        bias = (full - rows - columns + 1) / (2 * len(codes))
        found[number] = min(entropy, max(0.0, float(mutual_info_score(cells, classes)) - bias))
    return found, entropy


def gap(found: Floats, entropy: float) -> float:
    """The mutual information gap of a factor: of the two numbers that tell most, as a share of the factor's entropy.

    Chen et al. 2018, Eq. 6. 1: one number tells all and no other anything; 0: two tell alike.

    Args:
        found: (D,) from `information`; a code of one number has no second, which counts as 0.
        entropy: of the factor.
    """
    ordered = np.sort(np.concatenate([found, [0.0, 0.0]]))
    return float(np.clip((ordered[-1] - ordered[-2]) / entropy, 0, 1)) if entropy > 0 else math.nan


def inception_score(probabilities: Floats) -> float:
    """exp(E_x KL(p(y|x) || p(y))), p(y) being the mean over the samples (Salimans et al. 2016; DrNet, appendix B).

    Args:
        probabilities: (N, Y), rows of sum 1.

    Returns:
        From 1 (all alike) to Y (each sample sure of its class, classes equally frequent).

    Raises:
        ValueError: where there is no sample, or rows are no distributions.
    """
    values = np.asarray(probabilities, np.float64)
    if values.ndim != 2 or not len(values):
        raise ValueError(f"probabilities of shape {values.shape} are not allowed; they are (samples, classes)")
    if not (values >= 0).all() or not np.allclose(values.sum(1), 1, atol=1e-4):
        raise ValueError("rows are no distributions; each must be at least 0 everywhere and sum to 1")
    logs = np.log(np.where(values > 0, values, 1))
    marginal = values.mean(0)
    common = np.log(np.where(marginal > 0, marginal, 1))
    return float(np.exp((values * (logs - common)).sum(1).mean()))


def jackknife(score: Callable[[NDArray], float], rows: NDArray, groups: NDArray) -> float:
    """Standard error of a score over rows, by leaving out one group (a clip) at a time; NaN with fewer than two groups.

    Args:
        score: of some rows.
        rows: (R, ...).
        groups: (R,) what each row belongs to.
    """
    names = np.unique(groups)
    if len(names) < 2:
        return math.nan
    without = np.array([score(rows[groups != name]) for name in names])
    return float(np.sqrt((len(names) - 1) / len(names) * np.square(without - without.mean()).sum()))


def share_interval(hits: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95% interval of a share: `hits` of `count`. (0, 1) where nothing was counted."""
    if not count:
        return 0.0, 1.0
    share = hits / count
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
