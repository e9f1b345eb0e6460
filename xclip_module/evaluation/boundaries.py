"""How far the edges of the first answers lie from the true ones, in seconds."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xclip_module.evaluation.segments import tious
from xclip_module.interface import Pair


class BoundaryError(NamedTuple):
    """One first answer: start and end minus the true ones in seconds (positive = too late), and its tIoU."""

    video: str
    query: str
    start: float
    end: float
    tiou: float


def boundary_errors(pairs: Sequence[Pair]) -> list[BoundaryError]:
    """Errors of the surest answer of every pair against the true segment that it overlaps most.

    Answers without any overlap have no edge to be compared with and are left out: say beside the errors of how many
    pairs they are. Of equally sure answers the first counts, of equal overlaps the earliest segment.

    >>> from xclip_module.interface import Moment
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
