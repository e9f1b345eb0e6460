"""How well a curve ranks the samples of a video: AUROC and average precision of one (video, query) pair.

M samples of a curve.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score


class PairRanking(NamedTuple):
    """AUROC (chance 0.5), AUPRC (chance = prevalence) and the share of positive samples."""

    auroc: float
    auprc: float
    prevalence: float


def labels_at(times: np.ndarray, segments: Sequence[tuple[float, float]]) -> np.ndarray:
    """[M] bool: whether a segment [start, end) holds at each time.

    >>> labels_at(np.array([0.5, 1.5]), [(1.0, 2.0)])
    array([False,  True])
    """
    return np.any([(start <= times) & (times < end) for start, end in segments] or [np.zeros(len(times), bool)], axis=0)


def rank_pair(scores: np.ndarray, labels: np.ndarray) -> PairRanking | None:
    """Ranking quality of one curve, or None where it is undefined (all samples positive, or none).

    scores: [M].  labels: [M] bool.  AUPRC is scikit-learn's step-wise average precision (not interpolated).
    """
    if labels.all() or not labels.any():
        return None
    return PairRanking(
        float(roc_auc_score(labels, scores)), float(average_precision_score(labels, scores)), float(labels.mean())
    )
