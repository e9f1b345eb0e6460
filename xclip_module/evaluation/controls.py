"""What can be had without looking: the control that a score has to beat.

M samples of a curve.
"""

from collections.abc import Sequence

import numpy as np

_BINS = 50


def time_prior(
    truth: Sequence[tuple[Sequence[tuple[float, float]], float]], times: np.ndarray, duration: float
) -> np.ndarray:
    """Score [M] of one query at each time from training videos' labels alone, no pixels.

    The share of training videos in which the query holds at the same relative position, in 50 bins.

    truth: per training video its segments and its duration.  times: [M] seconds in a video of `duration`.

    >>> time_prior([([(0.0, 50.0)], 100.0)], np.array([10.0, 180.0]), 200.0)
    array([1., 0.])
    """
    centres = (np.arange(_BINS) + 0.5) / _BINS
    shares = np.zeros(_BINS)
    for segments, length in truth:
        shares += np.any(
            [(a <= centres * length) & (centres * length < b) for a, b in segments] or [centres < 0], axis=0
        )
    bins = np.minimum((times / duration * _BINS).astype(int), _BINS - 1)
    return shares[bins] / max(1, len(truth))
