"""Small pictures of videos, for pages."""

import io
import logging
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageOps

from xclip_module.interface import FrameFolder
from xclip_module.video.inspect import probe
from xclip_module.video.readers import read_frames

_log = logging.getLogger(__name__)
_QUALITY = 80  # of JPEG


def thumbnails(
    source: Path | FrameFolder, times: Sequence[float], *, side: int = 160, timeout_seconds: float = 120.0
) -> list[bytes]:
    """JPEG files of the pictures on show at `times` (seconds, in any order), in their order.

    Each is `side` pixels square, the whole picture in its own proportions with black around it. A source that cannot be
    read gives [] and a warning in the log: a report does not fail for want of a picture.
    """
    order = np.argsort(times, kind="stable")
    rising = np.asarray(times, float)[order]
    try:
        opened = source if isinstance(source, FrameFolder) else probe(source, timeout_seconds=timeout_seconds)
        files = [_jpeg(frame, side) for frame in read_frames(opened, rising, timeout_seconds=timeout_seconds)]
    # The readers raise DataError, a ValueError; what FFmpeg may still meet in a damaged file has a base of its own.
    except (OSError, ValueError, av.error.FFmpegError) as error:
        _log.warning("no thumbnail: %s", error)
        return []
    # Read in the order of time, given back in the order asked for: argsort of a permutation is its inverse.
    return [files[rank] for rank in np.argsort(order)]


def _jpeg(frame: np.ndarray, side: int) -> bytes:
    """frame: [H, W, 3] uint8."""
    file = io.BytesIO()
    ImageOps.pad(Image.fromarray(frame), (side, side)).save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()
