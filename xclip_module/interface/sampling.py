"""Clips as slices of a video's frame grid, and the curve's sample times."""

import math
from typing import NamedTuple

import numpy as np

from xclip_module.errors import DataError


class Sampling(NamedTuple):
    """How a video is cut: clips of `frames_per_clip` frames over `clip_seconds`, one every `stride_seconds`."""

    clip_seconds: float
    frames_per_clip: int
    stride_seconds: float

    @property
    def fps(self) -> float:
        """Rate of the frame grid that all clips share."""
        return self.frames_per_clip / self.clip_seconds


def curve_times(duration: float, stride_seconds: float) -> np.ndarray:
    """Sample times [M] in seconds: the sample at t stands for [t - stride/2, t + stride/2).

    A rest shorter than half a stride at the end belongs to the last sample.

    >>> curve_times(10.5, 4.0)
    array([ 2.,  6., 10.])
    """
    count = max(1, int(duration / stride_seconds + 0.5))
    return (np.arange(count) + 0.5) * stride_seconds


def clip_rows(times: np.ndarray, frames: int, sampling: Sampling, *, video: str, duration: float = 0.0) -> np.ndarray:
    """Rows of the frame grid for the clip around each time: [M, frames_per_clip].

    frames: how many grid frames the video has; grid frame j was taken at j / fps.
    duration: seconds, for the message; 0 = what the grid spans.
    A clip that would reach over an end is moved inside, so that all its frames are real and different.
    Raises DataError for a video shorter than one clip.
    """
    spare = frames - sampling.frames_per_clip
    if spare < 0:
        seconds = duration or frames / sampling.fps
        lengths = f"{seconds:g} s, a clip is {sampling.clip_seconds:g} s"
        attempt = f"--data.clip_seconds={max(math.floor(100 * seconds) / 100, 0.01):g}"
        raise DataError("video shorter than one clip", video, lengths, attempt)
    starts = np.floor((times - sampling.clip_seconds / 2) * sampling.fps + 0.5).astype(int)
    return np.clip(starts, 0, spare)[:, None] + np.arange(sampling.frames_per_clip)
