"""Reads frames with decord, on request and where `guard` lets it, and checks what it says against the packets.

A reader lives as long as one call: never kept in an object, never carried across a fork, one decoding thread.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from xclip_module.errors import DataError
from xclip_module.interface import VideoInfo
from xclip_module.video.container import reencode
from xclip_module.video.info import frames_on_show
from xclip_module.video.watchdog import watching

# decord states times as 32-bit floats: half a millisecond at the end of an hour.
_AGREEMENT_SECONDS = 2e-3


def read(info: VideoInfo, times: np.ndarray, *, timeout_seconds: float = 120.0) -> Iterator[np.ndarray]:
    """The picture on show at each of `times` (seconds, never falling): uint8 RGB [H, W, 3], turned as shown.

    Raises DataError for a file that decord would misread or finds damaged.
    """
    frames = frames_on_show(info.times, times)
    if not len(frames):
        return
    watch = watching(info.path, timeout_seconds)
    with _errors(info):
        with watch:
            reader, refusal = _open(info)
        if refusal:
            raise DataError("decord must not read this", info.path, refusal, "--data.decoder=pyav")
        previous, picture = -1, np.empty(0)
        for frame in frames.tolist():
            if frame != previous:
                with watch:
                    # asnumpy and no bridge: a bridge set in one process is lost in another.
                    previous, picture = frame, reader[frame].asnumpy()
            yield picture


def refusal(info: VideoInfo, *, timeout_seconds: float = 120.0) -> str:
    """Why decord may not read a file: what its packets say, else what decord itself says of it; "" when it may.

    decord reads the whole file to find that out. Raises DataError when it cannot open the file at all.
    """
    with _errors(info), watching(info.path, timeout_seconds):
        return _open(info)[1]


def _open(info: VideoInfo) -> tuple[Any, str]:
    """A reader, and why it must not be used or ""."""
    if info.decord_refusal:
        return None, info.decord_refusal
    import decord

    # Without this the old FFmpeg inside writes thousands of harmless lines.
    decord.logging.set_level(decord.logging.QUIET)
    reader = decord.VideoReader(str(info.path.absolute()), num_threads=1)
    shown = np.asarray(reader.get_frame_timestamp(range(len(reader))), np.float64)[:, 0]
    if len(shown) != len(info.times) or not np.allclose(shown - shown[0], info.times, rtol=0, atol=_AGREEMENT_SECONDS):
        return reader, "decord sees other frames or times than the packets hold"
    return reader, ""


@contextlib.contextmanager
def _errors(info: VideoInfo) -> Iterator[None]:
    try:
        yield
    except (DataError, MemoryError):
        raise
    # DECORDError is a plain Exception, and cannot be named without importing decord.
    except Exception as error:
        reason = f"decord: {(str(error).splitlines() or ['failed'])[0]}"
        raise DataError("cannot decode", info.path, reason, reencode(info.path)) from error
