"""What can be had without looking, and at best: the rows that a score has to be read beside.

M samples of a curve. Truth is seconds; training truth comes from training videos' labels alone.
"""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from xclip_module.evaluation.frames import labels_at
from xclip_module.interface import Moment, Segment

_BINS = 200
# Times that are looked at in each bin.
_PER_BIN = 10

# Per training video, the query's segments and the video's length.
TrainingTruth = Sequence[tuple[Sequence[Segment], float]]


def time_prior(training: TrainingTruth, times: np.ndarray, duration: float) -> np.ndarray:
    """Score [M] of one query at each time: the share of training videos in which it holds at that relative position.

    The position is cut into 200 bins, over each of which the share is averaged. On Cholec80 40/40 this blind clock has
    AUROC .939, AP .725 and 72.5 % phase accuracy.

    training: see `TrainingTruth`.  times: [M] seconds in a video of `duration`.

    >>> time_prior([([(0.0, 50.0)], 100.0)], np.array([10.0, 180.0]), 200.0)
    array([1., 0.])
    """
    positions = (np.arange(_BINS * _PER_BIN) + 0.5) / (_BINS * _PER_BIN)
    held = np.zeros(len(positions))
    for segments, length in training:
        held += labels_at(positions * length, segments)
    shares = held.reshape(_BINS, _PER_BIN).mean(axis=1)
    # The last sample of a curve may lie at the very end, which is no 201st bin.
    bins = np.minimum((times / duration * _BINS).astype(int), _BINS - 1)
    return shares[bins] / max(1, len(training))


def train_mean(training: TrainingTruth, duration: float) -> list[Moment]:
    """One moment: from the mean relative start to the mean relative end in the training videos that hold the query.

    A query that holds several times counts from its first start to its last end.

    >>> train_mean([([(10.0, 20.0)], 100.0), ([], 50.0)], 200.0)
    [Moment(start=20.0, end=40.0, score=1.0)]
    """
    spans = [(segments[0][0] / length, segments[-1][1] / length) for segments, length in training if segments]
    if not spans:
        return []
    start, end = np.mean(spans, axis=0)
    return [Moment(float(start * duration), float(end * duration), 1.0)]


def random_scores(names: Sequence[str], video: str, count: int, seed: int) -> np.ndarray:
    """Normal noise [Q, M] that depends on seed, video and query name alone, not on order or number of videos."""
    rows = []
    for name in names:
        # Not `hash`, which Python salts anew in every process.
        digest = hashlib.sha256(f"{seed}/{video}/{name}".encode()).digest()
        rows.append(np.random.default_rng(list(digest)).normal(size=count))
    return np.stack(rows)


def oracle_scores(names: Sequence[str], truth: Mapping[str, Sequence[Segment]], times: np.ndarray) -> np.ndarray:
    """Curves [Q, M] that are 1 where the query holds: through the segmenter, what this stride can reach at best."""
    return np.stack([labels_at(times, truth.get(name, ())).astype(float) for name in names])


def covered(moments: Sequence[Moment], times: np.ndarray) -> np.ndarray:
    """Curve [M] that is 1 inside the moments: frame scores of a control that gives only segments."""
    return labels_at(times, [moment[:2] for moment in moments]).astype(float)
