"""The video file as bytes: is it there, is it a video, is it whole; asked before any decoder touches it.

FFmpeg follows a playlist named .mp4 to other files and reads a file that was cut short without a word, so the first
bytes and the sizes that the container itself states are checked here.
"""

import shlex
from pathlib import Path
from typing import BinaryIO

from xclip_module.errors import DataError

EBML = b"\x1a\x45\xdf\xa3"
_SEGMENT = bytes.fromhex("18538067")
_CLUSTER = bytes.fromhex("1f43b675")
# What may stand in a segment, and in a cluster (RFC 9559 section 5.1); anything else there is damage.
# SeekHead, Info, Tracks, Cluster, Cues, Tags, Chapters, Attachments; in both also padding and a checksum.
_IN_SEGMENT = "114d9b74 1549a966 1654ae6b 1f43b675 1c53bb6b 1254c367 1043a770 1941a469 ec bf"
# Timestamp, SimpleBlock, BlockGroup, PrevSize, Position, SilentTracks, EncryptedBlock.
_IN_CLUSTER = "e7 a3 a0 ab a7 5854 af ec bf"
_SEGMENT_PARTS = {bytes.fromhex(name) for name in _IN_SEGMENT.split()}
_CLUSTER_PARTS = {bytes.fromhex(name) for name in _IN_CLUSTER.split()}
# Beginnings of texts that may stand where a video should; a list of files FFmpeg would follow.
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
        # Unbuffered: the checks read 12 bytes here and there, not the kilobytes around them.
        with path.open("rb", buffering=0) as file:
            head = file.read(4096)
            _check_head(path, head)
            _check_whole(path, file, head)
    except FileNotFoundError:
        reason = "a link to a file that is gone" if path.is_symlink() else "no such file"
        raise DataError("cannot read video", path, reason, f"ls {_quoted(path.parent)}") from None
    except IsADirectoryError:
        raise DataError("cannot read video", path, "a folder, not a file", f"ls {_quoted(path)}") from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError("cannot read video", path, reason, f"ls -l {_quoted(path)}") from error
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
    for start, (reason, attempt) in _TEXTS.items():
        if head.lstrip().startswith(start):
            raise DataError("cannot read video", path, reason, attempt.format(path=_quoted(path)))
    if all(byte in b"\t\n\r\x0c" or byte >= 0x20 for byte in head[:64]) and b"\0" not in head:
        raise DataError("cannot read video", path, "text, not a video", f"head -c 300 {_quoted(path)}")


def _check_whole(path: Path, file: BinaryIO, head: bytes) -> None:
    size = file.seek(0, 2)
    missing, damage = 0, -1
    if head[:4] == EBML:
        missing, damage = _matroska(file, size)
    elif head[:4] == b"RIFF":
        missing, damage = _riff(file, size)
    # MP4 begins with ftyp, older QuickTime files with one of the others.
    elif head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
        boxes, end = _boxes(file, size)
        missing = end - size
        if missing <= 0 and b"moov" not in boxes:
            reason = "no index (moov) in it: cut short, or the recorder never finished"
            raise DataError("cannot read video", path, reason, _look(path))
        # A file in fragments has no other index; elsewhere what follows the last box is the recorder's own business.
        damage = end if b"moof" in boxes and end < size - 8 else -1
    if missing > 0:
        raise DataError("cannot read video", path, f"cut short: at least {missing} bytes are missing", _look(path))
    if damage >= 0:
        raise DataError("cannot read video", path, f"damaged at byte {damage} of {size}", reencode(path))


def _look(path: Path) -> str:
    return f"ls -l {_quoted(path)}  # compare with the source and copy it again"


def _boxes(file: BinaryIO, size: int) -> tuple[list[bytes], int]:
    """Names of the top-level MP4 boxes, and where the last one that makes sense says it ends."""
    kinds: list[bytes] = []
    start = 0
    while start + 8 <= size:
        header = _read_at(file, start, 16)
        length, kind = int.from_bytes(header[:4]), header[4:8]
        if length == 1:  # more than 4 GB: a 64-bit length follows the name
            length = int.from_bytes(header[8:16])
        end = size if length == 0 else start + length  # 0: to the end of the file
        if end < start + 8 or not kind.isalnum():
            break
        kinds.append(kind)
        start = end
    return kinds, start


def _riff(file: BinaryIO, size: int) -> tuple[int, int]:
    """Bytes missing at the end of an AVI file, and where the first chunk lies that makes no sense, else -1.

    FFmpeg looks for the next chunk after damage and says nothing of the frames it lost. Large files hold several RIFF
    chunks; unfinished recordings state no size.
    """
    start = end = 0
    while start + 8 <= size:
        header = _read_at(file, start, 12)
        name, length = header[:4], int.from_bytes(header[4:8], "little")
        if start >= end:  # where the last RIFF chunk ended, another one may begin
            if name != b"RIFF" or length in (0, 0xFFFFFFFF):
                break
            end = start + 8 + length
            if end > size:
                return end - size, -1
            start += 12
            continue
        # Chunks begin at even bytes; the very last one may lack its padding.
        following = start + 8 + length + length % 2
        if following > end + 1 or not all(32 <= letter < 127 for letter in name):
            return 0, start
        # These two lists hold the frames: go in, so that damage among them shows.
        start = start + 12 if name == b"LIST" and header[8:] in (b"movi", b"rec ") else following
    return 0, -1


def _matroska(file: BinaryIO, size: int) -> tuple[int, int]:
    """Bytes missing at the end, and where the first element lies that makes no sense, else -1.

    FFmpeg looks for the next cluster after damage and says nothing of the frames it lost. Live recordings do not
    state sizes: nothing can be told of them.
    """
    _, _, end = _element(file, 0)  # the EBML header
    identity, start, end = _element(file, end)
    if identity != _SEGMENT or end < 0:
        return 0, -1
    if end > size:
        return end - size, -1
    segment_end = end
    while start < segment_end:
        identity, inside, end = _element(file, start)
        if end < 0 and identity == _CLUSTER:
            return 0, -1
        if identity not in _SEGMENT_PARTS or not start < end <= segment_end:
            return 0, start
        while identity == _CLUSTER and inside < end:
            part, _, part_end = _element(file, inside)
            if part not in _CLUSTER_PARTS or not inside < part_end <= end:
                return 0, inside
            inside = part_end
        start = end
    return 0, -1


def _element(file: BinaryIO, at: int) -> tuple[bytes, int, int]:
    """Identity, begin and end of the content of the EBML element at a byte; the end is -1 where it is not stated.

    In both numbers the zeros in front of the first one-bit say how many bytes follow the first (RFC 8794 section 4);
    that bit is part of an identity, but not of a size. A size of ones only means that it is not known.
    """
    head = _read_at(file, at, 12)
    if len(head) < 2 or not head[0]:
        return b"", at, at
    width = 9 - head[0].bit_length()
    size = head[width : width + 8]
    if not size or not size[0]:
        return b"", at, at
    digits = 9 - size[0].bit_length()
    length = int.from_bytes(size[:digits]) & ((1 << 7 * digits) - 1)
    begin = at + width + digits
    return head[:width], begin, -1 if length == (1 << 7 * digits) - 1 else begin + length


def _read_at(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count)
