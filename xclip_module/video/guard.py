"""What must hold before decord may touch a file, where it was asked for.

decord 0.6.0 (FFmpeg 4.1) hangs or returns wrong frames without a word on stream-copied cuts, MPEG-TS, AVI, where a key
frame is no fresh start (open GOP: x265's default; intra refresh) and where key frames stand very close: it counts
frames from the key frame it jumped to, and others came out there. All of this shows in the packets.
"""

import importlib.util

import numpy as np

from xclip_module.interface import PacketTable
from xclip_module.video.container import is_mp4_or_mkv

_CODECS = ("h264", "hevc", "vp8", "vp9", "mpeg4")


def decord_refusal(head: bytes, codec: str, table: PacketTable, *, streams: int, rotation: float) -> str:
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
