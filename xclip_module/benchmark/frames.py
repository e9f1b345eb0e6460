"""Training clips in random order: from stored JPEG files beside straight from the video."""

import tempfile
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from xclip_module.benchmark.meter import Cost, measured, table
from xclip_module.benchmark.video import write_long_video
from xclip_module.features.frame_cache import cached_frames, stored_side, video_frames
from xclip_module.features.store import FeatureStore
from xclip_module.features.stored_frames import FrameStorage, make_grid
from xclip_module.interface import Sampling, Video
from xclip_module.run.distributed import World
from xclip_module.training.batches.augment import Augmentation, augment
from xclip_module.video.reading import Reading

_CLIPS = 40
_SAMPLING = Sampling(16.0, 16, 4.0)
_VIDEO, _CACHE, _VIEWS = "from the video", "from JPEG files", "from JPEG files, augmented"
_AUGMENTATION = Augmentation(224, crop_scale=0.7, colour=0.2)


def run(*, seconds: int, size: tuple[int, int] = (854, 480)) -> list[str]:
    """CPU seconds of the same clips from either source, one thread each, and what the files cost once."""
    grid, world = make_grid(_SAMPLING, 0.0), World(0, 1, "cpu")
    side = stored_side(224, crop_scale=_AUGMENTATION.crop_scale)
    reading = Reading(grid.fps, side, "center", batch=64, decoder="auto", threads=0, timeout_seconds=120.0)
    rows: dict[str, Cost] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = write_long_video(Path(folder) / "long.mp4", seconds=seconds, size=size)
        videos = [Video("long", path, "train", label_seconds=float(seconds))]
        storage = FrameStorage(FeatureStore(Path(folder) / "frames"), reading, world, skip_unreadable=False)
        with measured() as making:
            cached = cached_frames(videos, storage, grid=grid).frames
        straight = video_frames(videos, reading, grid=grid, world=world, skip_unreadable=False).frames
        times = np.random.default_rng(0).uniform(0, seconds, _CLIPS).tolist()
        clips = {}
        for name, frames in ((_VIDEO, straight), (_CACHE, cached)):
            with measured() as rows[name]:
                # Every eighth pixel of the clips; all of them would not fit in memory.
                clips[name] = np.stack([frames.clip("long", time)[:, :, ::8, ::8].numpy() for time in times])
        torch.get_num_threads()  # torch sets its own number when first asked, and would overrule the next line
        with threadpool_limits(1, user_api="openmp"), measured() as rows[_VIEWS]:
            for number, time in enumerate(times):
                augment(cached.clip("long", time), _AUGMENTATION, seed=(number,))
        stored = sum(file.stat().st_size for file in storage.store.folder.iterdir())
    difference = np.abs(clips[_VIDEO].astype(int) - clips[_CACHE]).mean()
    saved = (rows[_VIDEO].cpu_seconds - rows[_CACHE].cpu_seconds) / _CLIPS
    rates = {name: f"{_CLIPS / cost.seconds:.1f} clips/s" for name, cost in rows.items()}
    return [
        f"frames: {_CLIPS} clips of 16 frames over 16 s at random times of {seconds} s of {size[0]}x{size[1]} "
        "H.264, one thread; CPU seconds compared",
        *table(rows, against=_VIDEO, by="cpu_seconds", notes=rates),
        f"pixels differ by {difference:.2f} of 255 on average; {stored / 1e6:.1f} MB on disk, "
        f"{stored / (seconds * grid.fps) / 1e3:.1f} kB a frame; made in {making.cpu_seconds:.1f} CPU s, "
        f"as much as {making.cpu_seconds / saved:.0f} clips save",
    ]
