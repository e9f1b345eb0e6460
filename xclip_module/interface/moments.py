"""Curves, the moments that answer a query, what is true, and how far two segments agree.

Q queries, M samples of a curve. Times are seconds.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from xclip_module.interface.corpus import Segment


class Curve(NamedTuple):
    """The scores of one video.

    times: [M] seconds; the sample at t stands for [t - stride/2, t + stride/2).
    scores: [Q, M] raw logits, rows are texts.
    duration: of the video in seconds.
    background: [M] log of the mean exponential over sentences that fit any picture; None = not asked for.
    """

    video: str
    times: np.ndarray
    scores: np.ndarray
    duration: float
    background: np.ndarray | None = None

    @property
    def contrast(self) -> np.ndarray:
        """Scores [Q, M] with the background taken away: the log-odds against a sentence that fits any picture."""
        return self.scores if self.background is None else self.scores - self.background


class Moment(NamedTuple):
    """One answer: when, and how sure (larger is surer; comparable between videos)."""

    start: float
    end: float
    score: float


class Pair(NamedTuple):
    """One video, one query, its true segments (none = absent) and its predictions; all of positive length."""

    query: str
    video: str
    truth: tuple[Segment, ...]
    predictions: tuple[Moment, ...]


class Question(NamedTuple):
    """One query: its name and kind ("phase", "tool", "free")."""

    name: str
    kind: str


class Answer(NamedTuple):
    """One video's.

    ranking: [Q, M], what frame scores are computed from.  moments: query name -> best first.
    """

    video: str
    times: np.ndarray
    duration: float
    ranking: np.ndarray
    moments: Mapping[str, list[Moment]]


def tiou(first: Sequence[float], second: Sequence[float]) -> float:
    """Temporal intersection over union of two segments of positive length; a moment's score plays no part.

    >>> tiou((0.0, 10.0), (5.0, 20.0))
    0.25
    """
    overlap = max(min(first[1], second[1]) - max(first[0], second[0]), 0.0)
    return overlap / ((first[1] - first[0]) + (second[1] - second[0]) - overlap)
