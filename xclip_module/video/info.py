"""The one rule by which a time chooses a frame.

Letters: N shown frames, T times asked for.
"""

import numpy as np

# Containers round time stamps: Matroska to whole milliseconds.
_ROUNDING_SECONDS = 1e-3


def frames_on_show(shown: np.ndarray, times: np.ndarray) -> np.ndarray:
    """[T] index of the frame on show at each time: the last one that came on by then, the first one before that.

    shown: [N] seconds, rising.  times: [T] seconds, never falling. A frame up to 1 ms late still counts as there.
    Raises ValueError for falling or non-finite times: the readers go through a file once, forwards.

    >>> frames_on_show(np.array([0.0, 0.04, 1.0]), np.array([0.0, 0.0396, 0.5, 7.0]))
    array([0, 1, 1, 2])
    """
    times = np.asarray(times, np.float64)
    if not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise ValueError("the times asked for must be finite and never fall")
    return np.maximum(np.searchsorted(shown, times + _ROUNDING_SECONDS, side="right") - 1, 0)
