"""Which file of a folder is which video: one walk, then names are looked up."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn

from xclip_module.datasets.file_tree import VIDEO_SUFFIXES, walk
from xclip_module.errors import DataError

# What Flickr and YouTube uploads come in, beside what operations are recorded in.
_SUFFIXES = VIDEO_SUFFIXES | {".3gp", ".3gpp", ".3g2", ".asf", ".divx", ".flv", ".m2ts", ".mts", ".ogv", ".qt"}


class VideoIndex(NamedTuple):
    """The files below a folder.

    names: by complete name, any suffix.  stems: videos by their name without suffix.
    """

    root: Path
    names: Mapping[str, list[Path]]
    stems: Mapping[str, list[Path]]


def index_videos(root: Path) -> VideoIndex:
    """Every file below `root`, links followed; an empty file is what a broken download leaves, and no video.

    Raises DataError where there is no such folder, and for one below that cannot be read.
    """
    if not root.is_dir():
        attempt = "the folder with the videos: --data.root=FOLDER (of the check: --videos)"
        raise DataError("video folder not found", root, "no such folder", attempt)
    names: dict[str, list[Path]] = {}
    stems: dict[str, list[Path]] = {}
    for folder, files in walk(root, on_error=_refuse):
        # The file system's order differs between machines, and an error should name the same file on all of them.
        for name in sorted(files):
            path = folder / name
            if not (path.is_file() and path.stat().st_size):
                continue
            names.setdefault(name, []).append(path)
            if (stem := without_suffix(name)) != name:
                stems.setdefault(stem, []).append(path)
    return VideoIndex(root, names, stems)


def find_videos(index: VideoIndex, names: Mapping[str, tuple[str, ...]]) -> dict[str, Path]:
    """The file of each video id that has one.

    names: id -> what its file may be called, best first; a name counts as a complete file name, then as one without
        its suffix.
    Raises DataError where two files are equally good, or one file is the best for two ids. The released loaders take
    the one that the walk meets last.
    """
    files: dict[str, Path] = {}
    owner: dict[Path, str] = {}
    for video, spellings in names.items():
        path = _best(index, video, spellings)
        if path is None:
            continue
        if path in owner:
            raise DataError("one file for two videos", path, f"{owner[path]} and {video}", "name each file as its id")
        files[video], owner[path] = path, video
    return files


def without_suffix(name: str) -> str:
    """A file name without the suffix of a video; what else follows a dot stays.

    >>> without_suffix("0001_Movie_00.00.01.000-00.00.04.000.avi"), without_suffix("vidB.x_0_9")
    ('0001_Movie_00.00.01.000-00.00.04.000', 'vidB.x_0_9')
    """
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix.lower()}" in _SUFFIXES else name


def _refuse(error: OSError) -> NoReturn:
    """Of a folder that cannot be listed: its videos would count as missing."""
    raise DataError("cannot read folder", error.filename, error.strerror or str(error)) from error


def _best(index: VideoIndex, video: str, spellings: tuple[str, ...]) -> Path | None:
    for spelling in spellings:
        for files in (index.names.get(spelling, []), index.stems.get(spelling, [])):
            if len(files) > 1:
                raise DataError(f"two files for video {video}", files[0], f"and {files[1]}", "move one of them away")
            if files:
                return files[0]
    return None
