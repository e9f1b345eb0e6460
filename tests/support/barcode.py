"""Videos whose every frame shows its own number, so that a wrong frame is a wrong number and not an opinion.

The number is a 4 x 4 grid of dark and light cells, 16 bits: it survives lossy codecs, chroma subsampling, rescaling and
the centre crop (the grid fills the central square). The helpers below also break files the way files get broken.
"""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

DARK, LIGHT = 32, 224


def picture(number: int, *, size: tuple[int, int] = (96, 64), texture: int = 0) -> np.ndarray:
    """The frame [H, W, 3] uint8 that shows `number`; size is (width, height), texture the amplitude of noise."""
    width, height = size
    side = min(size)
    bits = np.array([number >> bit & 1 for bit in range(16)]).reshape(4, 4)
    rows, columns = np.arange(side) * 4 // side, np.arange(side) * 4 // side
    square = np.where(bits[rows][:, columns], LIGHT, DARK)
    frame = np.full((height, width), 128)
    top, left = (height - side) // 2, (width - side) // 2
    frame[top : top + side, left : left + side] = square
    if texture:
        frame = frame + np.random.default_rng(number).integers(-texture, texture + 1, frame.shape)
    return np.repeat(frame.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def read_number(frame: np.ndarray) -> int:
    """The number shown by a picture [H, W, 3], whatever its size."""
    grey = np.asarray(frame).mean(axis=2)
    side = min(grey.shape)
    top, left = (grey.shape[0] - side) // 2, (grey.shape[1] - side) // 2
    edges = np.linspace(0, side, 5)
    number = 0
    for bit in range(16):
        row, column = divmod(bit, 4)
        middle = [int(edges[i] + side / 16) for i in (row, column)]
        reach = max(side // 8, 1)
        cell = grey[top + middle[0] :, left + middle[1] :][:reach, :reach]
        number |= int(cell.mean() > 128) << bit
    return number


def write_video(
    path: Path,
    *,
    frames: int | Sequence[int] = 50,
    size: tuple[int, int] = (96, 64),
    rate: int = 25,
    codec: str = "libx264",
    gop: int = 250,
    bframes: int = 2,
    pix_fmt: str = "yuv420p",
    times: Sequence[float] | None = None,
    texture: int = 0,
    audio_seconds: float = 0.0,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Writes the numbers `frames` (a count means 0, 1, ...) as a video and returns `path`; the suffix is the container.

    times: seconds at which each frame comes on show, for a variable frame rate; None = every 1/rate.
    """
    numbers = range(frames) if isinstance(frames, int) else frames
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.options = {**_codec_options(codec, gop, bframes), **(options or {})}
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if audio_seconds:
            _add_tone(container, audio_seconds)
        for index, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(picture(number, size=size, texture=texture), format="rgb24")
            frame.pts = index if times is None else round(times[index] * 1000)
            frame.time_base = Fraction(1, rate) if times is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_audio(path: Path, seconds: float = 1.0) -> Path:
    """Writes a file that holds a tone and no picture."""
    with av.open(str(path), "w") as container:
        _add_tone(container, seconds)
    return path


def remux(source: Path, path: Path, *, start: float = 0.0, stop: float = 1e9) -> Path:
    """Copies packets into another container, or cuts as `ffmpeg -ss start -to stop -i source -c copy path` does.

    The cut begins at the key frame before `start`; in mp4 the run-up gets times below zero, which the muxer hides
    behind an edit list.
    """
    with av.open(str(source)) as given, av.open(str(path), "w") as container:
        stream = given.streams.video[0]
        copy = container.add_stream_from_template(stream)
        base: Any = stream.time_base
        if start:
            given.seek(round(start / base), stream=stream)
        annexb = BitStreamFilterContext("h264_mp4toannexb", stream) if path.suffix == ".avi" else None
        for packet in given.demux(stream):
            if packet.dts is None or packet.pts is None:
                continue
            if packet.dts * base >= stop:
                break
            packet.pts -= round(start / base)
            packet.dts -= round(start / base)
            for part in annexb.filter(packet) if annexb else [packet]:
                part.stream = copy
                container.mux(part)
    return path


def rotate(path: Path, degrees: int) -> Path:
    """Writes into the mp4's track header that a player shall turn the picture clockwise by `degrees`."""
    sine, cosine = {0: (0, 1), 90: (1, 0), 180: (0, -1), 270: (-1, 0)}[degrees]
    one = 1 << 16
    matrix = (cosine * one, sine * one, 0, -sine * one, cosine * one, 0, 0, 0, 1 << 30)
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    content[place : place + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(content)
    return path


def truncate(path: Path, share: float) -> Path:
    """Keeps the first `share` of the file's bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def spoil(path: Path, *, place: float, share: float = 0.1) -> Path:
    """Overwrites a `share` of the file's bytes, from the share `place` on, with noise."""
    content = bytearray(path.read_bytes())
    at, count = int(len(content) * place), int(len(content) * share)
    content[at : at + count] = np.random.default_rng(0).bytes(count)
    path.write_bytes(content)
    return path


def _codec_options(codec: str, gop: int, bframes: int) -> dict[str, str]:
    if codec == "libx264":
        return {"g": str(gop), "bf": str(bframes), "b_strategy": "0", "sc_threshold": "0", "preset": "veryfast"}
    if codec == "libx265":
        quiet = "scenecut=0:log-level=none:pools=1:frame-threads=1"
        return {"preset": "ultrafast", "x265-params": f"keyint={gop}:bframes={bframes}:b-adapt=0:{quiet}"}
    return {"g": str(gop)}


def _add_tone(container: Any, seconds: float) -> None:
    stream = container.add_stream("aac", rate=16000)
    count = int(seconds * 16000)
    for start in range(0, count, 1024):
        wave = np.sin(np.arange(start, start + 1024) * 0.2).astype(np.float32)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
