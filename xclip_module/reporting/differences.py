"""Differences between runs and between splits with their 95 % intervals, from replicates of a bootstrap over videos.

Reads what `evaluation.bootstrap` has drawn; between rooms there is no door, so that the percentiles stand in both.

B draws. A replicate is NaN where its draw leaves the statistic undefined.
"""

from typing import NamedTuple

import numpy as np

_PERCENT = (2.5, 97.5)


class Difference(NamedTuple):
    """A difference of fractions with its 95 % interval, each None where undefined."""

    value: float | None
    bounds: tuple[float, float] | None

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of 0.

        >>> Difference(0.1, (0.02, 0.2)).excludes_zero, Difference(0.1, (-0.02, 0.2)).excludes_zero
        (True, False)
        """
        return self.bounds is not None and (self.bounds[0] > 0 or self.bounds[1] < 0)


def paired(first: float | None, second: float | None, draws: tuple[np.ndarray, np.ndarray]) -> Difference:
    """second - first; draws: [B] of the first and of the second under the same draws of the same videos.

    The videos' own difficulty cancels draw by draw. Draws in which either is undefined are left out.

    >>> paired(0.5, 0.7, (np.array([0.4, 0.5]), np.array([0.6, 0.7]))).bounds
    (0.2, 0.2)
    """
    return Difference(_minus(first, second), bounds(draws[1] - draws[0]))


def independent(first: float | None, second: float | None, draws: tuple[np.ndarray, np.ndarray]) -> Difference:
    """second - first of different videos; draws: [B] each.

    Replicates of two splits come from one seed, so that draw b of both takes videos of the same places. Shifted by
    half, they have nothing to do with each other.
    """
    count = min(map(len, draws))
    first_draws, second_draws = (values[:count] for values in draws)
    return Difference(_minus(first, second), bounds(second_draws - np.roll(first_draws, count // 2)))


def bounds(values: np.ndarray) -> tuple[float, float] | None:
    """[low, high] of 95 % of one statistic's draws [B]; None where it is never defined."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    low, high = (round(float(edge), 12) for edge in np.percentile(defined, _PERCENT))
    return low, high


def _minus(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else second - first
