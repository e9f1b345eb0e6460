"""The few frames of a video that are its clip in retrieval, in place of the grid that clips are cut from."""

from typing import NamedTuple

import numpy as np

from xclip_module.interface import PictureReader, Video
from xclip_module.video.frame_choice import FrameChoice


class ChosenGrid(NamedTuple):
    """In place of a grid: the few frames of a video that were chosen for it, all of which are its clip."""

    choice: FrameChoice

    @property
    def frames_per_clip(self) -> int:
        """No clip has more; a short video has fewer."""
        return self.choice.frames

    def fits(self, reading: PictureReader) -> bool:
        """Whether that reads these frames."""
        return reading.choice == self.choice

    def expected(self, video: Video) -> float:
        """The most that a video can have."""
        return self.choice.frames

    def rows(self, time: float, frames: int, *, video: str, duration: float = 0.0) -> np.ndarray:
        """[T] all frames of the video, T = `frames`."""
        return np.arange(frames)
