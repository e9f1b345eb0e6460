"""How one room asks for the pictures that another one reads.

N frames that are read of a video, n of a batch, T frames of a clip, S side of a square picture.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from xclip_module.errors import DataError
from xclip_module.interface.corpus import Video
from xclip_module.interface.video import FrameFolder, VideoInfo

if TYPE_CHECKING:
    from torch import Tensor


class PictureStream(NamedTuple):
    """The pictures of one video, which are decoded while they are taken.

    frames: N, how many will come.  duration: of the video in seconds.
    batches: uint8 [n, 3, S, S]; raises DataError where the file is damaged.
    """

    frames: int
    duration: float
    batches: Iterator[Tensor]


class PictureReader(Protocol):
    """How videos are read: which frames of each, as which squares. See `video.reading.Reading`."""

    @property
    def fps(self) -> float:
        """Frames per second of the grid that is read, unless there is a choice."""

    @property
    def choice(self) -> object | None:
        """The rule that chooses a few frames of each video in place of a grid."""

    def key(self) -> dict[str, Any]:
        """All on which the squares depend beside the file."""

    def thread_count(self) -> int:
        """How many threads read side by side."""

    def open(self, video: Video) -> VideoInfo | FrameFolder:
        """What is known of a video before its frames are read. Raises DataError where it cannot be read."""

    def times(self, video: Video, source: VideoInfo | FrameFolder) -> np.ndarray:
        """[N] seconds of all frames that are read of an opened video. Raises DataError where there are none."""

    def squares(self, source: VideoInfo | FrameFolder) -> Callable[[np.ndarray], Iterator[Tensor]]:
        """A function from times (seconds, never falling) to the squares [3, S, S] uint8 of an opened video."""

    def stream(self, videos: Sequence[Video]) -> Generator[tuple[Video, PictureStream | DataError], None, None]:
        """Each video, in order, with its pictures, or with why it cannot be opened; closing it ends the reading."""


class AnyGrid(Protocol):
    """The frames of a video from which its clips are cut."""

    @property
    def frames_per_clip(self) -> int:
        """No clip has more."""

    def fits(self, reading: PictureReader) -> bool:
        """Whether that reads these frames."""

    def expected(self, video: Video) -> float:
        """About how many frames a video has, without opening it."""

    def rows(self, time: float, frames: int, *, video: str, duration: float = 0.0) -> np.ndarray:
        """[T] which of a video's `frames` frames are the clip around `time` seconds.

        Raises DataError for a video shorter than one clip.
        """


class ClipSource(Protocol):
    """Where training clips come from; safe to ask from several threads."""

    @property
    def grid(self) -> AnyGrid:
        """Which frames a clip has."""

    def clip(self, video: str, time: float) -> Tensor:
        """The clip around `time` seconds of the video with this id: [T, 3, S, S] uint8, T at most the grid's."""


def check_length(video: Video, duration: float) -> None:
    """Refuses labels of another video: their length and the file's must agree to the labels' own period."""
    file = video.source.folder if isinstance(video.source, FrameFolder) else video.source
    if video.label_seconds and abs(duration - video.label_seconds) > video.label_tolerance + 1e-6:
        lengths = f"the video lasts {duration:.2f} s, the labels of {video.id} {video.label_seconds:.2f} s"
        attempt = "put the label file of this very video beside it"
        raise DataError("labels and video differ in length", file, lengths, attempt)
    if video.last_moment > duration + video.label_tolerance + 1e-6:
        lengths = f"the video lasts {duration:.2f} s, a moment of {video.id} ends at {video.last_moment:.2f} s"
        raise DataError("a moment beyond the video's end", file, lengths, "mend its annotation")
