"""The video file as bytes: is it there, is it a video, is it whole; asked before any decoder touches it.

FFmpeg follows a playlist named .mp4 to other files and reads a file that was cut short without a word, so the first
bytes and the sizes that the container itself states are checked here.
"""

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from xclip_module.errors import DataError

EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = b"\x18\x53\x80\x67"
_TEXTS = {
    b"version https://git-lfs": ("a Git LFS pointer, not the video itself", "git lfs pull"),
    b"#EXTM3U": ("a playlist that names other files", "ffmpeg -i {path} -c copy video.mp4"),
    b"ffconcat": ("a list that names other files", "ffmpeg -f concat -i {path} -c copy video.mp4"),
    b"<": ("a web page, not a video", "head -c 300 {path}"),
}


def reencode(path: Path) -> str:
    """The command that turns a file FFmpeg can still play into one that every reader here reads right.

    >>> reencode(Path("a/in.avi"))
    'ffmpeg -i a/in.avi -c:v libx264 -crf 18 a/in.fixed.mp4'
    """
    return f"ffmpeg -i {shlex.quote(str(path))} -c:v libx264 -crf 18 {shlex.quote(str(path.with_suffix('.fixed.mp4')))}"


def check_file(path: Path) -> bytes:
    """The first bytes of a file that is there, is no text and holds all the bytes its own headers promise.

    Raises DataError for a missing, empty, text, all-zero or truncated file and for a folder. MPEG-TS and live
    recordings without a stated size may lack their tail unseen: nothing in the file tells.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4096)
            _check_head(path, head)
            _check_whole(path, file, head)
    except FileNotFoundError:
        why = "a link to a file that is gone" if path.is_symlink() else "no such file"
        raise DataError("cannot read video", path, why, f"ls {_quoted(path.parent)}") from None
    except IsADirectoryError:
        raise DataError("cannot read video", path, "a folder, not a file", f"ls {_quoted(path)}") from None
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise DataError("cannot read video", path, why, f"ls -l {_quoted(path)}") from error
    return head


def is_mp4_or_mkv(head: bytes) -> bool:
    """Whether the first bytes are those of MP4/QuickTime with a brand, or of Matroska/WebM.

    >>> is_mp4_or_mkv(bytes(4) + b"ftypisom"), is_mp4_or_mkv(b"RIFF....AVI ")
    (True, False)
    """
    return head[4:8] == b"ftyp" or head[:4] == EBML


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _check_head(path: Path, head: bytes) -> None:
    if not head:
        raise DataError("cannot read video", path, "the file is empty (0 bytes)", f"ls -l {_quoted(path)}")
    if not any(head):
        raise DataError("cannot read video", path, "only zero bytes where a header should be", f"ls -l {_quoted(path)}")
    for start, (why, attempt) in _TEXTS.items():
        if head.lstrip().startswith(start):
            raise DataError("cannot read video", path, why, attempt.format(path=_quoted(path)))
    if all(byte in b"\t\n\r\x0c" or byte >= 0x20 for byte in head[:64]) and b"\0" not in head:
        raise DataError("cannot read video", path, "text, not a video", f"head -c 300 {_quoted(path)}")


def _check_whole(path: Path, file: BinaryIO, head: bytes) -> None:
    size = file.seek(0, 2)
    if head[:4] == EBML:
        missing = _matroska_end(head) - size
    elif head[:4] == b"RIFF":
        missing = max((end for _, end in _chunks(file, size)), default=0) - size
    elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        boxes = list(_boxes(file, size))
        missing = max(end for _, end in boxes) - size
        if missing <= 0 and b"moov" not in [kind for kind, _ in boxes]:
            why = "no index (moov) in it: cut short, or the recorder never finished"
            raise DataError("cannot read video", path, why, _look(path))
    else:
        return
    if missing > 0:
        raise DataError("cannot read video", path, f"cut short: at least {missing} bytes are missing", _look(path))


def _look(path: Path) -> str:
    return f"ls -l {_quoted(path)}  # compare with the source and copy it again"


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """Name and end of each top-level MP4 box; a header of fewer than 8 bytes at the end is padding."""
    start = 0
    while start + 8 <= size:
        file.seek(start)
        header = file.read(16)
        length, kind = int.from_bytes(header[:4]), header[4:8]
        if length == 1:
            length = int.from_bytes(header[8:16])
        end = size if length == 0 else start + length
        if end < start + 8 or not kind.isalnum():
            return
        yield kind, end
        start = end


def _chunks(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """Name and end of each top-level RIFF chunk; large AVI files hold several, unfinished ones state 0 or all ones."""
    start = 0
    while start + 8 <= size:
        file.seek(start)
        header = file.read(8)
        length = int.from_bytes(header[4:], "little")
        if header[:4] != b"RIFF" or length in (0, 0xFFFFFFFF):
            return
        yield header[:4], start + 8 + length
        start += 8 + length + length % 2


def _matroska_end(head: bytes) -> int:
    """Where the Matroska segment says it ends; 0 where it does not say (live recordings)."""
    length, width = _ebml_size(head, 4)
    start = 4 + width + length
    if head[start : start + 4] != _SEGMENT:
        return 0
    length, width = _ebml_size(head, start + 4)
    return 0 if length == (1 << 7 * width) - 1 else start + 4 + width + length


def _ebml_size(head: bytes, at: int) -> tuple[int, int]:
    """Value and width in bytes of an EBML size; all ones mean unknown."""
    if at >= len(head) or not head[at]:
        return 0, 1
    width = 9 - head[at].bit_length()
    value = int.from_bytes(head[at : at + width]) & ((1 << 7 * width) - 1)
    return value, width
