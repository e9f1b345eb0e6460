"""Which frames, and who reads them.

`auto` is PyAV: at 1 frame per second it decodes half of what decord must, to the same pixels. decord reads only on
request, and only what it reads right.
"""

import functools
import importlib.metadata
import logging
import os
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import PIL

from xclip_module.interface import FrameFolder, VideoInfo
from xclip_module.video import decord_reader, frame_folder, pyav_reader

DECODERS = ("auto", "decord", "pyav")
_READERS: dict[str, Any] = {"decord": decord_reader, "pyav": pyav_reader, "pillow": frame_folder}
_log = logging.getLogger(__name__)


def frame_times(duration: float, fps: float) -> np.ndarray:
    """Every i / fps below `duration` in seconds; a rest of up to 1 ms is rounding and brings no further frame.

    At more than 10 fps the rest is a hundredth of a frame instead. A video of any length at all has a frame.

    >>> frame_times(2.0, 1.0), frame_times(2.0004, 1.0), frame_times(0.04, 1.0), frame_times(0.3, 10)
    (array([0., 1.]), array([0., 1.]), array([0.]), array([0. , 0.1, 0.2]))
    """
    # Matroska rounds times to whole milliseconds.
    slack = min(1e-3, 0.01 / fps)
    count = max(int(np.ceil((duration - slack) * fps)), int(duration > 0))
    return np.arange(count) / fps


def choose_reader(source: VideoInfo | FrameFolder, decoder: str = "auto") -> str:
    """The reader of a source: "pyav", "decord", or "pillow" for a folder of pictures.

    Where decord was asked for and would misread the file, PyAV reads it, and a warning names the file and the reason.
    """
    if isinstance(source, FrameFolder):
        return "pillow"
    if decoder not in DECODERS:
        raise ValueError(f"decoder {decoder!r}, expected one of {DECODERS}")
    if decoder != "decord":
        return "pyav"
    refusal = decord_reader.refusal(source)
    if refusal:
        _log.warning("%s: read with PyAV, not decord: %s", source.path, refusal)
    return "pyav" if refusal else "decord"


@functools.cache
def decoder_version(reader: str) -> str:
    """Name and version of a reader as `choose_reader` names it, for the key under which features are stored."""
    if reader == "decord":
        try:
            return f"decord {importlib.metadata.version('decord')}"
        except importlib.metadata.PackageNotFoundError:
            return "decord absent"
    if reader == "pillow":
        return f"pillow {PIL.__version__}"
    libavcodec = ".".join(str(part) for part in av.library_versions["libavcodec"])
    return f"pyav {av.__version__} libavcodec {libavcodec}"


def fresh_starts(source: VideoInfo | FrameFolder, times: np.ndarray, reader: str) -> np.ndarray:
    """Indices into `times` at which a second reader can take over without doing anything twice; the first is 0."""
    if isinstance(source, FrameFolder):
        return np.arange(len(times))  # every picture is a file of its own
    # decord reads the whole file when it opens it.
    return np.arange(min(len(times), 1)) if reader == "decord" else pyav_reader.fresh_starts(source, times)


def read_frames(
    source: VideoInfo | FrameFolder, times: np.ndarray, *, decoder: str = "auto", timeout_seconds: float = 120.0
) -> Iterator[np.ndarray]:
    """The picture on show at each of `times` (seconds, never falling), uint8 RGB [H, W, 3], one at a time.

    Raises DataError where the source cannot be read; see `read_with`.
    """
    return read_with(choose_reader(source, decoder), source, times, timeout_seconds=timeout_seconds)


def read_with(
    reader: str, source: VideoInfo | FrameFolder, times: np.ndarray, *, timeout_seconds: float = 120.0
) -> Iterator[np.ndarray]:
    """As `read_frames`, by the reader that `choose_reader` named; do not write into a picture, it may come again.

    Raises RuntimeError when continued in another process: decoders hang or return garbage across a fork.
    """
    pictures = _READERS[reader].read(source, times, timeout_seconds=timeout_seconds)
    opener = os.getpid()
    while True:
        if os.getpid() != opener:
            raise RuntimeError("a video reader was carried across a fork; open it in the process that reads")
        picture = next(pictures, None)
        if picture is None:
            return
        yield picture
