"""What is in a video: when each frame comes on show, how large it is, and whether decord could be asked to read it."""

from pathlib import Path
from typing import Any

import av
import numpy as np

from xclip_module.errors import DataError
from xclip_module.interface import PacketTable, VideoInfo
from xclip_module.video.container import check_file, reencode
from xclip_module.video.decord_reader import packet_refusal
from xclip_module.video.packets import PacketScan, open_video, picture_streams, read_packets
from xclip_module.video.pyav_reader import count_frames
from xclip_module.video.watchdog import watching


def probe(path: Path, *, timeout_seconds: float = 120.0) -> VideoInfo:
    """What is in the video at `path`, from one pass over its packets and one decoded frame.

    The file is streamed through, never held. AVI and raw streams store no times: their frames are counted by decoding
    them all. Raises DataError, one line with the name, for a file that is missing, damaged, cut short or no video.
    """
    head = check_file(path)
    with open_video(path) as (container, stream):
        scan = PacketScan(path, container, stream)
        frame = None
        for packet in read_packets(path, container, stream, timeout_seconds=timeout_seconds):
            scan.add(packet)
            frame = frame or _first_frame(path, stream, packet, timeout_seconds)
        # A short video may lie whole in the decoder's delay: an empty packet brings it out.
        frame = frame or _first_frame(path, stream, None, timeout_seconds)
        if frame is None:
            raise DataError("cannot decode", path, "not one picture in it", reencode(path))
        table = scan.table(interlaced=frame.interlaced_frame)
        codec, streams = stream.codec_context.codec.canonical_name, len(picture_streams(container))
        tick, period = float(stream.time_base), 1 / float(stream.average_rate or 25)
    times, duration = _times(path, table, tick=tick, period=period, timeout_seconds=timeout_seconds)
    # Players turn by quarters; FFmpeg states the angle counter-clockwise.
    rotation = round(-frame.rotation / 90) * 90 % 360
    width, height = (frame.width, frame.height) if rotation % 180 == 0 else (frame.height, frame.width)
    refusal = packet_refusal(head, codec, table, streams=streams, rotation=frame.rotation)
    return VideoInfo(path, times, duration, width, height, rotation, codec, refusal, table)


def _first_frame(path: Path, stream: Any, packet: Any, timeout_seconds: float) -> Any:
    """The first frame that comes out, fed packet by packet; None for "not yet" and for a packet that makes no sense."""
    try:
        with watching(path, timeout_seconds):
            return next(iter(stream.codec_context.decode(packet)), None)
    except (av.error.InvalidDataError, av.error.EOFError):
        return None


def _times(
    path: Path, table: PacketTable, *, tick: float, period: float, timeout_seconds: float
) -> tuple[np.ndarray, float]:
    """Seconds at which each shown frame comes on, from 0, and at which the last one ends."""
    if len(table.order):
        times = (table.pts[table.order] - table.pts[table.order[0]]) * tick
        last = float(table.ticks[table.order[-1]]) * tick
    else:
        count = count_frames(path, table, timeout_seconds=timeout_seconds)
        decoded = np.sort(table.dts)
        # One frame per packet: the times of decoding are those of showing, a constant delay apart.
        exact = count == len(decoded) and bool((np.diff(decoded) > 0).all())
        times = (decoded - decoded[0]) * tick if exact else np.arange(count) * period
        last = 0.0
    if not len(times):
        raise DataError("cannot decode", path, "not one picture in it", reencode(path))
    # Some containers do not say how long a frame stays.
    if not last > 0:
        last = float(np.median(np.diff(times))) if len(times) > 1 else period
    return times, float(times[-1]) + last
