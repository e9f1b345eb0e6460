"""Features of many videos: from the store where they are, else from one pass over each file.

N frames of the grid, H picture side.
"""

import contextlib
import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from xclip_module.errors import DataError
from xclip_module.features.store import FeatureStore, identity
from xclip_module.interface import FrameFolder, Video, VideoInfo
from xclip_module.run.progress import Progress
from xclip_module.video.decode_ahead import Batch, Job, decode_ahead
from xclip_module.video.frame_choice import FrameChoice
from xclip_module.video.readers import decoder_version, frame_times

Arrays = dict[str, np.ndarray]
# From batches of uint8 frames [n, 3, H, H], the number of frames N, the duration in seconds and the video's name.
Encode = Callable[[Iterator[Tensor], int, float, str], Arrays]

_MOST_THREADS = 8


@dataclass(frozen=True)
class Reading:
    """How videos are read: the frame grid, the square picture, batches, and by which decoder.

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

    def job(self, video: Video) -> Job:
        """What to decode of a video."""
        if self.choice is None:
            return Job(video.id, video.source, self.fps)
        return Job(video.id, video.source, times=partial(_chosen, choice=self.choice, video=video))

    def times(self, video: Video, source: VideoInfo | FrameFolder) -> np.ndarray:
        """[N] seconds of all frames that are read of a video. Raises DataError where its clip has none."""
        if self.choice is None:
            return frame_times(source.duration, self.fps)
        return _chosen(source, choice=self.choice, video=video)


def _chosen(source: VideoInfo | FrameFolder, *, choice: FrameChoice, video: Video) -> np.ndarray:
    return choice.times(source.times, source.duration, video.span, video=video.id)


def stored_key(video: Video, key: Mapping[str, Any], reading: Reading) -> dict[str, Any]:
    """The whole key under which `feature_pass` stores a video's arrays. Raises OSError for a file that is not there."""
    span = {"span": list(video.span)} if video.span else {}
    return {**key, **reading.key(), **span, "video": video.id, "file": identity(video.source)}


def feature_pass(
    videos: Sequence[Video],
    encode: Encode,
    *,
    store: FeatureStore,
    key: Mapping[str, Any],
    reading: Reading,
    progress: Progress,
    mapped: bool = False,
) -> Generator[tuple[Video, Arrays | DataError], None, None]:
    """Every video with its arrays, or with the DataError that says why there are none; stored ones come first.

    Closing the generator ends the reading threads.
    The arrays are the encoder's, with "duration" (seconds) and "frames" (grid frames) added.
    key: what the arrays depend on beside the reading and the file (weights, precision, cut of clips).
    mapped: stored arrays stay in their files, see `FeatureStore.load`.
    """
    keys: dict[str, dict[str, Any]] = {}
    unread = []
    for video in videos:
        stored: Arrays | DataError | None
        try:
            keys[video.id] = stored_key(video, key, reading)
        except OSError as error:
            stored = DataError("unreadable video", error.filename, error.strerror or "", f"ls -l {error.filename}")
        else:
            stored = store.load(keys[video.id], mapped=mapped)
        if stored is None:
            unread.append(video)
        else:
            progress.advance(1, video.id)
            yield video, stored if isinstance(stored, DataError) else _checked(video, stored)
    with contextlib.closing(_read(unread, encode, reading, progress)) as results:
        for video, result in results:
            if not isinstance(result, DataError):
                store.save(keys[video.id], result)
            yield video, result


def _read(
    videos: Sequence[Video], encode: Encode, reading: Reading, progress: Progress
) -> Generator[tuple[Video, Arrays | DataError], None, None]:
    opened = decode_ahead(
        [reading.job(video) for video in videos],
        size=reading.size,
        crop=reading.crop,
        threads=reading.threads or default_threads(),
        batch=reading.batch,
        decoder=reading.decoder,
        timeout_seconds=reading.timeout_seconds,
    )
    # An exception on its way keeps this frame, and so the threads, alive until it is printed.
    with contextlib.closing(opened):
        for video, (job, batches) in zip(videos, opened, strict=True):
            done = progress.done
            result: Arrays | DataError
            try:
                result = _read_one(video, job, batches, encode, progress)
            except DataError as error:
                result = error
            progress.advance(done + 1 - progress.done)
            yield video, result


def _read_one(video: Video, job: Job, batches: Iterator[Batch], encode: Encode, progress: Progress) -> Arrays:
    if not isinstance(job.times, np.ndarray):
        next(batches)  # raises why the video could not be opened
    assert isinstance(job.times, np.ndarray), "an opened job knows its times"
    assert not isinstance(job.source, Path), "an opened job is probed"
    frames, duration = len(job.times), round(job.source.duration, 6)
    check_length(video, duration)

    def counted() -> Iterator[Tensor]:
        for batch in batches:
            yield batch.frames
            progress.advance(len(batch.times) / frames, video.id)

    arrays = encode(counted(), frames, duration, video.id)
    return {**arrays, "duration": np.array(duration), "frames": np.array(frames)}


def _checked(video: Video, arrays: Arrays) -> Arrays | DataError:
    try:
        check_length(video, float(arrays["duration"]))
    except DataError as error:
        return error
    return arrays


def check_length(video: Video, duration: float) -> None:
    """Refuses labels of another video: their length and the file's must agree to the labels' own period."""
    place = video.source.folder if isinstance(video.source, FrameFolder) else video.source
    if video.label_seconds and abs(duration - video.label_seconds) > video.label_tolerance + 1e-6:
        raise DataError(
            "labels and video differ in length",
            place,
            f"the video lasts {duration:.2f} s, the labels of {video.id} {video.label_seconds:.2f} s",
            "put the label file of this very video beside it",
        )
    if video.last_moment > duration + video.label_tolerance + 1e-6:
        found = f"the video lasts {duration:.2f} s, a moment of {video.id} ends at {video.last_moment:.2f} s"
        raise DataError("a moment beyond the video's end", place, found, "mend its annotation")


def default_threads() -> int:
    """Reading threads where none are configured: one per two cores of this process's share, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(_MOST_THREADS, cores // (2 * local)))
