"""The packets of a video's picture stream, in decode order, and what may be left undecoded without changing a pixel.

Two facts are read from the first bytes of each packet (ITU-T H.264 table 7-1 and 7.4.1, ITU-T H.265 table 7-1): an IDR
picture is a fresh start, nothing before it is needed for anything after it; a picture marked as "non-reference" is
needed by no other. Key frames of an open GOP are *not* fresh starts, although containers flag them as key frames.

Letters: M packets in decode order, N shown frames in order of time.
"""

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

from xclip_module.errors import DataError
from xclip_module.interface import PacketTable
from xclip_module.video.container import reencode
from xclip_module.video.watchdog import watching

# PyAV 19 reads tags in any encoding; before it, a title in Latin-1 made a file unreadable.
_LENIENT_TAGS: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
_RESETS_AT_KEYS = ("vp8", "vp9", "av1", "mjpeg", "prores", "ffv1")
_SEEKABLE = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm")
# These store no presentation times; what FFmpeg makes up from the order of decoding is wrong with B-frames.
_WITHOUT_TIMES = ("avi", "h264", "hevc", "m4v", "mpegvideo")
# Kinds of units: parameters of the stream (SPS, PPS and their like), parts of a picture, parts of an IDR picture.
_PARAMETERS = {"h264": (7, 8, 13, 15), "hevc": (32, 33, 34)}
_PICTURE = {"h264": range(1, 6), "hevc": range(32)}
_FRESH = {"h264": (5,), "hevc": (19, 20)}


@contextlib.contextmanager
def open_video(path: Path) -> Iterator[tuple[Any, Any]]:
    """The open container and its picture stream, set to one decoding thread; closed in all cases.

    Raises DataError naming the file for a file without pictures and for whatever FFmpeg objects to inside the block.
    """
    look = f"ffprobe {shlex.quote(str(path))}"
    try:
        # "file:" keeps FFmpeg from reading a name such as concat:a|b as a protocol.
        opened = av.open(f"file:{path}", **_LENIENT_TAGS)
    except av.error.FFmpegError as error:
        raise DataError("cannot read video", path, f"FFmpeg knows no such file ({error.strerror})", look) from error
    with opened as container:
        streams = picture_streams(container)
        if not streams or container.format.name.endswith("_pipe"):
            kinds = ", ".join(sorted({stream.type for stream in container.streams if stream not in streams}))
            reason = f"no moving pictures in it, only {kinds or 'a still one'}"
            raise DataError("cannot read video", path, reason, look)
        if streams[0].codec_context is None:
            raise DataError("cannot read video", path, "this FFmpeg does not know its codec", look)
        # Several files are read side by side, see `decode_ahead`; FFmpeg would start a thread per core for each.
        streams[0].codec_context.thread_count = 1
        try:
            yield container, streams[0]
        except av.error.FFmpegError as error:
            raise DataError("cannot read video", path, f"damaged ({error.strerror})", reencode(path)) from error


def picture_streams(container: Any) -> list[Any]:
    """The video streams of an open container without cover pictures."""
    return [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]


def read_packets(path: Path, container: Any, stream: Any, *, timeout_seconds: float) -> Iterator[Any]:
    """The packets of the picture stream from where the container stands to its end, without empty ones."""
    source = container.demux(stream)
    watch = watching(path, timeout_seconds)
    while True:
        with watch:
            packet = next(source, None)
        if packet is None:
            return
        if packet.size:
            yield packet


class PacketScan:
    """Collects what `PacketTable` holds, packet by packet, in the one demuxing pass of `probe`."""

    def __init__(self, path: Path, container: Any, stream: Any):
        """Takes from the open stream what is known before the first packet."""
        self._path = path
        self._codec = stream.codec_context.codec.canonical_name
        self._format = container.format.name
        self._units = _Units(self._codec, bytes(stream.codec_context.extradata or b""))
        self._rows: list[tuple[int | None, int | None, int, bool, bool, bool]] = []
        self._restartable = True

    def add(self, packet: Any) -> None:
        """Looks at the next packet; raises DataError when the demuxer found it damaged or cut short."""
        if packet.is_corrupt:
            seconds = float((packet.pts or 0) * (packet.time_base or 0))
            raise DataError("cannot read video", self._path, f"damaged at {seconds:.1f} s", reencode(self._path))
        fresh, picture = self._units.examine(packet)
        # Parameters change in the middle: a decoder that starts later would not have seen them.
        if packet.is_keyframe and packet.has_sidedata("new_extradata"):
            self._restartable = False
        hidden = packet.is_discard or not picture
        self._rows.append((packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe, fresh, hidden))

    def table(self, *, interlaced: bool) -> PacketTable:
        """What was collected; raises DataError for no picture at all and for two frames with the same time."""
        if not self._rows:
            raise DataError("cannot read video", self._path, "no picture in it", reencode(self._path))
        dated = sum(row[0] is not None for row in self._rows)
        timed = self._format not in _WITHOUT_TIMES and dated > 0
        pts, dts, ticks = (np.array([row[i] or 0 for row in self._rows], np.int64) for i in range(3))
        key, fresh, hidden = (np.array([row[i] for row in self._rows], bool) for i in range(3, 6))
        start = int(np.argmax(key)) if timed else 0
        fresh = self._fresh(pts, key, fresh, start)
        # A recording that begins inside a GOP: what comes before its first key frame cannot be decoded.
        hidden |= np.arange(len(pts)) < start
        hidden |= (pts < pts[start]) & ~fresh[start]
        order = np.argsort(pts, kind="stable") if timed else np.empty(0, np.int64)
        order = order[~hidden[order]]
        if timed and (len(np.unique(pts)) < len(pts) or dated < len(pts) or not len(order)):
            reason = "frames without a time of their own" if len(order) else "every frame in it is hidden"
            raise DataError("cannot read video", self._path, reason, reencode(self._path))
        # Two fields of one packet may differ in whether others need them.
        skippable = timed and self._units.skippable and not interlaced
        strict = bool(fresh[start]) or not self._units.are_readable
        seekable = timed and self._format in _SEEKABLE
        return PacketTable(pts, dts, ticks, key, fresh, order, start, skippable, strict, seekable)

    def _fresh(self, pts: np.ndarray, key: np.ndarray, fresh: np.ndarray, start: int) -> np.ndarray:
        if not self._units.are_readable:
            # An open GOP shows pictures that follow its key frame before it: where none is, key frames are trusted.
            in_order = bool((np.diff(pts) > 0).all())
            fresh = key if self._codec in _RESETS_AT_KEYS or in_order else np.zeros_like(key)
        if self._restartable and self._units.restartable:
            return fresh
        return fresh & (np.arange(len(fresh)) == start)


class _Units:
    """The units (NAL units) that H.264 and HEVC packets are made of.

    restartable: no packet brought parameters that a decoder started later would not have.
    """

    def __init__(self, codec: str, extradata: bytes):
        self.are_readable = codec in _PICTURE
        self.restartable = True
        self._codec, self._extradata = codec, extradata
        # The boxes avcC and hvcC (ISO/IEC 14496-15) begin with their version, 1; without one there are start codes.
        boxed = extradata[:1] == b"\1" and len(extradata) > 22
        self._width = 0 if not boxed else (extradata[4 if codec == "h264" else 21] & 3) + 1
        # HEVC's mark holds only within a temporal layer: with several, a higher one may need the marked frame.
        layers = extradata[21] >> 3 & 7 if boxed and codec == "hevc" else 0
        self.skippable = codec == "h264" or layers == 1

    def examine(self, packet: Any) -> tuple[bool, bool]:
        """Whether the packet is a fresh start, and whether it holds a picture to show."""
        if not self.are_readable:
            # VP8 sends reference pictures that are never shown as packets of their own (RFC 6386 section 9.1).
            return False, self._codec != "vp8" or bool(memoryview(packet)[0] >> 4 & 1)
        for unit in _split_units(memoryview(packet), self._width):
            if not len(unit):
                return False, True  # if it is damage, decoding will say so
            kind = unit[0] & 31 if self._codec == "h264" else unit[0] >> 1 & 63
            if kind in _PARAMETERS[self._codec]:
                # Zeros may follow a unit (H.264 annex B).
                self.restartable &= bytes(unit).rstrip(b"\0") in self._extradata
            elif kind in _PICTURE[self._codec]:
                return kind in _FRESH[self._codec], True
        return False, False


def _split_units(data: memoryview, width: int) -> Iterator[memoryview]:
    """The units of one packet: behind lengths of `width` bytes, or for width 0 between start codes 00 00 01.

    An empty one stands for bytes that make no sense as units.
    """
    if width:
        at = 0
        while at < len(data):
            end = at + width + int.from_bytes(data[at : at + width])
            yield data[at + width : end if end <= len(data) else 0]
            at = end
        return
    content = bytes(data)
    at = content.find(b"\0\0\1") + 3
    if at < 3:
        yield data[:0]
    while at > 2:
        following = content.find(b"\0\0\1", at)
        if at < len(content):
            yield data[at : following if following > 0 else len(data)]
        at = following + 3
