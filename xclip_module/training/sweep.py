"""The search for the penalty of a linear head, on validation data."""

from collections.abc import Callable

# Decades of the first grid, strongest first so that each fit begins near its end, and the steps of its refinements.
_COARSE = (6.0, 4.0, 2.0, 0.0, -2.0, -4.0, -6.0)
_REFINEMENTS = (1.0, 0.5, 0.25, 0.125)


def sweep(score: Callable[[float], float]) -> float:
    """The penalty with the largest score; of equal ones the strongest.

    score: from a penalty to a validation number. It is asked 7 times from 1e6 down to 1e-6, then twice around the best
    at half the distance, down to eight steps a decade.

    Source: "parametric binary search" of CLIP's linear probe (Radford et al. 2021, section A.3).

    >>> import math
    >>> f"{sweep(lambda penalty: -abs(math.log10(penalty) - 1.1)):.3f}"
    '13.335'
    """
    scores = {decades: score(10**decades) for decades in _COARSE}
    for step in _REFINEMENTS:
        centre = _best(scores)
        for decades in (centre + step, centre - step):
            if _COARSE[-1] <= decades <= _COARSE[0]:
                scores[decades] = score(10**decades)
    return 10 ** _best(scores)


def is_at_an_end(penalty: float) -> bool:
    """Whether the search may have wanted to go on.

    >>> is_at_an_end(1e6), is_at_an_end(1e-6), is_at_an_end(1.0)
    (True, True, False)
    """
    return not 1.001 * 10 ** _COARSE[-1] < penalty < 0.999 * 10 ** _COARSE[0]


def _best(scores: dict[float, float]) -> float:
    return max(scores, key=lambda decades: (scores[decades], decades))
