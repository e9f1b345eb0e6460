"""From one curve to the moments of a query that holds many times, as tools do.

M samples of a curve, C runs. A run is a half-open range of samples [first, last); times are seconds.
"""

import numpy as np

from xclip_module.interface import Moment
from xclip_module.moments.proposals import as_moments, is_constant, runs, scan_statistic


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
