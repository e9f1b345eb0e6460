"""Decodes in threads what the model will want next, while it computes.

Videos are handed out in the order of the jobs, each as a stream of batches. A video is cut into parts where decoding
starts afresh anyway (see `packets`), so several threads read one long video side by side and no frame is decoded twice;
a file without such places is read by one thread. Threads, not processes: the decoders release the GIL, and frames
need not be copied. How a video is cut depends on the video alone, so the batches are the same for any `threads`.

Letters: T times asked for, n frames of one batch.
"""

import contextlib
import functools
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from xclip_module.interface import FrameFolder, VideoInfo
from xclip_module.video.inspect import probe
from xclip_module.video.readers import choose_reader, frame_times, fresh_starts, read_with
from xclip_module.video.transform import to_square

_SPARE_PARTS = 2  # read to the end and waiting, so that no thread idles while the consumer takes its time
_CLOSE_SECONDS = 5.0


class Job(NamedTuple):
    """A video to be read at `times` (seconds, never falling), or where that is None at every 1 / fps.

    times: also what chooses them once the source is probed.
    """

    key: str
    source: Path | VideoInfo | FrameFolder
    fps: float = 1.0
    times: np.ndarray | Callable[[VideoInfo | FrameFolder], np.ndarray] | None = None


class FrameBatch(NamedTuple):
    """Consecutive frames of one video."""

    times: np.ndarray  # [n] float64, the seconds asked for
    frames: torch.Tensor  # [n, 3, size, size] uint8


# Reads one part of a video from end to end; stops early when the function it is given says no.
_Reads = Callable[[Callable[[], bool]], Generator[FrameBatch, None, None]]


def decode_ahead(
    jobs: Iterable[Job],
    *,
    size: int,
    crop: str = "center",
    threads: int = 2,
    ahead: int = 2,
    batch: int = 64,
    decoder: str = "auto",
    timeout_seconds: float = 120.0,
) -> Generator[tuple[Job, Iterator[FrameBatch]], None, None]:
    """Each job, in order, with its stream of batches of up to `batch` frames.

    Use: ``for job, batches in decode_ahead(jobs, size=224): for times, frames in batches: ...``. The job comes back
    with its source probed and its times filled in. A video that cannot be read raises its DataError from `batches`;
    going on to the next job is safe after that, and after a `break`. Closing the generator, an exception in the loop
    and Ctrl-C end the threads.
    Memory: no more than (threads + 2) * (ahead + 1) * batch frames are waiting, of 3 * size * size bytes each.
    """
    paint = functools.partial(to_square, size=size, crop=crop)
    read = functools.partial(_read_part, paint=paint, batch=batch, timeout_seconds=timeout_seconds)
    open_job = functools.partial(
        _open, read=read, least=ahead * batch, decoder=decoder, timeout_seconds=timeout_seconds
    )
    crew = _Crew([_Video(job) for job in jobs], open_job, threads=threads, ahead=ahead)
    try:
        for video in crew.videos:
            yield crew.opened(video), crew.batches(video)
            crew.leave(video)
    finally:
        crew.close()


def _open(
    job: Job, *, read: Callable[..., Generator[FrameBatch]], least: int, decoder: str, timeout_seconds: float
) -> tuple[Job, list[_Reads]]:
    """The job with what was missing filled in, and its parts of `least` frames or more."""
    source = job.source
    if isinstance(source, Path):
        source = probe(source, timeout_seconds=timeout_seconds)
    chosen = job.times(source) if callable(job.times) else job.times
    times = frame_times(source.duration, job.fps) if chosen is None else np.asarray(chosen, np.float64)
    reader = choose_reader(source, decoder)
    edges = [0]
    for start in fresh_starts(source, times, reader).tolist():
        if start - edges[-1] >= least:
            edges.append(start)
    edges.append(len(times))
    parts = [times[start:stop] for start, stop in itertools.pairwise(edges) if stop > start]
    return job._replace(source=source, times=times), [functools.partial(read, source, part, reader) for part in parts]


def _read_part(
    source: VideoInfo | FrameFolder,
    times: np.ndarray,
    reader: str,
    alive: Callable[[], bool],
    *,
    paint: Callable[[np.ndarray], torch.Tensor],
    batch: int,
    timeout_seconds: float,
) -> Generator[FrameBatch, None, None]:
    pictures = read_with(reader, source, times, timeout_seconds=timeout_seconds)
    for start in range(0, len(times), batch):
        some = times[start : start + batch]
        squares = []
        for picture in itertools.islice(pictures, len(some)):
            if not alive():
                return
            squares.append(paint(picture).numpy())  # stacked by NumPy: torch would wake its pool in every thread
        yield FrameBatch(some, torch.from_numpy(np.stack(squares)))


class _Part:
    """A stretch of one video that one thread reads from end to end."""

    def __init__(self, read: _Reads):
        self.read = read
        self.batches: deque[FrameBatch] = deque()
        self.done = False
        self.error: Exception | None = None


class _Video:
    """A job under way; left means that the consumer wants no more of it."""

    def __init__(self, job: Job):
        self.job = job
        self.parts: list[_Part] = []
        self.opened = self.left = False
        self.error: Exception | None = None


class _Crew:
    """The reading threads and what they share; everything below is touched under one lock.

    Parts begin in the order in which the consumer will want them, so the one it waits for is always being read.
    """

    def __init__(
        self, videos: list[_Video], open_job: Callable[[Job], tuple[Job, list[_Reads]]], *, threads: int, ahead: int
    ):
        self.videos = videos
        self._open_job, self._count, self._ahead = open_job, threads, ahead
        self._unopened = deque(videos)
        self._opening: deque[_Video] = deque()
        self._ready: deque[tuple[_Video, _Part]] = deque()
        self._begun: set[_Part] = set()  # and not yet taken by the consumer
        self._stopped = False
        self._changed = threading.Condition()
        names = [f"decode {index}" for index in range(threads)]
        self._threads = [threading.Thread(target=self._work, name=name, daemon=True) for name in names]
        for thread in self._threads:
            thread.start()

    def opened(self, video: _Video) -> Job:
        """The job of a video, waiting until it is probed."""
        with self._changed:
            self._changed.wait_for(lambda: video.opened)
        return video.job

    def batches(self, video: _Video) -> Iterator[FrameBatch]:
        """The batches of a video, in order; raises what went wrong in reading it, where it went wrong."""
        if video.error is not None:
            raise video.error
        for part in video.parts:
            while (batch := self._take(video, part)) is not None:
                yield batch

    def leave(self, video: _Video) -> None:
        """Drops what is left of a video."""
        with self._changed:
            video.left = True
            self._begun.difference_update(video.parts)
            for part in video.parts:
                part.batches.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the threads; one that hangs in a decoder is left to the watchdog."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        deadline = time.monotonic() + _CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))

    def _take(self, video: _Video, part: _Part) -> FrameBatch | None:
        with self._changed:
            self._changed.wait_for(lambda: part.batches or part.done or video.left)
            if video.left:
                raise RuntimeError(f"the batches of {video.job.key} were asked for after the next job had begun")
            self._changed.notify_all()  # there is room for another batch, once the lock is free
            if part.batches:
                return part.batches.popleft()
            self._begun.discard(part)
            if part.error is not None:
                raise part.error
            return None

    def _work(self) -> None:
        while True:
            with self._changed:
                task = self._next_task()
                while task is None:
                    if self._stopped or not (self._unopened or self._opening or self._ready):
                        return
                    self._changed.wait()
                    task = self._next_task()
            task()

    def _next_task(self) -> Callable[[], None] | None:
        # In the order of the jobs, whichever was opened first: the consumer waits for the first one.
        while self._opening and self._opening[0].opened:
            video = self._opening.popleft()
            self._ready.extend((video, part) for part in video.parts)
        while self._ready and self._ready[0][0].left:
            self._ready.popleft()
        if self._stopped:
            return None
        # Opening comes first, so that no thread runs out of parts, but only as far ahead as there are threads.
        if self._unopened and len(self._ready) + len(self._opening) < self._count:
            self._opening.append(self._unopened.popleft())
            return functools.partial(self._open, self._opening[-1])
        if self._ready and len(self._begun) < self._count + _SPARE_PARTS:
            video, part = self._ready.popleft()
            self._begun.add(part)
            return functools.partial(self._read, video, part)
        return None

    def _open(self, video: _Video) -> None:
        try:
            job, reads = self._open_job(video.job)
        except Exception as error:
            job, reads, video.error = video.job, [], error
        with self._changed:
            video.job, video.parts, video.opened = job, [_Part(read) for read in reads], True
            self._changed.notify_all()

    def _read(self, video: _Video, part: _Part) -> None:
        def alive() -> bool:
            return not (self._stopped or video.left)

        try:
            with contextlib.closing(part.read(alive)) as batches:
                for batch in batches:
                    with self._changed:
                        self._changed.wait_for(lambda: len(part.batches) < self._ahead or not alive())
                        if not alive():
                            break
                        part.batches.append(batch)
                        self._changed.notify_all()
        except Exception as error:
            part.error = error
        with self._changed:
            part.done = True
            self._changed.notify_all()
