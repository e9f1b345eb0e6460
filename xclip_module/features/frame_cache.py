"""Training clips from JPEG files made once, or straight from the video: one method, the same frames.

JPEG by Pillow, whose codec is the one inside torchvision.io (libjpeg-turbo); that module is deprecated since 0.29.

Letters: T frames of a clip, N grid frames of a video, n of a batch, S side of the stored square.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from xclip_module.errors import DataError
from xclip_module.features.stored_frames import AnyGrid, Content, Place, log, open_frames, open_source
from xclip_module.features.video_pass import Arrays, Reading, check_length, default_threads
from xclip_module.interface import FrameFolder, Video, VideoInfo
from xclip_module.run import distributed
from xclip_module.run.distributed import World
from xclip_module.video.readers import choose_reader, read_with
from xclip_module.video.transform import to_square

QUALITY = 95  # of JPEG


class Frames(Protocol):
    """Where training clips come from; safe to ask from several threads."""

    grid: AnyGrid

    def clip(self, video: str, time: float) -> Tensor:
        """The clip around `time` seconds of the video with this id: [T, 3, S, S] uint8, T at most the grid's."""
        ...


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


class Opened(NamedTuple):
    """A video's probed file or its folder, and the seconds [N] of its frames."""

    source: VideoInfo | FrameFolder
    times: np.ndarray


class VideoFrames:
    """Clips straight from the videos, which are opened anew for each."""

    def __init__(self, videos: Mapping[str, Opened], reading: Reading, *, grid: AnyGrid):
        """videos: by id."""
        self.grid, self._videos, self._reading = grid, videos, reading
        self._readers = {video: choose_reader(one.source, reading.decoder) for video, one in videos.items()}

    def clip(self, video: str, time: float) -> Tensor:
        """The clip around `time` seconds: [T, 3, S, S] uint8. Raises DataError where the file is damaged."""
        (source, times), reading = self._videos[video], self._reading
        times = times[self.grid.rows(time, len(times), video=video, duration=source.duration)]
        pictures = read_with(self._readers[video], source, times, timeout_seconds=reading.timeout_seconds)
        return torch.stack([to_square(picture, size=reading.size, crop=reading.crop) for picture in pictures])


class Source(NamedTuple):
    """Where clips come from, and the videos left out with the reason."""

    frames: Frames
    skipped: dict[str, str]


def stored_side(size: int, *, crop_scale: float) -> int:
    """Side of stored squares for pictures of `size`: an eighth is cut away by crops, if there are any.

    >>> stored_side(224, crop_scale=0.7), stored_side(224, crop_scale=1.0)
    (256, 224)
    """
    return size if crop_scale == 1 else round(size * 8 / 7)


def cached_frames(videos: Sequence[Video], place: Place, *, grid: AnyGrid) -> Source:
    """All videos' frames as JPEG files, made where they are not stored yet; see `open_frames`.

    place.reading must read the grid's frames.
    """
    opened = open_frames(videos, jpeg_content(), place, grid=grid, is_shared=True)
    return Source(CachedFrames({video.id: arrays for video, arrays in opened.videos}, grid=grid), opened.skipped)


def jpeg_content() -> Content:
    """What is stored of a training video."""
    return Content("training frames", {"kind": "jpeg", "quality": QUALITY}, _to_jpegs)


def video_frames(
    videos: Sequence[Video], reading: Reading, *, grid: AnyGrid, world: World, skip_unreadable: bool
) -> Source:
    """All videos, probed, each process a share of them.

    Raises DataError for one that cannot be read, is shorter than a clip or has labels of another length, unless such
    videos may be left out.
    """

    def open_one(video: Video) -> Opened | DataError:
        try:
            source = open_source(video, reading)
            check_length(video, source.duration)
            times = reading.times(video, source)
            grid.rows(0.0, len(times), video=video.id, duration=source.duration)
        except DataError as error:
            return error
        return Opened(source, times)

    mine = distributed.shard(videos, world)
    with ThreadPoolExecutor(reading.threads or default_threads()) as pool:
        opened = dict(zip((video.id for video in mine), pool.map(open_one, mine), strict=True))
    for error in (one for one in opened.values() if isinstance(one, DataError)):
        if not skip_unreadable:
            raise error
        log.warning("left out: %s", error)
    found = {name: one for share in distributed.gather(opened, world) for name, one in share.items()}
    whole = {name: one for name, one in found.items() if not isinstance(one, DataError)}
    skipped = {name: str(one) for name, one in found.items() if isinstance(one, DataError)}
    return Source(VideoFrames(whole, reading, grid=grid), skipped)


def _to_jpegs(batches: Iterator[Tensor], frames: int) -> dict[str, Any]:
    pictures = [_to_jpeg(frame) for batch in batches for frame in batch]
    assert len(pictures) == frames, "a reader gives every frame that it was asked for"
    offsets = np.cumsum([0, *map(len, pictures)])
    return {"data": np.frombuffer(b"".join(pictures), np.uint8), "offsets": offsets.astype(np.int64)}


def _to_jpeg(frame: Tensor) -> bytes:
    written = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(frame.permute(1, 2, 0).numpy())).save(written, "JPEG", quality=QUALITY)
    return written.getvalue()
