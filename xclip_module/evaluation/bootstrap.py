"""How far a number could be off with other videos of the same kind: bootstrap over videos.

V videos, B draws.
"""

from collections.abc import Mapping

import numpy as np

# What lies between holds 95 % of the draws.
PERCENT = (2.5, 97.5)


def draw_weights(videos: int, draws: int, seed: int) -> np.ndarray:
    """How often each video counts [B, V] when as many videos are drawn with replacement.

    Videos, not samples: neighbouring samples of one video say nearly the same, and an interval from them would be far
    too narrow. The same arguments give the same draws, so that two systems can be compared draw by draw.

    >>> draw_weights(3, 2, seed=0).sum(axis=1)
    array([3., 3.])
    """
    return weights_of(np.random.default_rng(seed).integers(0, videos, (draws, videos)))


def weights_of(chosen: np.ndarray) -> np.ndarray:
    """The same from drawn indices [B, V]."""
    return np.stack([np.bincount(row, minlength=chosen.shape[1]) for row in chosen]).astype(float)


def intervals(replicates: Mapping[str, np.ndarray]) -> dict[str, list[float] | None]:
    """[low, high] of 95 % for each statistic from its values [B] under the draws; None where it is never defined.

    Percentile method (Efron and Tibshirani 1993, chapter 13); draws in which a statistic is undefined are left out.
    """
    return {name: _interval(values) for name, values in replicates.items()}


def paired_difference(first: np.ndarray, second: np.ndarray) -> list[float] | None:
    """[low, high] of 95 % for second - first under the same draws [B]: the videos' own difficulty cancels."""
    return _interval(second - first)


def _interval(values: np.ndarray) -> list[float] | None:
    defined = values[~np.isnan(values)]
    return [float(edge) for edge in np.percentile(defined, PERCENT)] if len(defined) else None
