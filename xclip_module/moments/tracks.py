"""Raw scores of one video to the curves that rank its times, by track: what may be known beside the similarity.

Q queries, M samples of a curve.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SIMILARITY, QUERY_SET, PROCEDURE = "similarity-only", "+query-set", "+procedure-order"
# Of a head that sees all windows of a video: other curves, which become moments as under similarity-only.
TEMPORAL = "+temporal"
TRACKS = (SIMILARITY, QUERY_SET, PROCEDURE, TEMPORAL)
# Several tools are in view at once, so that they do not compete.
_EXCLUSIVE = ("phase", "free")


class Curves(NamedTuple):
    """Curves [Q, M] of one video: smoothed, from which moments are found, and `sharp`, where their edges lie."""

    smooth: np.ndarray
    sharp: np.ndarray


def make_curves(
    scores: np.ndarray,
    kinds: Sequence[str],
    *,
    sigmas: Sequence[float],
    track: str,
    query_norm: str,
    temperature: float,
) -> Curves:
    """z-score of each query in its video, Gaussian, and unless `similarity-only` a comparison with the other queries.

    Any rising linear change of a query's scores leaves its curve alone. A query compares with those of its own kind,
    phases with phases and free sentences with free ones; tools, and a query that is alone, keep their curve.

    Source: ours; softmax over prompts is how CLIP classifies (Radford et al. 2021), here on z-scores.

    scores: [Q, M].  sigmas: per query the Gaussian's, in samples.
    query_norm: "mean" takes the frame-wise mean over the queries away, "softmax" (of z / temperature) lets them
        compete.
    """
    standard = standardise(scores)
    smooth = np.stack([smoothed(row, sigma) for row, sigma in zip(standard, sigmas, strict=True)])
    if track == SIMILARITY:
        return Curves(smooth, standard)
    return Curves(*(_against_others(curves, kinds, query_norm, temperature) for curves in (smooth, standard)))


def has_query_set(kinds: Sequence[str]) -> bool:
    """Whether any query has another to be compared with.

    >>> has_query_set(["phase", "tool", "tool"])
    False
    """
    return any(list(kinds).count(kind) > 1 for kind in _EXCLUSIVE)


def standardise(scores: np.ndarray) -> np.ndarray:
    """Rows [Q, M] float64 with mean 0 and standard deviation 1; a constant row becomes 0.

    >>> standardise(np.array([[1.0, 3.0], [5.0, 5.0]])).tolist()
    [[-1.0, 1.0], [0.0, 0.0]]
    """
    centred = scores.astype(np.float64) - scores.mean(axis=1, keepdims=True, dtype=np.float64)
    spread = centred.std(axis=1, keepdims=True)
    # A constant row is left with rounding of its mean, which must not be blown up to a curve.
    varies = spread > 1e-9 * np.abs(scores).max(axis=1, keepdims=True)
    return np.where(varies, centred / np.where(varies, spread, 1.0), 0.0)


def smoothed(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian of `sigma` samples over [M]; the ends are mirrored."""
    if sigma < 0.1:  # a kernel that narrow is its middle sample
        return values
    reach = max(1, int(4 * sigma + 0.5))  # beyond four sigmas a kernel weighs less than 0.0001
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(values, reach, mode="symmetric")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")


def _against_others(curves: np.ndarray, kinds: Sequence[str], query_norm: str, temperature: float) -> np.ndarray:
    result = curves.copy()
    for kind in _EXCLUSIVE:
        rows = [row for row, kind_of_row in enumerate(kinds) if kind_of_row == kind]
        if len(rows) < 2:
            continue
        if query_norm == "mean":
            result[rows] -= curves[rows].mean(axis=0)
        else:
            # Less the largest, which changes no share: exp of a large z-score over a small temperature overflows.
            shares = np.exp((curves[rows] - curves[rows].max(axis=0)) / temperature)
            result[rows] = shares / shares.sum(axis=0)
    return result
