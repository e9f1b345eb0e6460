"""How videos are read: which frames of each, as which squares, by which decoder and how many threads.

N frames that are read of a video, n of a batch, S side of a square picture.
"""

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from xclip_module.errors import DataError
from xclip_module.interface import FrameFolder, PictureStream, Video, VideoInfo, check_length
from xclip_module.video.decode_ahead import FrameBatch, Job, decode_ahead
from xclip_module.video.frame_choice import FrameChoice
from xclip_module.video.inspect import probe
from xclip_module.video.readers import choose_reader, decoder_version, frame_times, read_with
from xclip_module.video.transform import to_square

_MOST_THREADS = 8


@dataclass(frozen=True)
class Reading:
    """How videos are read: the frame grid, the square picture, batches, and by which decoder.

    size: S.  crop: see `to_square`.  batch: frames at once.  decoder: see `readers`.  threads: 0 = by the cores.
    choice: a few frames of each video instead of a grid.
    """

    fps: float
    size: int
    crop: str
    batch: int
    decoder: str
    threads: int
    timeout_seconds: float
    choice: FrameChoice | None = None

    def key(self) -> dict[str, Any]:
        """What stored features depend on. With "auto" the reader follows from the file and these versions."""
        readers = [decoder_version(name) for name in ("pyav", "decord", "pillow")]
        grid: dict[str, Any] = {"choice": list(self.choice)} if self.choice else {"fps": self.fps}
        return {**grid, "size": self.size, "crop": self.crop, "decoder": self.decoder, "readers": readers}

    def thread_count(self) -> int:
        """Reading threads: those configured, else one per two cores of this process's share, at most 8."""
        if self.threads:
            return self.threads
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
        # torchrun sets it; each process of a machine is for one GPU, and all of them share the cores.
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return max(1, min(_MOST_THREADS, cores // (2 * processes)))

    def open(self, video: Video) -> VideoInfo | FrameFolder:
        """A video's frames folder, or its file probed. Raises DataError where it cannot be read."""
        if isinstance(video.source, FrameFolder):
            return video.source
        return probe(video.source, timeout_seconds=self.timeout_seconds)

    def times(self, video: Video, source: VideoInfo | FrameFolder) -> np.ndarray:
        """[N] seconds of all frames that are read of a video. Raises DataError where its clip has none."""
        if self.choice is None:
            return frame_times(source.duration, self.fps)
        return self.choice.times(source.times, source.duration, video.span, video=video.id)

    def squares(self, source: VideoInfo | FrameFolder) -> Callable[[np.ndarray], Iterator[Tensor]]:
        """As `PictureReader.squares`, one at a time; the function raises DataError where the file is damaged."""
        # Once for all times: to answer, decord reads the whole file, and a refusal stands in the log.
        reader = choose_reader(source, self.decoder)

        def squares_at(times: np.ndarray) -> Iterator[Tensor]:
            for picture in read_with(reader, source, times, timeout_seconds=self.timeout_seconds):
                yield to_square(picture, size=self.size, crop=self.crop)

        return squares_at

    def stream(self, videos: Sequence[Video]) -> Generator[tuple[Video, PictureStream | DataError], None, None]:
        """As `PictureReader.stream`; see `decode_ahead`."""
        decoding = decode_ahead(
            [Job(video.id, video.source, times=partial(self.times, video)) for video in videos],
            size=self.size,
            crop=self.crop,
            threads=self.thread_count(),
            batch=self.batch,
            decoder=self.decoder,
            timeout_seconds=self.timeout_seconds,
        )
        with contextlib.closing(decoding):
            for video, (job, batches) in zip(videos, decoding, strict=True):
                yield video, _pictures(job, batches)


def check_videos(videos: Sequence[Video], reading: Reading, *, is_deep: bool) -> Iterator[tuple[Video, str]]:
    """Each video, in order, with what is wrong with it, "" for nothing.

    is_deep: decodes every frame, which also finds damage in the middle of a file.
    """

    def check(video: Video) -> str:
        try:
            source = reading.open(video)
            check_length(video, source.duration)
            if is_deep:
                reader = choose_reader(source, reading.decoder)
                for _ in read_with(reader, source, source.times, timeout_seconds=reading.timeout_seconds):
                    pass
        except DataError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(reading.thread_count()) as pool:
        yield from zip(videos, pool.map(check, videos), strict=True)


def _pictures(job: Job, batches: Iterator[FrameBatch]) -> PictureStream | DataError:
    if not isinstance(job.times, np.ndarray):
        try:
            next(batches)  # raises why the video could not be opened
        except DataError as error:
            return error
    assert isinstance(job.times, np.ndarray), "an opened job knows its times"
    assert not isinstance(job.source, Path), "an opened job is probed"
    return PictureStream(len(job.times), job.source.duration, (batch.frames for batch in batches))
