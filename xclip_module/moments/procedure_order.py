"""The order of an operation as knowledge: each phase at most once, in an order that the textbook allows.

P phases, M samples of a curve.
"""

from collections.abc import Sequence

import numpy as np

from xclip_module.interface import Moment, tiou
from xclip_module.moments.proposals import is_constant, scan_statistic

# Added to the score of a moment that fits the whole order: more than any scan statistic (at most sqrt(M)), so that it
# stands before every other candidate, and among such moments the scan statistic still decides.
_FIRST = 1e4


def decode_order(curves: np.ndarray, orders: Sequence[Sequence[int]]) -> dict[int, tuple[int, int]]:
    """Phase -> half-open range of samples: the whole video cut into phases, the sum of their curves as large as can be.

    Every sample belongs to one phase; a phase may be absent. Exact, by dynamic programming over every order.
    Source: ours; the orders are textbook knowledge and come with the data set. Of equally good orders the first counts.

    curves: [P, M].  orders: each a sequence of rows of `curves`.

    >>> decode_order(np.array([[1.0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]]), [(0, 1, 2)])
    {0: (0, 2), 1: (2, 4)}
    """
    best_total, best_path = -np.inf, np.zeros(0, int)
    for order in orders:
        total, path = _decode(curves[list(order)])
        if total > best_total:
            best_total, best_path = total, np.array(order)[path]
    edges = np.flatnonzero(np.diff(best_path)) + 1
    starts = [0, *edges.tolist()] if len(best_path) else []
    return {
        int(best_path[start]): (start, end) for start, end in zip(starts, [*starts[1:], len(best_path)], strict=True)
    }


def first_in_order(
    curve: np.ndarray, moments: Sequence[Moment], span: tuple[int, int] | None, edges: np.ndarray, *, nms_tiou: float
) -> list[Moment]:
    """`moments` with the phase's range of the decoded order before them, and without what overlaps that one.

    curve: [M] of the phase.  span: from `decode_order`, None = decoded as absent.  edges: [M + 1] seconds.
    """
    if span is None:
        return list(moments)
    score = 0.0 if is_constant(curve) else float(scan_statistic(curve, np.array([span]))[0])
    chosen = Moment(float(edges[span[0]]), float(edges[span[1]]), _FIRST + score)
    return [chosen, *(moment for moment in moments if tiou(moment, chosen) <= nms_tiou)]


def _decode(curves: np.ndarray) -> tuple[float, np.ndarray]:
    """Best total and the row of each sample [M], rows never going back."""
    rows, samples = curves.shape
    best = curves[:, 0].copy()  # [P] best sum that ends in each row; any row may be the first
    came_from, row_numbers = np.zeros((samples, rows), int), np.arange(rows)
    for sample in range(1, samples):
        # The best row up to each one, the later of equals.
        is_best = best >= np.maximum.accumulate(best)
        source = np.maximum.accumulate(np.where(is_best, row_numbers, 0))
        came_from[sample] = source
        best = best[source] + curves[:, sample]
    path = np.zeros(samples, int)
    path[-1] = int(best.argmax())
    for sample in range(samples - 1, 0, -1):
        path[sample - 1] = came_from[sample, path[sample]]
    return float(best.max()), path
