"""Frames at 1 per second out of a long video: every reader, and PyAV with and without skipping."""

import tempfile
from pathlib import Path

import av
import numpy as np

from xclip_module.benchmark.meter import measured, table
from xclip_module.benchmark.video import FPS, write_long_video
from xclip_module.video.inspect import probe
from xclip_module.video.readers import frame_times, read_frames

_ALL = "PyAV, every frame decoded"


def run(*, seconds: int) -> list[str]:
    """CPU seconds per way, on identical pixels."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_long_video(Path(folder) / "long.mp4", seconds=seconds)
        rows, pictures = {}, {}
        with measured() as rows[_ALL]:
            pictures[_ALL] = _decode_all(path)
        for name in ("decord", "pyav"):
            with measured() as rows[f"ours through {name}"]:
                info = probe(path)
                times = frame_times(info.duration, 1.0)
                pictures[name] = [frame[::8, ::8].copy() for frame in read_frames(info, times, decoder=name)]
        megabits = path.stat().st_size * 8 / seconds / 1e6
    same = all(np.array_equal(a, b) for way in pictures.values() for a, b in zip(way, pictures[_ALL], strict=True))
    return [
        f"decode: {seconds} s of 854x480 H.264 at {megabits:.1f} Mbit/s, one frame a second, probing included; "
        "CPU seconds compared",
        *table(rows, against=_ALL, by="cpu_seconds"),
        f"pixels identical: {'yes' if same else 'NO'}",
    ]


def _decode_all(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "SLICE"
        frames = enumerate(container.decode(video=0))
        return [frame.to_ndarray(format="rgb24")[::8, ::8].copy() for n, frame in frames if n % FPS == 0]
