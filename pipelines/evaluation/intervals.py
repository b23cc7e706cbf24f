"""Means with 95% intervals over clips: a bootstrap that draws clips, so that windows of one clip stay together.

Axes: V values, S steps or other columns, N clips.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS = 1000
FEW = 10  # clips: an interval of fewer says little
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """Means of some columns.

    Attributes:
        mean: (S,) NaN where there is no value.
        low, high: (S,) the 2.5th and the 97.5th percentile of the means of drawn clips; NaN with fewer than two clips.
        clips: (S,) how many clips have a value.
    """

    mean: Floats
    low: Floats
    high: Floats
    clips: NDArray[np.int64]

    def to_json(self) -> dict[str, list[float | None]]:
        """Return lists; None for NaN."""
        return {name: as_list(getattr(self, name)) for name in ("mean", "low", "high")}

    def single(self) -> dict[str, float | None]:
        """Return the numbers of a lone column."""
        return {name: values[0] for name, values in self.to_json().items()}


def as_list(values: Floats) -> list[float | None]:
    """Return numbers for JSON: six digits, None for NaN."""
    return [None if np.isnan(value) else float(f"{value:.6g}") for value in values.tolist()]


class Bootstrap:
    """Draws clips with replacement, the same ones for everything that is compared.

    Args:
        clips: (V,) the clip that each value is from.
        seed: of the draws.
        draws: how many.
    """

    def __init__(self, clips: ArrayLike, seed: int, draws: int = DRAWS) -> None:
        _, self._clip = np.unique(np.asarray(clips), return_inverse=True)
        self._count = int(self._clip.max()) + 1
        even = np.full(self._count, 1 / self._count)
        self._weights = np.random.default_rng(seed).multinomial(self._count, even, draws).astype(np.float64)

    def interval(self, values: Floats) -> Interval:
        """Return the mean of each column of (V, S) over the values that are not NaN."""
        sums, counts = self._sums(values)
        mean, drawn = _ratio(sums.sum(0), counts.sum(0)), _ratio(self._weights @ sums, self._weights @ counts)
        return _interval(mean, drawn, (counts > 0).sum(0))

    def mean_interval(self, values: Floats) -> Interval:
        """Return the mean over all columns of the columns' means: every step counts the same, however many clips it has."""
        sums, counts = self._sums(values)
        mean = _ratio(sums.sum(0), counts.sum(0)).mean(keepdims=True)
        drawn = _ratio(self._weights @ sums, self._weights @ counts)
        return _interval(mean, _known_mean(drawn), (counts > 0).any(1).sum(keepdims=True))

    def _sums(self, values: Floats) -> tuple[Floats, Floats]:
        """Return the sum and the number of each clip's values, both (N, S)."""
        known = ~np.isnan(values)
        sums, counts = np.zeros((2, self._count, values.shape[1]))
        np.add.at(sums, self._clip, np.where(known, values, 0))
        np.add.at(counts, self._clip, known)
        return sums, counts


def _ratio(sums: Floats, counts: Floats) -> Floats:
    return np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=counts > 0)


def _known_mean(values: Floats) -> Floats:
    """Return the mean of each row's values that are not NaN, (draws, 1)."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(1, keepdims=True), known.sum(1, keepdims=True).astype(np.float64))


def _interval(mean: Floats, drawn: Floats, clips: NDArray[np.int64]) -> Interval:
    low, high = np.full((2, len(mean)), np.nan)
    enough = clips > 1
    if enough.any():  # a draw may miss every clip that goes so far
        low[enough], high[enough] = np.nanpercentile(drawn[:, enough], [2.5, 97.5], axis=0)
    return Interval(mean, low, high, clips)
