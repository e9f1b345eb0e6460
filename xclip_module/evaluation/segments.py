"""Segments against segments: overlap, matching, average precision, recall, errors of the edges.

T tIoU thresholds, N predictions, G true segments, V videos, B weightings of the videos. Times are seconds.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from xclip_module.interface import Moment, Pair, Segment

# Decimal numbers: np.linspace(0.5, 0.95, 10)[8] is 0.8999999999999999 and would let other segments pass.
THRESHOLDS = (0.3, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
# THRESHOLDS whose mean is "the" mAP, 0.5:0.05:0.95.
AVERAGED = tuple(threshold for threshold in THRESHOLDS if threshold >= 0.5)
# Predictions of a pair that count, `max_pred_windows` of Moment-DETR's standalone_eval.
_LISTED = 10


class PairResult(NamedTuple):
    """One video and one query that happens in it.

    ap: [T] QVHighlights' AP.  top1, top5: best tIoU among the first one and five predictions, 0 without any.
    """

    ap: np.ndarray
    top1: float
    top5: float


class Judged(NamedTuple):
    """One query's predictions over all videos, best first.

    hits: [T, N] bool, whether a prediction took a segment for itself.
    video: [N] index of its video.
    truths: [V] true segments of each video.
    """

    hits: np.ndarray
    video: np.ndarray
    truths: np.ndarray


class BoundaryError(NamedTuple):
    """One first answer: start and end minus the true ones in seconds (positive = too late), and its tIoU."""

    video: str
    query: str
    start: float
    end: float
    tiou: float


class Cleaned(NamedTuple):
    """Segments that can be judged, and how many were left out."""

    kept: list
    empty: int
    repeated: int


def tious(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """tIoU [N, G] float64 of segments [N, 2] and [G, 2], all of positive length; `interface.tiou` of every two."""
    overlap = np.minimum(first[:, None, 1], second[None, :, 1]) - np.maximum(first[:, None, 0], second[None, :, 0])
    overlap = np.maximum(overlap, 0.0)
    lengths = (first[:, 1] - first[:, 0])[:, None] + (second[:, 1] - second[:, 0])[None]
    return overlap / (lengths - overlap)


def match(overlaps: np.ndarray, thresholds: Sequence[float]) -> np.ndarray:
    """Hits [T, N]: each prediction in turn takes its best free segment with tIoU >= threshold, every segment once.

    overlaps: [N, G] tIoU, rows from the surest prediction on, columns in order of time; of two segments that fit
        equally the later one is taken.
    Source: ActivityNet toolkit eval_detection.py and Moment-DETR standalone_eval (greedy by score, which is not an
    optimal assignment; `argsort()[::-1]` takes the last of equals).
    """
    limits = np.asarray(thresholds, np.float64)
    hits = np.zeros((len(limits), len(overlaps)), bool)
    if not overlaps.size:
        return hits
    rows = np.arange(len(limits))
    free = np.ones((len(limits), overlaps.shape[1]), bool)
    last = overlaps.shape[1] - 1
    # A prediction below every threshold can neither hit nor take a segment.
    for index in np.flatnonzero(overlaps.max(axis=1) >= limits.min()):
        usable = np.where(free & (overlaps[index] >= limits[:, None]), overlaps[index], -1.0)  # [T, G]
        best = last - usable[:, ::-1].argmax(axis=1)
        hits[:, index] = usable[rows, best] >= 0
        free[rows[hits[:, index]], best[hits[:, index]]] = False
    return hits


def judge(pairs: Sequence[Pair], videos: Mapping[str, int], thresholds: Sequence[float] = THRESHOLDS) -> Judged:
    """One query's predictions of all its `pairs` in one ranked list, each a hit or not.

    videos: name -> index. Equal scores are ordered by it, by start and by end, so that the order of a file decides
    nothing; the toolkits take them as they come. Raises ValueError for a prediction that holds NaN.
    """
    owner = np.repeat(np.arange(len(pairs)), [len(pair.predictions) for pair in pairs])
    table = np.array([moment for pair in pairs for moment in pair.predictions], float).reshape(-1, 3)
    if np.isnan(table).any():
        raise ValueError(f"{int(np.isnan(table).any(axis=1).sum())} predictions hold NaN")
    video = np.array([videos[pair.video] for pair in pairs], int)
    order = np.lexsort((table[:, 1], table[:, 0], video[owner], -table[:, 2]))
    table, owner = table[order], owner[order]
    hits = np.zeros((len(thresholds), len(table)), bool)
    truths = np.zeros(len(videos), int)
    for index, pair in enumerate(pairs):
        predicted = np.flatnonzero(owner == index)
        segments = np.array(sorted(pair.truth), float).reshape(-1, 2)
        hits[:, predicted] = match(tious(table[predicted, :2], segments), thresholds)
        truths[video[index]] += len(segments)
    return Judged(hits, video[owner], truths)


def average_precisions(judged: Judged, weights: np.ndarray | None = None) -> np.ndarray:
    """Interpolated AP [B, T] of one query; NaN where it has no true segment.

    Precision is made non-increasing from the right and summed at the hits, over the number of true segments.
    weights: [B, V] how often each video counts, as a bootstrap draws them; None = every video once.
    Source: ActivityNet toolkit eval_detection.py interpolated_prec_rec; scikit-learn's AP is not interpolated.

    >>> pair = Pair("clip", "a", ((0, 10),), (Moment(0, 9, 2.0), Moment(20, 30, 1.0)))
    >>> average_precisions(judge([pair], {"a": 0}, [0.5, 0.95])).tolist()
    [[1.0, 0.0]]
    """
    if weights is None:
        weights = np.ones((1, len(judged.truths)))
    totals = weights @ judged.truths  # [B]
    drawn = weights[:, judged.video]  # [B, N]
    seen = np.maximum(np.cumsum(drawn, axis=1), 1e-300)  # of videos that were not drawn nothing is seen
    columns = []
    for hits in judged.hits:
        gained = drawn * hits
        precision = np.cumsum(gained, axis=1) / seen
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        columns.append((gained * envelope).sum(axis=1))
    with np.errstate(invalid="ignore"):
        return np.where(totals > 0, np.stack(columns) / np.where(totals > 0, totals, 1), np.nan).T


def judge_pair(
    predictions: Sequence[Moment], truth: Sequence[Segment], thresholds: Sequence[float] = THRESHOLDS
) -> PairResult:
    """How the ranked predictions of one pair fit its true segments, of which there is at least one.

    AP is of the first ten predictions; equal scores keep their order.
    Source: Moment-DETR standalone_eval (QVHighlights); there a query without predictions vanishes from the mean, here
    it counts 0. There R1 takes the first listed window; here the surest, which is listed first in a well-formed file.

    >>> judge_pair([Moment(0, 10, 1.0), Moment(20, 30, 2.0)], [(0, 10)], [0.5])
    PairResult(ap=array([0.5]), top1=0.0, top5=1.0)
    """
    table = np.array(predictions, float).reshape(-1, 3)
    table = table[np.argsort(-table[:, 2], kind="stable")][:_LISTED]
    overlaps = tious(table[:, :2], np.array(sorted(truth), float))
    best = np.concatenate([overlaps.max(axis=1), [0.0]])
    hits = match(overlaps, thresholds)
    judged = Judged(hits, np.zeros(len(table), int), np.array([len(truth)]))
    return PairResult(average_precisions(judged)[0], float(best[0]), float(best[:5].max()))


def clean(segments: Sequence[Sequence[float]], *, unique: bool) -> Cleaned:
    """Segments without those of no or negative length; of true ones (`unique`) also without repetitions.

    A zero-length pair has tIoU 0/0, which released evaluators count as found; a repeated true segment can never be
    found a second time.

    >>> clean([(0, 5), (7, 7), (0, 5)], unique=True)
    Cleaned(kept=[(0, 5)], empty=1, repeated=1)
    """
    kept = [segment for segment in segments if segment[1] > segment[0]]
    distinct = list(dict.fromkeys(tuple(segment) for segment in kept)) if unique else kept
    return Cleaned(distinct, len(segments) - len(kept), len(kept) - len(distinct))


def boundary_errors(pairs: Sequence[Pair]) -> list[BoundaryError]:
    """Errors of the surest answer of every pair against the true segment that it overlaps most.

    Answers without any overlap have no edge to be compared with and are left out: say beside the errors of how many
    pairs they are. Of equally sure answers the first counts, of equal overlaps the earliest segment.

    >>> boundary_errors([Pair("clip", "a", ((10.0, 20.0),), (Moment(12.0, 19.0, 1.0),))])
    [BoundaryError(video='a', query='clip', start=2.0, end=-1.0, tiou=0.7)]
    """
    errors = []
    for pair in pairs:
        if not pair.truth or not pair.predictions:
            continue
        first = max(pair.predictions, key=lambda moment: moment.score)
        truth = np.array(sorted(pair.truth), float)
        overlaps = tious(np.array([first[:2]], float), truth)[0]
        best = int(overlaps.argmax())
        if overlaps[best] > 0:
            start, end = (float(first[edge] - truth[best, edge]) for edge in (0, 1))
            errors.append(BoundaryError(pair.video, pair.query, start, end, float(overlaps[best])))
    return errors
