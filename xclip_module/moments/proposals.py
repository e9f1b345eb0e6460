"""From one curve to its ranked moments: of a query that mostly holds once, as phases and free sentences do, or often.

M samples of a curve, C candidates. A candidate is a half-open range of samples [first, last); times are seconds.
"""

from typing import NamedTuple

import numpy as np

from xclip_module.interface import Moment


class Search(NamedTuple):
    """How moments are searched, see `find_moments`; levels: of the watershed."""

    generator: str
    levels: int
    nms_tiou: float
    most: int
    reach: int


def find_moments(smooth: np.ndarray, sharp: np.ndarray, edges: np.ndarray, search: Search) -> list[Moment]:
    """At most `most` ranked moments of a query that mostly holds once; none for a constant curve, which says nothing.

    Candidates (`generator`): "watershed", the runs above many flooding levels, as in TAG (Xiong et al. 2017); "scan",
    the intervals of best scan statistic; "union" of both. All are scored by the scan statistic of the smoothed curve;
    of two that overlap by more than `nms_tiou` the better stays; last, both edges move to where the sharp curve fits
    best, within `reach` samples (and what that brings together is suppressed again).

    smooth, sharp: [M], see `tracks.Curves`.  edges: [M + 1] seconds, sample m stands for [edges[m], edges[m + 1]).
    """
    if is_constant(smooth):
        return []
    candidates = [_watershed(smooth, search.levels)] if search.generator != "scan" else []
    candidates += [_best_intervals(smooth)] if search.generator != "watershed" else []
    ranges = np.unique(np.concatenate(candidates), axis=0)
    scores = scan_statistic(smooth, ranges)
    # What scores below 0 is a stretch that is lower than the rest.
    ranges, scores = ranges[scores > 0], scores[scores > 0]
    kept = suppress(ranges, scores, search.nms_tiou, search.most)
    ranges, scores = _refine(sharp, ranges[kept], search.reach), scores[kept]
    last = suppress(ranges, scores, search.nms_tiou, search.most)
    return as_moments(ranges[last], scores[last], edges)


def find_components(smooth: np.ndarray, edges: np.ndarray, *, hysteresis: float, gap: float, most: int) -> list[Moment]:
    """At most `most` ranked moments of a query that holds many times, as tools do.

    Runs above a low threshold that somewhere pass Otsu's; the low one lies `hysteresis` of the way from Otsu's down to
    the mean of what is below it. Runs at most `gap` samples apart are joined. Scored by the scan statistic.

    smooth: [M].  edges: [M + 1] seconds, sample m stands for [edges[m], edges[m + 1]).
    """
    if is_constant(smooth):
        return []
    high = otsu(smooth)
    low = high - hysteresis * (high - smooth[smooth <= high].mean())
    ranges = runs((smooth > low)[None])
    ranges = ranges[[bool((smooth[first:last] > high).any()) for first, last in ranges]]
    # Joined after the weak runs are gone: a run that never passes Otsu's must not bridge a gap.
    starts = np.concatenate([[True], ranges[1:, 0] - ranges[:-1, 1] > gap])
    ranges = np.stack([ranges[starts, 0], ranges[np.append(starts[1:], True), 1]], axis=1)
    # Nothing lies outside the whole video, so that its scan statistic is undefined.
    ranges = ranges[ranges[:, 1] - ranges[:, 0] < len(smooth)]
    scores = scan_statistic(smooth, ranges)
    order = np.argsort(-scores, kind="stable")[:most]
    return as_moments(ranges[order], scores[order], edges)


def scan_statistic(curve: np.ndarray, ranges: np.ndarray) -> np.ndarray:
    """(mean inside - mean outside) * sqrt(L (M - L) / M) / sd of each range [C, 2]; L its length.

    The likelihood ratio of "this stretch is raised" against "nothing is" (Olshen et al. 2004, circular binary
    segmentation). The bare contrast of means would always choose the shortest peak.

    curve: [M], not constant.

    >>> round(float(scan_statistic(np.array([0.0, 1, 1, 0]), np.array([[1, 3]]))[0]), 6)
    2.0
    """
    sums = np.concatenate([[0.0], np.cumsum(curve - curve.mean())])
    lengths = ranges[:, 1] - ranges[:, 0]
    return (sums[ranges[:, 1]] - sums[ranges[:, 0]]) * _weights(len(curve))[lengths] / curve.std()


def suppress(ranges: np.ndarray, scores: np.ndarray, nms_tiou: float, most: int) -> np.ndarray:
    """Indices of at most `most` ranges, best first, none of which overlaps a better one by more than `nms_tiou`."""
    # Equal scores by time, so that the order in which candidates were made decides nothing.
    order = np.lexsort((ranges[:, 1], ranges[:, 0], -scores))
    kept: list[int] = []
    while len(order) and len(kept) < most:
        best, order = order[0], order[1:]
        kept.append(int(best))
        first, last = ranges[order, 0], ranges[order, 1]
        overlap = np.maximum(np.minimum(last, ranges[best, 1]) - np.maximum(first, ranges[best, 0]), 0)
        union = (last - first) + (ranges[best, 1] - ranges[best, 0]) - overlap
        # tIoU <= nms_tiou without a division, on whole samples.
        order = order[overlap <= nms_tiou * union]
    return np.array(kept, int)


def otsu(values: np.ndarray) -> float:
    """The threshold that parts values [M] best into two groups (Otsu 1979), over every cut between sorted values.

    >>> otsu(np.array([0.0, 0.1, 0.9, 1.0]))
    0.5
    """
    ordered = np.sort(values)
    below = np.arange(1, len(ordered))
    # Between-class variance, eq. 18: of centred values its numerator is the sum of those below the cut.
    sums = np.cumsum(ordered - ordered.mean())[:-1]
    between = sums**2 / (below * (len(ordered) - below))
    cut = int(between.argmax())
    # Half way rounds up to the upper value where both are neighbouring floats, and nothing would lie above it.
    return float(min((ordered[cut] + ordered[cut + 1]) / 2, np.nextafter(ordered[cut + 1], -np.inf)))


def is_constant(curve: np.ndarray) -> bool:
    """Whether a curve says nothing about when: a single sample, or a spread that is only rounding."""
    return len(curve) < 2 or bool(np.ptp(curve) < 1e-9)


def runs(is_on: np.ndarray) -> np.ndarray:
    """Half-open ranges [C, 2] of the runs of True in each row of [R, M].

    >>> runs(np.array([[True, True, False, True]])).tolist()
    [[0, 2], [3, 4]]
    """
    padded = np.zeros((len(is_on), is_on.shape[1] + 2), np.int8)
    padded[:, 1:-1] = is_on
    steps = np.diff(padded, axis=1)
    return np.stack([np.nonzero(steps == 1)[1], np.nonzero(steps == -1)[1]], axis=1)


def as_moments(ranges: np.ndarray, scores: np.ndarray, edges: np.ndarray) -> list[Moment]:
    """The ranges [C, 2] in seconds, with their scores [C]; edges: [M + 1]."""
    return [
        Moment(float(edges[first]), float(edges[last]), float(score))
        for (first, last), score in zip(ranges, scores, strict=True)
    ]


def _watershed(curve: np.ndarray, count: int) -> np.ndarray:
    """Ranges [C, 2] of the runs above evenly spaced levels."""
    levels = np.linspace(curve.min(), curve.max(), count + 2)[1:-1]
    ranges = runs(curve > levels[:, None])
    # Nothing lies outside the whole video, so that its scan statistic is undefined.
    return ranges[ranges[:, 1] - ranges[:, 0] < len(curve)]


def _best_intervals(curve: np.ndarray) -> np.ndarray:
    """Ranges [C, 2] whose scan statistic gains nothing by moving either edge.

    The statistic is convex in (length, sum), so that a best start lies where the curve rises and a best end where it
    falls; all other samples need no look.
    """
    steps = np.diff(curve)
    starts = np.flatnonzero(np.concatenate([[True], steps > 0]))
    ends = np.flatnonzero(np.concatenate([steps < 0, [True]])) + 1
    sums = np.concatenate([[0.0], np.cumsum(curve - curve.mean())])
    lengths = np.maximum(ends[None] - starts[:, None], 0)
    values = (sums[ends][None] - sums[starts][:, None]) * _weights(len(curve))[lengths]  # [starts, ends]
    around = np.pad(values, 1, constant_values=-np.inf)
    is_best = (values > 0) & (values >= around[:-2, 1:-1]) & (values >= around[2:, 1:-1])
    is_best &= (values >= around[1:-1, :-2]) & (values >= around[1:-1, 2:])
    first, last = np.nonzero(is_best)
    return np.stack([starts[first], ends[last]], axis=1)


def _weights(count: int) -> np.ndarray:
    """sqrt(M / (L (M - L))) by length L = 0 … M: the scan statistic of a range whose samples, centred, sum to 1."""
    lengths = np.arange(1, count)
    return np.concatenate([[0.0], np.sqrt(count / (lengths * (count - lengths))), [0.0]])


def _refine(curve: np.ndarray, ranges: np.ndarray, reach: int) -> np.ndarray:
    """Ranges with each edge in turn moved to the best scan statistic of `curve` within `reach` samples."""
    sums = np.concatenate([[0.0], np.cumsum(curve - curve.mean())])
    weights, shifts = _weights(len(curve)), np.arange(-reach, reach + 1)
    first, last = ranges[:, 0], ranges[:, 1]
    rows = np.arange(len(ranges))
    # Twice: where the end has moved, another start may fit better.
    for _ in range(2):
        tried = np.clip(first[:, None] + shifts, 0, len(curve) - 1)  # [C, shifts]
        values = (sums[last][:, None] - sums[tried]) * weights[np.maximum(last[:, None] - tried, 0)]
        first = tried[rows, values.argmax(axis=1)]
        tried = np.clip(last[:, None] + shifts, 1, len(curve))
        values = (sums[tried] - sums[first][:, None]) * weights[np.maximum(tried - first[:, None], 0)]
        last = tried[rows, values.argmax(axis=1)]
    # Where the sharp curve is low all over, every move looks like a loss and the smoothed edges stay.
    moved = np.stack([first, last], axis=1)
    return np.where((first < last)[:, None], moved, ranges)
