"""Reads frames with PyAV, forwards, leaving undecoded what cannot change the pixels asked for.

Left out are frames that no other frame needs (most B-frames), and everything between a wanted frame and the next fresh
start; `packets` says what makes both safe. The pixels are those of a full decode, bit by bit. At 1 frame per second of
854x480 H.264 (1.5 Mbit/s, x264's defaults) 718 of 1500 frames are decoded, in 0.7 of the CPU time that decord takes.

Damage in what is decoded is an error as far as the codec can tell: H.264 carries no checksums, a few flipped bits may
pass as a picture.

Letters: N shown frames, M packets, T times asked for.
"""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from xclip_module.errors import DataError
from xclip_module.interface import PacketTable, VideoInfo
from xclip_module.video.container import reencode
from xclip_module.video.frame_choice import frames_on_show
from xclip_module.video.packets import open_video, read_packets
from xclip_module.video.watchdog import watching

# Without these FFmpeg paints over damage and says nothing.
_STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}
# Below this many packets, reading past them is cheaper than a seek and the way from its landing place.
_SEEK_PACKETS = 500


def read(info: VideoInfo, times: np.ndarray, *, timeout_seconds: float = 120.0) -> Iterator[np.ndarray]:
    """The picture on show at each of `times` (seconds, never falling): uint8 RGB [H, W, 3], turned as shown.

    A frame asked for several times in a row is the same array: do not write into it.
    Raises DataError naming file and time where the file is damaged.
    """
    frames, copies = np.unique(frames_on_show(info.times, times), return_counts=True)
    if not len(frames):
        return
    reformatter = VideoReformatter()
    with _Pass(info.path, info.packets, timeout_seconds) as file:
        for frame, count in zip(_choose(file, info, frames), copies, strict=True):
            stored = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
            picture: np.ndarray = np.ascontiguousarray(np.rot90(stored, -info.rotation // 90))
            for _ in range(count):
                yield picture


def fresh_starts(info: VideoInfo, times: np.ndarray) -> np.ndarray:
    """Indices into `times` at which another reader can take over without decoding anything twice; the first is 0.

    Where times or key frames cannot be trusted, 0 is the only one.
    """
    if not len(info.packets.order):
        return np.zeros(min(len(times), 1), np.int64)
    position = info.packets.order[frames_on_show(info.times, times)]
    start = _starts(info.packets, position)
    return np.flatnonzero(np.r_[True, start[1:] > position[:-1]][: len(times)])


def count_frames(path: Path, table: PacketTable, *, timeout_seconds: float) -> int:
    """How many frames come out when the whole file is decoded."""
    everything = np.ones(len(table.pts), bool)
    with _Pass(path, table, timeout_seconds) as file:
        return sum(1 for _ in file.decode(everything, everything))


def _choose(file: "_Pass", info: VideoInfo, frames: np.ndarray) -> Iterator[Any]:
    """The decoded frames with the given numbers, rising: all of them, or DataError."""
    table = info.packets
    # Without times of their own, frames are told by their number, for which all must be decoded.
    counted = not len(table.order)
    need = wanted = np.ones(len(table.pts), bool)
    due = frames
    if not counted:
        wanted = np.zeros(len(table.pts), bool)
        wanted[table.order[frames]] = True
        need, due = _needed(table, wanted), table.pts[table.order[frames]]
    given = 0
    for number, frame in enumerate(file.decode(need, wanted)):
        if (number if counted else frame.pts) == due[given]:
            yield frame
            given += 1
            if given == len(due):
                return
    reason = f"no picture can be decoded for {info.times[frames[given]]:.2f} s"
    raise DataError("cannot decode", info.path, reason, reencode(info.path))


def _needed(table: PacketTable, wanted: np.ndarray) -> np.ndarray:
    """[M] bool: every packet from the last fresh start before a wanted one up to it."""
    position = np.flatnonzero(wanted)
    change = np.zeros(len(wanted) + 1, np.int64)
    np.add.at(change, _starts(table, position), 1)
    np.add.at(change, position + 1, -1)
    return np.cumsum(change[:-1]) > 0


def _starts(table: PacketTable, position: np.ndarray) -> np.ndarray:
    starts = np.flatnonzero(table.fresh)
    starts = np.r_[table.start, starts[starts > table.start]]
    return starts[np.searchsorted(starts, position, side="right") - 1]


class _Pass:
    """One way forwards through a file, which is open while it is entered."""

    def __init__(self, path: Path, table: PacketTable, timeout_seconds: float):
        self._path, self._table, self._seconds = path, table, timeout_seconds
        self._watch = watching(path, timeout_seconds)
        self._files = contextlib.ExitStack()

    def __enter__(self) -> "_Pass":
        self._container, self._stream = self._files.enter_context(open_video(self._path))
        self._context = self._stream.codec_context
        self._context.options = _STRICT if self._table.strict else {}
        self._source = self._packets()
        self._position = 0
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._files.__exit__(*error)

    def decode(self, need: np.ndarray, wanted: np.ndarray) -> Iterator[Any]:
        """The frames of the packets in `need`, by time; of those that are not `wanted` only what others lean on."""
        table = self._table
        # Before the first key frame of a file that begins inside a GOP: they lean on frames that are not there.
        headless = (table.pts < table.pts[table.start]) & ~table.fresh[table.start] & (len(table.order) > 0)
        edges = np.flatnonzero(np.diff(np.r_[False, need, False])).reshape(-1, 2)
        for start, stop in edges.tolist():
            for position in range(start, stop):
                if headless[position]:
                    continue
                packet = self._packet(position)
                if table.skippable:
                    self._context.skip_frame = "DEFAULT" if wanted[position] else "NONREF"
                yield from self._decoded(packet, position)
            # None drains what the decoder holds back for the order of showing; only flushed does it decode again.
            yield from self._decoded(None, stop - 1)
            self._context.flush_buffers()

    def _decoded(self, packet: Any, position: int) -> list[Any]:
        with self._damage_at(position):
            with self._watch:
                frames = self._context.decode(packet)
            # FFmpeg filled a hole with what was there before.
            if self._table.strict and any(frame.is_corrupt for frame in frames):
                raise av.error.InvalidDataError(0, "a picture with holes")
            return frames

    def _packet(self, position: int) -> Any:
        """The packet at `position`, which lies ahead."""
        if position - self._position > _SEEK_PACKETS and self._table.seekable and not self._seek(position):
            # A failed seek leaves the container anywhere: begin again, and never seek in this file.
            self._table = self._table._replace(seekable=False)
            self._files.close()
            self.__enter__()
        while True:
            with self._damage_at(self._position):
                packet = next(self._source, None)
            if packet is None or (packet.pts or 0) != self._table.pts[self._position]:
                raise DataError("cannot read video", self._path, "it changed while it was read", "the same command")
            self._position += 1
            if self._position > position:
                return packet

    def _seek(self, position: int) -> bool:
        """Goes to a packet at or before `position`; where a seek lands is looked up, never trusted."""
        table = self._table
        try:
            # Some containers are sought by the time of decoding, others by that of showing: the earlier suits both.
            self._container.seek(int(min(table.pts[position], table.dts[position])), stream=self._stream)
            source = self._packets()
            packet = next(source, None)
        except av.error.FFmpegError:
            return False
        landing = np.flatnonzero(table.pts == packet.pts) if packet is not None else np.empty(0)
        if not len(landing) or landing[0] > position:
            return False
        self._source, self._position = itertools.chain([packet], source), int(landing[0])
        return True

    def _packets(self) -> Iterator[Any]:
        return read_packets(self._path, self._container, self._stream, timeout_seconds=self._seconds)

    @contextlib.contextmanager
    def _damage_at(self, position: int) -> Iterator[None]:
        try:
            yield
        except av.error.FFmpegError as error:
            table = self._table
            zero = table.pts[table.order[0]] if len(table.order) else table.pts[0]
            seconds = float((table.pts[min(position, len(table.pts) - 1)] - zero) * self._stream.time_base)
            reason = f"damaged at {max(seconds, 0):.1f} s ({error.strerror})"
            raise DataError("cannot decode", self._path, reason, reencode(self._path)) from error
