"""How well score curves rank the samples of videos: AUROC and average precision, of one video or pooled over all.

M samples of a curve, Q queries, K points of a plotted curve. AP here is scikit-learn's: a sum over distinct thresholds,
not interpolated, equal scores count as one threshold. It is not the AP of `localisation`. Scores and labels of several
videos are lists of one [M] (of `*_map` [Q, M]) per video.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xclip_module.errors import NonFiniteError


class PairRanking(NamedTuple):
    """AUROC (chance 0.5), AUPRC (chance = prevalence) and the share of positive samples."""

    auroc: float
    auprc: float
    prevalence: float


class PresenceMap(NamedTuple):
    """Mean AP over the queries where it is defined (None if nowhere), and the AP of each query or None."""

    mean: float | None
    per_query: tuple[float | None, ...]


class CurvePoints(NamedTuple):
    """Points of a curve to draw, and the score from which on a sample counts as positive.

    x, y: [K] fractions.  thresholds: of a PR curve [K - 1], the last point (recall 0) has none; of a ROC curve [K],
    the first one is infinite.
    """

    x: np.ndarray
    y: np.ndarray
    thresholds: np.ndarray


def labels_at(times: np.ndarray, segments: Sequence[tuple[float, float]]) -> np.ndarray:
    """[M] bool: whether a segment [start, end) holds at each time.

    >>> labels_at(np.array([0.5, 1.5]), [(1.0, 2.0)])
    array([False,  True])
    """
    return np.any([(start <= times) & (times < end) for start, end in segments] or [np.zeros(len(times), bool)], axis=0)


def rank_pair(scores: np.ndarray, labels: np.ndarray) -> PairRanking | None:
    """Ranking quality of one curve, or None where it is undefined (all samples positive, or none).

    scores: [M].  labels: [M] bool.  Raises NonFiniteError (a ValueError) on NaN or infinity.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    _check(scores, labels, dims=1)
    # Not left to scikit-learn: of one kind of samples AUROC is an error, NaN or a warning, by its version.
    if labels.all() or not labels.any():
        return None
    return PairRanking(
        float(roc_auc_score(labels, scores)), float(average_precision_score(labels, scores)), float(labels.mean())
    )


def sample_ap(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """Step-wise AP of one curve, or None without a positive sample; 1 where every sample is positive.

    scores: [M].  labels: [M] bool.  scikit-learn itself gives 0 without a positive sample, as if the query were there.

    >>> sample_ap(np.array([4.0, 3.0, 2.0, 1.0]), np.array([True, False, False, True]))
    0.75
    """
    from sklearn.metrics import average_precision_score

    _check(scores, labels, dims=1)
    return float(average_precision_score(labels, scores)) if labels.any() else None


def pooled_ranking(scores: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> PairRanking | None:
    """Ranking quality of one query over the samples of all videos put together ("pooled per query").

    Unlike the mean over videos of `rank_pair` it also asks that scores are comparable between videos, and long videos
    weigh more. None where undefined, as in `rank_pair`.

    >>> pooled_ranking([np.array([0.1, 0.2]), np.array([0.8, 0.9])], [np.array([False, True]), np.array([False, True])])
    PairRanking(auroc=0.75, auprc=0.8333333333333333, prevalence=0.5)
    """
    return rank_pair(*_pool(scores, labels))


def frame_pooled_map(scores: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> PresenceMap:
    """Tool-presence mAP of EndoNet: per query one AP over the samples of all videos, then the mean over queries.

    A query that is present nowhere is left out.
    Source: Twinanda et al. 2017 (EndoNet), tool presence detection.
    """
    every_score, every_label = _pool(scores, labels, dims=2)  # [Q, M of all videos]
    return _mean_map([sample_ap(score, label) for score, label in zip(every_score, every_label, strict=True)])


def video_first_map(scores: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> PresenceMap:
    """Tool-presence mAP of CholecT50: per query the mean of the videos' APs, then the mean over queries.

    A video without the query is left out of that query's mean.
    Source: ivtmetrics 0.1.5 `compute_video_AP`, which means to leave such videos out too but knows them by the text
    "-0.0" of an old scikit-learn; with a current one it averages them in as 0.
    """
    _check_videos(scores, labels, dims=2)
    per_query = []
    for row in range(len(scores[0])):
        values = [sample_ap(score[row], label[row]) for score, label in zip(scores, labels, strict=True)]
        per_query.append(_mean_map(values).mean)
    return _mean_map(per_query)


def precision_recall_points(scores: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> CurvePoints | None:
    """Precision (y) over recall (x) of a query pooled over videos, every distinct score; None where it is undefined.

    Steps, not a line, join the points: the area below them is then the AP.
    """
    from sklearn.metrics import precision_recall_curve

    pooled, positive = _pool(scores, labels)
    if positive.all() or not positive.any():
        return None
    precision, recall, thresholds = precision_recall_curve(positive, pooled)
    return CurvePoints(recall, precision, thresholds)


def roc_points(scores: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> CurvePoints | None:
    """True positive rate (y) over false positive rate (x) of a query pooled over videos; None where it is undefined.

    Points on a straight line between their neighbours are left out.
    """
    from sklearn.metrics import roc_curve

    pooled, positive = _pool(scores, labels)
    if positive.all() or not positive.any():
        return None
    return CurvePoints(*roc_curve(positive, pooled))


def _pool(
    scores: Sequence[np.ndarray], labels: Sequence[np.ndarray], *, dims: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    _check_videos(scores, labels, dims)
    return np.concatenate(scores, axis=-1), np.concatenate(labels, axis=-1)


def _mean_map(values: Sequence[float | None]) -> PresenceMap:
    defined = [value for value in values if value is not None]
    return PresenceMap(float(np.mean(defined)) if defined else None, tuple(values))


def _check_videos(scores: Sequence[np.ndarray], labels: Sequence[np.ndarray], dims: int) -> None:
    if not len(scores) or len(scores) != len(labels):
        raise ValueError(f"scores of {len(scores)} videos, labels of {len(labels)}; expected the same, at least one")
    for video, (score, label) in enumerate(zip(scores, labels, strict=True)):
        _check(score, label, dims, f"video {video}")


def _check(scores: np.ndarray, labels: np.ndarray, dims: int, where: str = "") -> None:
    # A matrix of queries in place of one query would pass through scikit-learn as a multi-label problem.
    if scores.ndim != dims or scores.shape != labels.shape:
        expected = f"the same shape of {dims} dimension(s)"
        raise ValueError(f"scores {scores.shape}, labels {labels.shape} {where}; expected {expected}")
    if not np.isfinite(scores).all():
        raise NonFiniteError("scores are not finite", where, f"{int((~np.isfinite(scores)).sum())} of {scores.size}")
