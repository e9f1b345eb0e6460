"""Which frame is on show at a time, and at which times the released retrieval code looks at a clip; in seconds.

Letters: N shown frames of the video, T times.
"""

from typing import NamedTuple

import numpy as np

from xclip_module.errors import DataError

SAMPLINGS = ("uniform", "head", "tail")
# Containers round time stamps: Matroska to whole milliseconds.
_ROUNDING_SECONDS = 1e-3
# The times of frames are rounded at either end of a video.
_LENGTH_ROUNDING_SECONDS = 1.5e-3


class FrameChoice(NamedTuple):
    """Which frames of a video are its clip: at most `frames`.

    rule: "grid" as X-CLIP and CLIP4Clip, "spread" as MMAction2.  slicing, rate: of the grid, see `grid_times`.
    """

    rule: str
    frames: int
    slicing: str = "uniform"
    rate: int = 1

    def times(self, shown: np.ndarray, duration: float, span: tuple[float, float] | None, *, video: str) -> np.ndarray:
        """[T] seconds, never falling, from a video's shown frames [N]. Raises DataError where the clip has none."""
        if self.rule == "spread":
            return uniform_times(shown, self.frames)
        whole = (int(span[0]), int(span[1])) if span else None  # the grid counts whole seconds
        fps = stream_fps(shown, duration)
        times = grid_times(shown, fps, max_frames=self.frames, sampling=self.slicing, rate=self.rate, span=whole)
        if not len(times):
            reason = f"the video ends at {duration:.1f} s, the clip begins at {span[0] if span else 0:g} s"
            raise DataError("a clip without a frame", video, reason, "another file of this video")
        return times

    @property
    def protocol(self) -> str:
        """In words, for the results."""
        if self.rule == "spread":
            return f"{self.frames} spread over the video (MMAction2)"
        return f"{self.frames} at most, {self.rate} a second, of more: {self.slicing} (X-CLIP, CLIP4Clip)"


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


def grid_times(
    shown: np.ndarray,
    fps: float,
    *,
    max_frames: int,
    sampling: str = "uniform",
    rate: int = 1,
    span: tuple[int, int] | None = None,
) -> np.ndarray:
    """Times [T] in seconds at which X-CLIP and CLIP4Clip look at a clip; T is at most `max_frames`.

    shown: [N] seconds at which each frame comes on.  fps: as the container states it, `stream_fps` otherwise.
    rate: frames a second of the grid (feature_framerate).  sampling: which remain where the grid has more than
    `max_frames` (slice_framepos): "head" 0, "tail" 1, "uniform" 2.
    span: first and last second, the last one included; None = all. It may reach beyond the end.
    The grid counts frames with `fps` cut to a whole number: at 29.97 fps it is frame 29 s, which is on show up to 3 %
    before second s. A clip that starts behind the last frame gives no time at all, and no video to compare.
    Source: CLIP4Clip (Luo et al. 2022) dataloaders/rawvideo_util.py and the `_get_rawvideo` of its loaders; X-CLIP's
    (Ma et al. 2022) are the same. A rate below one frame a second, which they divide by, counts as one here.

    >>> grid_times(np.arange(300) / 30, 30.0, max_frames=4)
    array([0., 3., 6., 9.])
    """
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling {sampling!r}, expected one of {SAMPLINGS}")
    if span is not None and not 0 <= span[0] < span[1]:
        raise ValueError(f"span {span}, expected 0 <= first < last second")
    whole = max(int(fps), 1)
    first, last = span or (0, len(shown))
    seconds = np.arange(first, min(last, -(-len(shown) // whole)) + 1)
    offsets = np.arange(0, whole, max(whole // rate, 1))[:rate]
    frames = (seconds[:, None] * whole + offsets).ravel()
    frames = frames[frames < len(shown)]
    return shown[frames[_kept(len(frames), max_frames, sampling)]]


def uniform_times(shown: np.ndarray, count: int = 12) -> np.ndarray:
    """Times [count] in seconds at which MMAction2 looks at a clip: always `count`, one several times in a short clip.

    shown: [N] seconds at which each frame comes on, N > 0.
    Source: MMAction2 mmaction/datasets/transforms/loading.py, `UniformSample` in test mode with one clip. In training
    it draws a frame from each of the `count` parts instead.

    >>> uniform_times(np.arange(5.0), 4)
    array([0., 1., 2., 3.])
    """
    part = (len(shown) - 1) / count
    # Half a part, cut to whole frames; np.round goes to the even neighbour, as the released code does.
    return shown[np.round(part * np.arange(count)).astype(int) + int(part // 2)]


def stream_fps(shown: np.ndarray, duration: float) -> float:
    """Frames a second of a video from its times, for `grid_times`, which cuts it to a whole number.

    A rate that is whole but for the rounding of times is that whole number: 25 frames in 1.001 s are 25 fps, not 24.
    """
    whole = round(len(shown) / duration)
    if whole and abs(len(shown) / whole - duration) <= _LENGTH_ROUNDING_SECONDS:
        return float(whole)
    return len(shown) / duration


def _kept(frames: int, max_frames: int, sampling: str) -> np.ndarray:
    """Which of a grid's frames remain."""
    if frames <= max_frames:
        return np.arange(frames)
    if sampling == "uniform":
        return np.linspace(0, frames - 1, max_frames).astype(int)
    return np.arange(max_frames) + (frames - max_frames if sampling == "tail" else 0)
