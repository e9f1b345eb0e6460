"""One long video, 14 queries: the thesis' way, every window once, and every frame once.

Q queries, M windows, F frames of a window, D width.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import decord
import numpy as np
import torch
from torch import Tensor

from xclip_module.benchmark.meter import Cost, measured, table
from xclip_module.benchmark.models import frame_flops, matmul_rate, vit_b
from xclip_module.benchmark.video import write_long_video
from xclip_module.features.encoding import encode_frames, to_pixels
from xclip_module.features.scoring import score_stored
from xclip_module.features.store import FeatureStore
from xclip_module.features.video_pass import feature_pass
from xclip_module.interface import Embeddings, Sampling, Video, clip_rows, curve_times
from xclip_module.models.two_tower import TwoTower
from xclip_module.run import precision
from xclip_module.run.progress import Progress
from xclip_module.video.inspect import probe
from xclip_module.video.readers import frame_times, read_frames
from xclip_module.video.reading import Reading
from xclip_module.video.transform import to_square

_QUERIES = 14
_SAMPLING = Sampling(clip_seconds=16.0, frames_per_clip=16, stride_seconds=4.0)
# Windows that the slow ways are measured on; their cost per window is the same all along the video.
_MEASURED = 3
_AGAIN, _ONCE, _OURS = "(a) every window for every query", "(b) every window once", "ours: every frame once"
_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class _Bench:
    """A model, a video and 14 queries on a device."""

    def __init__(self, path: Path, *, patch: int, device: torch.device, chosen: str):
        self.path, self.device, self.chosen = path, device, chosen
        self.model: TwoTower = vit_b(patch, frames=_SAMPLING.frames_per_clip).to(device)
        generator = torch.Generator().manual_seed(0)
        self.ids = torch.randint(1, 49405, (_QUERIES, 32), generator=generator).to(device)
        self.ids[:, 12] = 49407
        info = probe(path)
        self.duration, self.times = info.duration, curve_times(info.duration, _SAMPLING.stride_seconds)
        self.rows = clip_rows(self.times, len(frame_times(info.duration, _SAMPLING.fps)), _SAMPLING, video=path.name)

    def text(self, ids: Tensor) -> Embeddings:
        with torch.inference_mode(), precision.autocast(self.chosen, self.device):
            return self.model.encode_text(ids, torch.ones_like(ids))

    def encode(self, pixels: Tensor) -> Tensor:
        with torch.inference_mode(), precision.autocast(self.chosen, self.device):
            return self.model.encode_frames(pixels)

    def window(self, rows: np.ndarray) -> Embeddings:
        """One window from the file: opened, read, prepared and encoded for itself."""
        reader = decord.VideoReader(str(self.path), num_threads=1)
        frames = reader.get_batch((rows / _SAMPLING.fps * reader.get_avg_fps()).astype(int).tolist()).asnumpy()
        squares = torch.stack([to_square(frame, size=224, crop="center") for frame in frames])
        features = self.encode(to_pixels(squares, self.model.picture, self.device))[None]
        with torch.inference_mode():
            return self.model.embed_clips(features, torch.ones(features.shape[:2], device=self.device))

    @torch.inference_mode()
    def every_window_for_every_query(self, windows: int) -> np.ndarray:
        """The thesis' way: for each query, each window again from the file."""
        columns = [
            torch.cat([self.model.similarity(self.text(ids[None]), self.window(rows)) for ids in self.ids])
            for rows in self.rows[:windows]
        ]
        return torch.cat(columns, dim=1).cpu().numpy()

    @torch.inference_mode()
    def every_window_once(self, windows: int) -> np.ndarray:
        """Each window from the file, once for all queries."""
        text = self.text(self.ids)
        columns = [self.model.similarity(text, self.window(rows)) for rows in self.rows[:windows]]
        return torch.cat(columns, dim=1).cpu().numpy()

    def every_frame_once(self, folder: Path) -> np.ndarray:
        """Ours: the very pass of run_zeroshot.py, whole video, cold store."""
        reading = Reading(_SAMPLING.fps, 224, "center", 64, "auto", 0, 120.0)

        def encode(batches: Iterator[Tensor], frames: int, duration: float, video: str) -> dict[str, np.ndarray]:
            picture, device = self.model.picture, self.device
            return encode_frames(batches, self.encode, picture=picture, device=device, video=video)

        videos = [Video("long", self.path, "all")]
        store = FeatureStore(folder)
        with Progress(1, name="videos", unit="videos", is_shown=False) as progress:
            ((_, stored),) = feature_pass(videos, encode, store=store, key={}, reading=reading, progress=progress)
        assert isinstance(stored, dict), "the benchmark's own video is readable"
        return score_stored(stored, self.text(self.ids), self.model, rows=self.rows, device=self.device)

    def stages(self) -> dict[str, Cost]:
        """Each stage of ours for itself, one after the other."""
        costs: dict[str, Cost] = {}
        info = probe(self.path)
        with measured(self.device) as costs["decode"]:
            frames = list(read_frames(info, frame_times(info.duration, _SAMPLING.fps)))
        with measured(self.device) as costs["preprocess"]:
            squares = torch.stack([to_square(frame, size=224, crop="center") for frame in frames])
        with measured(self.device) as costs["encode"]:
            parts = [self.encode(to_pixels(part, self.model.picture, self.device)) for part in squares.split(64)]
        features, mask = torch.cat(parts), torch.ones(self.rows.shape, device=self.device)
        with measured(self.device) as costs["windows"], torch.inference_mode():
            clips = self.model.embed_clips(features[torch.from_numpy(self.rows)], mask)
        text = self.text(self.ids)
        with measured(self.device) as costs["similarity"], torch.inference_mode():
            self.model.similarity(text, clips)
        return costs


def run(device: torch.device, *, seconds: int, patch: int) -> list[str]:
    """The three ways and the stages of ours, as a table."""
    chosen = precision.choose("auto", device)
    rows, results = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        path = write_long_video(Path(folder) / "long.mp4", seconds=seconds)
        bench = _Bench(path, patch=patch, device=device, chosen=chosen)
        windows = len(bench.times)
        bench.every_window_once(1)  # warm-up
        for name, way in ((_AGAIN, bench.every_window_for_every_query), (_ONCE, bench.every_window_once)):
            with measured(device) as cost:
                results[name] = way(_MEASURED)
            rows[name] = cost.times(windows / _MEASURED)
        with measured(device) as rows[_OURS]:
            results[_OURS] = bench.every_frame_once(Path(folder) / "features")
        stages = bench.stages()
    frames, ours = int(bench.duration), rows[_OURS].seconds
    encoded = {_AGAIN: windows * 16 * _QUERIES, _ONCE: windows * 16, _OURS: frames}
    worst = max(float(np.abs(results[name] - results[_OURS][:, :_MEASURED]).max()) for name in (_AGAIN, _ONCE))
    total = sum(cost.seconds for cost in stages.values())
    rate = matmul_rate(device, _DTYPES[chosen])
    achieved = frames * frame_flops(patch) / stages["encode"].seconds
    return [
        f"zero-shot: {frames} s of 854x480 video, ViT-B/{patch}, {_QUERIES} queries, {windows} windows of 16 frames "
        f"every 4 s, {chosen} on {device.type}",
        f"(a) and (b) are measured on {_MEASURED} windows and scaled to all",
        *table(rows, against=_AGAIN, notes={name: f"{count} frames encoded" for name, count in encoded.items()}),
        f"ours is {rows[_ONCE].seconds / ours:.1f}x (b); {windows / ours:.1f} clips/s, {frames / ours:.1f} frames/s; "
        f"largest difference of scores {worst:.3f}",
        "stages of ours, one after the other: "
        + ", ".join(f"{name} {cost.seconds:.2f} s ({cost.seconds / total:.0%})" for name, cost in stages.items()),
        f"encode reaches {achieved / 1e12:.2f} of the {rate / 1e12:.2f} TFLOP/s of a matrix product "
        f"({achieved / rate:.0%}); {max(0.0, 1 - stages['encode'].seconds / ours):.0%} of ours is waiting for data",
    ]
