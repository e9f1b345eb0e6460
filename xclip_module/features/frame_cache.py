"""Training clips from JPEG files made once, or straight from the video: one method, the same frames.

JPEG by Pillow, whose codec is the one inside torchvision.io (libjpeg-turbo); that module is deprecated since 0.29.

Letters: T frames of a clip, N grid frames of a video, n of a batch, S side of the stored square.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from xclip_module.errors import DataError
from xclip_module.features.stored_frames import Content, FrameStorage, log, open_frames
from xclip_module.features.video_pass import Arrays
from xclip_module.interface import AnyGrid, ClipSource, FrameFolder, PictureReader, Video, VideoInfo, check_length
from xclip_module.run import distributed
from xclip_module.run.distributed import World

QUALITY = 95  # of JPEG
_Opened = tuple[VideoInfo | FrameFolder, np.ndarray]


class CachedFrames:
    """Clips from stored JPEG files."""

    def __init__(self, arrays: Mapping[str, Arrays], *, grid: AnyGrid):
        """arrays: video id -> "data" (the bytes of all pictures), "offsets" [N + 1] into it, "frames" (N)."""
        self.grid, self._arrays = grid, arrays

    def clip(self, video: str, time: float) -> Tensor:
        """The clip around `time` seconds: [T, 3, S, S] uint8, strided as torch's channels_last."""
        stored = self._arrays[video]
        rows = self.grid.rows(time, int(stored["frames"]), video=video)
        spans = zip(stored["offsets"][rows], stored["offsets"][rows + 1], strict=True)
        pictures = [np.asarray(Image.open(io.BytesIO(stored["data"][start:stop].data))) for start, stop in spans]
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


class VideoFrames:
    """Clips straight from the videos, which are opened anew for each."""

    def __init__(self, videos: Mapping[str, _Opened], reading: PictureReader, *, grid: AnyGrid):
        """videos: by id, its probed file or its folder and the seconds [N] of its frames."""
        self.grid, self._videos = grid, videos
        self._squares = {name: reading.squares(source) for name, (source, _) in videos.items()}

    def clip(self, video: str, time: float) -> Tensor:
        """The clip around `time` seconds: [T, 3, S, S] uint8. Raises DataError where the file is damaged."""
        source, times = self._videos[video]
        rows = self.grid.rows(time, len(times), video=video, duration=source.duration)
        return torch.stack(list(self._squares[video](times[rows])))


class OpenedClips(NamedTuple):
    """Where clips come from, and the videos left out with the reason."""

    frames: ClipSource
    skipped: dict[str, str]


def stored_side(size: int, *, crop_scale: float) -> int:
    """Side of stored squares for pictures of `size`: an eighth is cut away by crops, if there are any.

    >>> stored_side(224, crop_scale=0.7), stored_side(224, crop_scale=1.0)
    (256, 224)
    """
    return size if crop_scale == 1 else round(size * 8 / 7)


def cached_frames(videos: Sequence[Video], storage: FrameStorage, *, grid: AnyGrid) -> OpenedClips:
    """All videos' frames as JPEG files, made where they are not stored yet; see `open_frames`."""
    stored = open_frames(videos, jpeg_content(), storage, grid=grid, is_shared=True)
    return OpenedClips(CachedFrames({video.id: arrays for video, arrays in stored.videos}, grid=grid), stored.skipped)


def jpeg_content() -> Content:
    """What is stored of a training video."""
    return Content("training frames", {"kind": "jpeg", "quality": QUALITY}, _to_jpegs)


def video_frames(
    videos: Sequence[Video], reading: PictureReader, *, grid: AnyGrid, world: World, skip_unreadable: bool
) -> OpenedClips:
    """All videos, probed, each process a share of them.

    Raises DataError for one that cannot be read, is shorter than a clip or has labels of another length, unless such
    videos may be left out.
    """

    def opened(video: Video) -> _Opened | DataError:
        try:
            source = reading.open(video)
            check_length(video, source.duration)
            times = reading.times(video, source)
            grid.rows(0.0, len(times), video=video.id, duration=source.duration)  # refuses a video shorter than a clip
        except DataError as error:
            return error
        return source, times

    share = distributed.shard(videos, world)
    with ThreadPoolExecutor(reading.thread_count()) as pool:
        outcomes = dict(zip((video.id for video in share), pool.map(opened, share), strict=True))
    for error in (outcome for outcome in outcomes.values() if isinstance(outcome, DataError)):
        if not skip_unreadable:
            raise error
        log.warning("left out: %s", error)
    every = {name: outcome for part in distributed.gather(outcomes, world) for name, outcome in part.items()}
    readable = {name: outcome for name, outcome in every.items() if not isinstance(outcome, DataError)}
    skipped = {name: str(outcome) for name, outcome in every.items() if isinstance(outcome, DataError)}
    return OpenedClips(VideoFrames(readable, reading, grid=grid), skipped)


def _to_jpegs(batches: Iterator[Tensor], frames: int) -> dict[str, Any]:
    pictures = [_to_jpeg(frame) for batch in batches for frame in batch]
    assert len(pictures) == frames, "a reader gives every frame that it was asked for"
    offsets = np.cumsum([0, *map(len, pictures)])
    return {"data": np.frombuffer(b"".join(pictures), np.uint8), "offsets": offsets.astype(np.int64)}


def _to_jpeg(frame: Tensor) -> bytes:
    written = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame.permute(1, 2, 0).numpy())).save(written, "JPEG", quality=QUALITY)
    return written.getvalue()
