"""Pictures of whole videos on disk: what is missing is made by one pass over each file, then all is opened in place.

N frames of a video, n of a batch, S side of the stored square.
"""

import contextlib
import itertools
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xclip_module.errors import ConfigError, DataError, DiskError
from xclip_module.features.store import FeatureStore
from xclip_module.features.video_pass import Arrays, feature_pass, stored_key
from xclip_module.interface import AnyGrid, PictureReader, Sampling, Video, clip_rows
from xclip_module.run import distributed
from xclip_module.run.distributed import World
from xclip_module.run.progress import Progress

_SAMPLED_FRAMES = 5  # of one video, to guess how many bytes all will take

log = logging.getLogger(__name__)


class Grid(NamedTuple):
    """The frames from which clips are cut, `step` times as dense as a clip's own."""

    sampling: Sampling
    step: int

    @property
    def fps(self) -> float:
        """Frames per second of the grid."""
        return self.sampling.fps * self.step

    @property
    def frames_per_clip(self) -> int:
        """Every clip has so many."""
        return self.sampling.frames_per_clip

    def fits(self, reading: PictureReader) -> bool:
        """Whether that reads these frames."""
        return reading.choice is None and reading.fps == self.fps

    def expected(self, video: Video) -> float:
        """About how many frames a video has: by its labels, which costs nothing to find out."""
        return (video.label_seconds or video.last_moment) * self.fps

    def rows(self, time: float, frames: int, *, video: str, duration: float = 0.0) -> np.ndarray:
        """[frames_per_clip] grid frames of the clip around `time` seconds, in a video of so many grid frames.

        With step 1 these are the rows of `clip_rows`; with more a clip begins on the finer grid, within the same ends.
        Raises DataError for a video shorter than one clip.
        """
        sampling = self.sampling._replace(frames_per_clip=self.sampling.frames_per_clip * self.step)
        # The last frame of every clip's own grid counts as present with all that would follow up to the next one.
        whole = -(-frames // self.step) * self.step
        return clip_rows(np.array([time]), whole, sampling, video=video, duration=duration)[0, :: self.step]


class FrameStorage(NamedTuple):
    """Where frames are stored, how videos are read, by whom, and whether an unreadable video may be left out."""

    store: FeatureStore
    reading: PictureReader
    world: World
    skip_unreadable: bool


class Content(NamedTuple):
    """What is stored of a video.

    name: for the log.  key: what the arrays depend on beside the reading.  encode: the arrays of all N frames, from
    batches of uint8 squares [n, 3, S, S] and N.
    """

    name: str
    key: Mapping[str, Any]
    encode: Callable[[Iterator[Tensor], int], Arrays]


class StoredFrames(NamedTuple):
    """The videos with their stored arrays, which stay on disk, and those left out (on all processes) with the reason.

    The arrays are those of `Content.encode`, with "duration" (seconds) and "frames" (N).
    """

    videos: list[tuple[Video, Arrays]]
    skipped: dict[str, str]


def make_grid(sampling: Sampling, fps: float) -> Grid:
    """The grid of `fps` frames per second, 0 = the clips' own. Raises ConfigError for no multiple of the clips' own.

    >>> make_grid(Sampling(16.0, 16, 4.0), 2.0)
    Grid(sampling=Sampling(clip_seconds=16.0, frames_per_clip=16, stride_seconds=4.0), step=2)
    """
    ratio = fps / sampling.fps if fps else 1.0
    step = max(round(ratio), 1)
    if abs(ratio - step) > 1e-6:
        rule = f"clips have {sampling.fps:g} frames per second, expected a whole multiple"
        attempt = f"--finetune.cache_fps={step * sampling.fps:g}"
        raise ConfigError(f"finetune.cache_fps={fps:g}", why=rule, attempt=attempt)
    return Grid(sampling, step)


def open_frames(
    videos: Sequence[Video], content: Content, storage: FrameStorage, *, grid: AnyGrid, is_shared: bool
) -> StoredFrames:
    """Makes what is not stored yet, each process a share of it, and opens all videos, or this process's share of them.

    A kill costs the video under way; a damaged file is made again. What it will take on disk is said before it begins.
    is_shared: every process opens all videos.
    Raises DiskError when the disk is too small, DataError for a video that cannot be read or is shorter than a clip,
    unless such videos may be left out.
    """
    assert grid.fits(storage.reading), "the frames that are stored are those of the grid that clips are cut from"
    absent = [video.id for video in videos if not _path(video, content, storage).exists()]
    # As the first process sees it: others may look when one has already begun.
    missing = set(distributed.gather(absent, storage.world)[0])
    unmade = [video for video in videos if video.id in missing]
    if unmade:
        _announce(unmade, content, storage, grid)
    skipped: dict[str, str] = {}
    for _ in _pass(distributed.shard(unmade, storage.world), content, storage, grid, skipped):
        pass  # they are stored; nothing of them stays in memory
    # A barrier too: what is opened below may have been made by another process.
    skipped = _merged(skipped, storage.world)
    wanted = videos if is_shared else distributed.shard(videos, storage.world)
    left = [video for video in wanted if video.id not in skipped]
    opened = list(_pass(left, content, storage, grid, skipped))
    skipped = _merged(skipped, storage.world)
    paths = [_path(video, content, storage) for video in videos if video.id not in skipped]
    size = sum(path.stat().st_size for path in paths if path.exists())
    log.info("%s: %d videos, %.1f MB in %s", content.name, len(paths), size / 1e6, storage.store.folder)
    return StoredFrames([(video, arrays) for video, arrays in opened if video.id not in skipped], skipped)


def validation_frames(videos: Sequence[Video], storage: FrameStorage, *, grid: AnyGrid) -> StoredFrames:
    """This process's share of the videos, each with "pictures" [N, 3, S, S] uint8 of every grid frame, still on disk.

    storage.reading is the one that scoring uses: frames of the clips, size of the model's picture.
    Memory: while a video is made, twice its pictures (3 * S * S bytes each). Raises as `open_frames`.
    """
    return open_frames(videos, picture_content(), storage, grid=grid, is_shared=False)


def batches_of(pictures: np.ndarray, size: int) -> Iterator[Tensor]:
    """Stored pictures [N, 3, S, S] as batches of up to `size`, as a reader would give them."""
    for start in range(0, len(pictures), size):
        yield torch.from_numpy(pictures[start : start + size])


def picture_content() -> Content:
    """What is stored of a validation video."""
    return Content("validation frames", {"kind": "pictures"}, _to_array)


def _pass(
    videos: Sequence[Video], content: Content, storage: FrameStorage, grid: AnyGrid, skipped: dict[str, str]
) -> Iterator[tuple[Video, Arrays]]:
    """Videos with their arrays, made where they are not stored; adds to `skipped` what is left out, with the reason."""

    def encode(batches: Iterator[Tensor], frames: int, duration: float, video: str) -> Arrays:
        grid.rows(0.0, frames, video=video, duration=duration)  # refuses a short video before the work
        return content.encode(batches, frames)

    store, reading = storage.store, storage.reading
    with Progress(len(videos), name=content.name, unit="videos", is_shown=storage.world.is_main) as progress:
        passing = feature_pass(
            videos, encode, store=store, key=content.key, reading=reading, progress=progress, mapped=True
        )
        with contextlib.closing(passing):
            for video, arrays in passing:
                if not isinstance(arrays, DataError):
                    yield video, arrays
                elif storage.skip_unreadable:
                    log.warning("left out: %s", arrays)
                    skipped[video.id] = str(arrays)
                else:
                    raise arrays


def estimate(videos: Sequence[Video], content: Content, storage: FrameStorage, *, grid: AnyGrid) -> tuple[int, float]:
    """How many frames of these videos are still to be made, and about how many bytes they will take."""
    unmade = [video for video in videos if not _path(video, content, storage).exists()]
    frames = round(sum(map(grid.expected, unmade)))
    return frames, frames * _frame_bytes(unmade, content, storage)


def _announce(videos: Sequence[Video], content: Content, storage: FrameStorage, grid: AnyGrid) -> None:
    """Says what will be made and what it takes on disk. Raises DiskError when that is more than is free."""
    frames, size = estimate(videos, content, storage, grid=grid)
    free = shutil.disk_usage(storage.store.folder).free
    amounts = f"{frames} frames of {len(videos)} videos, about {size / 1e6:.1f} MB; {free / 1e6:.0f} MB are free"
    if size > free:
        attempt = "--finetune.cache=FOLDER on a larger disk, or --finetune.frames=video for training frames"
        raise DiskError(f"no room for the {content.name}", storage.store.folder, amounts, attempt)
    if storage.world.is_main:
        log.info("%s, to be made in %s: %s", content.name, storage.store.folder, amounts)


def _frame_bytes(videos: Sequence[Video], content: Content, storage: FrameStorage) -> float:
    """Bytes of a frame, from a few of the first video that can be read; 0 when none can, which the pass will say."""
    reading = storage.reading
    for video in videos:
        try:
            source = reading.open(video)
            times = np.linspace(0, source.duration, _SAMPLED_FRAMES, endpoint=False)
            squares = torch.stack(list(reading.squares(source)(times)))
        except DataError:
            continue
        return sum(array.nbytes for array in content.encode(iter([squares]), len(squares)).values()) / len(squares)
    return 0.0


def _path(video: Video, content: Content, storage: FrameStorage) -> Path:
    try:
        return storage.store.path(stored_key(video, content.key, storage.reading))
    except OSError:  # the video is not there: neither are its frames, and the pass says so
        return storage.store.folder / "absent"


def _to_array(batches: Iterator[Tensor], frames: int) -> Arrays:
    first = next(batches)
    # Filled batch by batch: joined at the end, the pictures would be in memory once more.
    pictures, start = np.empty((frames, *first.shape[1:]), np.uint8), 0
    for batch in itertools.chain([first], batches):
        pictures[start : start + len(batch)] = batch.numpy()
        start += len(batch)
    assert start == frames, "a reader gives every frame that it was asked for"
    return {"pictures": pictures}


def _merged(skipped: dict[str, str], world: World) -> dict[str, str]:
    return {name: reason for share in distributed.gather(skipped, world) for name, reason in share.items()}
