"""Reads frames with decord, on request and where the packets let it, and checks what it says against them.

decord 0.6.0 (FFmpeg 4.1) hangs or returns wrong frames without a word on stream-copied cuts, MPEG-TS, AVI, where a key
frame is no fresh start (open GOP: x265's default; intra refresh) and where key frames stand very close: it counts
frames from the key frame it jumped to, and others came out there. All of this shows in the packets.

A reader lives as long as one call: never kept in an object, never carried across a fork, one decoding thread.
"""

import contextlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np

from xclip_module.errors import DataError
from xclip_module.interface import PacketTable, VideoInfo
from xclip_module.video.container import is_mp4_or_mkv, reencode
from xclip_module.video.frame_choice import frames_on_show
from xclip_module.video.watchdog import watching

# decord states times as 32-bit floats: half a millisecond at the end of an hour.
_AGREEMENT_SECONDS = 2e-3
_CODECS = ("h264", "hevc", "vp8", "vp9", "mpeg4")


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


def packet_refusal(head: bytes, codec: str, table: PacketTable, *, streams: int, rotation: float) -> str:
    """Why decord may not read a file, or "" when it may.

    head: the file's first bytes.  streams: picture streams in the file.  rotation: degrees the picture is turned.
    """
    if importlib.util.find_spec("decord") is None:
        return "decord is not installed"
    shown = np.sort(table.pts)
    keys = np.flatnonzero(table.key)
    reasons = {
        "neither mp4 nor mkv by its first bytes": not is_mp4_or_mkv(head),
        f"decord's FFmpeg 4.1 has no decoder for {codec}": codec not in _CODECS,
        "no presentation times in it": not len(table.order),
        "frames hidden behind an edit list, as in a stream-copied cut": len(table.order) < len(table.pts),
        "time stamps below zero": shown[0] < 0,
        "time stamps that do not rise": bool((np.diff(shown) <= 0).any()),
        "key frames that are no fresh start (open GOP)": bool((table.key & ~table.fresh).any()),
        "no key frame at its beginning": not table.fresh[0],
        # It jumps to a key frame by the time of showing, FFmpeg lands by the time of decoding.
        "key frames closer than the delay of decoding": bool((table.dts[keys[1:]] <= table.pts[keys[:-1]]).any()),
        "several picture streams": streams > 1,
        "turned by an angle that is no multiple of 90 degrees": rotation % 90 != 0,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


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
