"""A long synthetic video with a camera's bit rate, for the decoders to work on."""

from pathlib import Path
from typing import Any

import av
import numpy as np

FPS = 25
_PERIOD = 250


def write_long_video(path: Path, *, seconds: int, size: tuple[int, int] = (854, 480)) -> Path:
    """An H.264 mp4 with x264's own GOP and B-frames: a drifting texture with grain, about 1.5 Mbit/s at 854x480."""
    width, height = size
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(height // 8 + 60, width // 8 + 60, 3)).cumsum(0).cumsum(1)
    coarse = (coarse - coarse.min()) / np.ptp(coarse) * 200
    field = np.kron(coarse, np.ones((8, 8, 1))).astype(np.uint8)
    grain = rng.integers(0, 12, (height + 64, width + 64, 1), dtype=np.uint8)
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream: Any = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "22"}
        for number in range(seconds * FPS):
            angle = 2 * np.pi * number / _PERIOD
            top, left = int(100 + 90 * np.sin(angle)), int(100 + 90 * np.cos(1.7 * angle))
            y, x = rng.integers(0, 64, 2)  # never the same grain twice, which an encoder would find
            picture = field[top : top + height, left : left + width] + grain[y : y + height, x : x + width]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path
