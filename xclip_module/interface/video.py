"""What is known of a video before its frames are read.

M packets in decode order, N shown frames in order of time.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np


class PacketTable(NamedTuple):
    """Every packet that holds a picture, in decode order; times in ticks of the stream's time base.

    fresh: decoding may start here with an empty decoder, and every later picture comes out the same.
    order: the packet of each shown frame, by time; empty where the container stores no times (AVI).
    """

    pts: np.ndarray  # [M] int64
    dts: np.ndarray  # [M] int64
    ticks: np.ndarray  # [M] int64, how long each frame stays
    key: np.ndarray  # [M] bool, as the container flags it
    fresh: np.ndarray  # [M] bool
    order: np.ndarray  # [N] int64
    start: int  # the first packet that can be decoded
    skippable: bool  # frames marked as non-reference may be left out
    strict: bool  # every decoding error means damage, none comes from a missing beginning
    seekable: bool


class VideoInfo(NamedTuple):
    """A video that can be read.

    times: [N] seconds at which each shown frame comes on, rising; 0.0 is the first shown frame.
    duration: seconds at which the last frame ends.  width, height: of the picture as shown, after rotation.
    rotation: degrees (0, 90, 180, 270) by which the stored picture is turned clockwise to be shown.
    decord_refusal: why decord would misread the file, "" when it reads it right.
    """

    path: Path
    times: np.ndarray
    duration: float
    width: int
    height: int
    rotation: int
    codec: str
    decord_refusal: str
    packets: PacketTable


class FrameFolder(NamedTuple):
    """The pictures of one video, by time.

    files: [N] jpg, png or webp.  times: [N] seconds at which each comes on show, rising.
    duration: seconds at which the last one ends.
    """

    folder: Path
    files: tuple[Path, ...]
    times: np.ndarray
    duration: float
