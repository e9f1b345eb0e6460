"""From score curves to moments, and how well moments fit the truth.

M samples of a curve, K ranked moments. Times are seconds.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

Segment = tuple[float, float]
_LEVELS = 24


class Moment(NamedTuple):
    """One answer: when, and how sure (larger is surer; comparable between videos)."""

    start: float
    end: float
    score: float


def segments_from_scores(
    times: np.ndarray,
    scores: np.ndarray,
    *,
    stride: float,
    duration: float,
    smooth_seconds: float,
    most: int,
    nms_tiou: float,
) -> list[Moment]:
    """At most `most` ranked moments of one curve; none for a constant one, which says nothing.

    Candidates are the runs above many flooding levels of the smoothed curve (watershed, as in TAG, Xiong et al. 2017);
    each is scored by the scan statistic (mean inside - mean outside) * sqrt(L (M - L) / M) / sd of the raw curve, which
    any rising linear change of the scores leaves alone; overlaps beyond `nms_tiou` lose to the better one.

    times, scores: [M]; the sample at t stands for [t - stride/2, t + stride/2), the last one up to `duration`.
    """
    spread = scores.std()
    if len(scores) < 2 or spread == 0:
        return []
    standard = (scores - scores.mean()) / spread
    smooth = _smooth(standard, smooth_seconds / stride)
    runs = sorted(
        {run for level in np.linspace(smooth.min(), smooth.max(), _LEVELS + 1)[1:-1] for run in _runs(smooth > level)}
    )
    sums = np.concatenate([[0.0], np.cumsum(standard)])
    count = len(standard)
    moments = []
    for first, last in runs:
        length = last - first
        inside = sums[last] - sums[first]
        contrast = inside / length + inside / (count - length)  # the whole curve sums to zero
        if contrast <= 0:
            continue
        start = times[first] - stride / 2
        end = duration if last == count else times[last - 1] + stride / 2
        moments.append(Moment(float(start), float(end), float(contrast * (length * (count - length) / count) ** 0.5)))
    return _keep_best(sorted(moments, key=lambda m: (-m.score, m.start, m.end)), most, nms_tiou)


def tiou(first: Segment, second: Segment) -> float:
    """Temporal intersection over union of two segments.

    >>> tiou((0, 10), (5, 20))
    0.25
    """
    overlap = max(0.0, min(first[1], second[1]) - max(first[0], second[0]))
    return overlap / (first[1] - first[0] + second[1] - second[0] - overlap)


def average_precision(
    predictions: Sequence[tuple[str, Moment]], truth: Mapping[str, Sequence[Segment]], threshold: float
) -> float:
    """Interpolated AP of one query over all videos, ActivityNet rule; NaN when it happens nowhere.

    predictions: (video, moment).  truth: video -> segments.  One ranked list over all videos, each prediction takes
    its best free segment with tIoU >= threshold, every segment once; precision is made non-increasing.
    Source: ActivityNet toolkit eval_detection.py; ties are broken by video, start and end instead of by input order.

    >>> average_precision([("a", Moment(0, 9, 2.0)), ("a", Moment(20, 30, 1.0))], {"a": [(0, 10)]}, 0.5)
    1.0
    """
    total = sum(len(segments) for segments in truth.values())
    if total == 0:
        return float("nan")
    free = {video: list(segments) for video, segments in truth.items()}
    hits = []
    for video, moment in sorted(predictions, key=lambda p: (-p[1].score, p[0], p[1].start, p[1].end)):
        overlaps = [tiou((moment.start, moment.end), segment) for segment in free.get(video, [])]
        best = int(np.argmax(overlaps)) if overlaps else -1
        hits.append(best >= 0 and overlaps[best] >= threshold)
        if hits[-1]:
            del free[video][best]
    if not any(hits):
        return 0.0
    found = np.cumsum(hits)
    precision = np.maximum.accumulate((found / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float(precision[np.array(hits)].sum() / total)


def _smooth(values: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian of `sigma` samples; the ends are mirrored."""
    if sigma < 0.1:  # a kernel that narrow is its middle sample
        return values
    reach = max(1, int(4 * sigma + 0.5))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    padded = np.pad(values, reach, mode="symmetric")
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")


def _runs(is_on: np.ndarray) -> list[tuple[int, int]]:
    """Half-open index ranges of runs of True, but for one that spans everything."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_on.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2) if b - a < len(is_on)]


def _keep_best(moments: Sequence[Moment], most: int, nms_tiou: float) -> list[Moment]:
    kept: list[Moment] = []
    for moment in moments:
        if all(tiou(moment[:2], other[:2]) <= nms_tiou for other in kept):
            kept.append(moment)
        if len(kept) == most:
            break
    return kept
