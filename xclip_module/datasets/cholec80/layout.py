"""Where a copy of Cholec80 keeps its videos, labels and extracted frames: any nesting, common names."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xclip_module.datasets.cholec80.labels import LABEL_FPS
from xclip_module.datasets.file_tree import VIDEO_SUFFIXES, walk
from xclip_module.errors import DataError
from xclip_module.interface import FrameFolder

_PICTURE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
# Copies name a video video01, Video_1, video-001 or 1; a label or flat frame has its word behind the number.
_VIDEO = re.compile(r"(?:video[_-]?)?0*(\d{1,3})", re.IGNORECASE)
_LABEL = re.compile(r"(?:video[_-]?)?0*(\d{1,3})[-_](phase|tool)\.txt", re.IGNORECASE)
_FLAT_FRAME = re.compile(r"(?:video[_-]?)0*(\d{1,3})[-_](?:frame[-_]?)?\d+", re.IGNORECASE)


class Layout(NamedTuple):
    """What was found, by video number: files, extracted frames (unsorted), phase and tool files."""

    videos: dict[int, Path]
    frames: dict[int, list[Path]]
    phases: dict[int, Path]
    tools: dict[int, Path]


def video_id(number: int) -> str:
    """Cholec80's own name.

    >>> video_id(7)
    'video07'
    """
    return f"video{number:02d}"


def find_layout(root: Path) -> Layout:
    """Every video, label file and frame under `root`, in one walk.

    Raises DataError when two files claim to be the same video or label.
    """
    layout = Layout({}, {}, {}, {})
    for folder, names in walk(root):
        _add_files(layout, folder, names)
    return layout


def frame_folder(files: Iterable[Path], *, label_seconds: float, fps: float = 0.0, base: int = -1) -> FrameFolder:
    """Extracted frames with their times, found from their numbers and checked against the labels' length.

    label_seconds: length by the labels.  fps, base: the user's word, 0 and -1 = found.
    Raises DataError with every hypothesis when none or several fit.
    """
    numbered = sorted((_number(file), file) for file in files)
    numbers = np.array([number for number, _ in numbered])
    folder = numbered[0][1].parent
    if len(np.unique(numbers)) < len(numbers):
        raise DataError("frames with the same number", folder, f"{len(numbers) - len(np.unique(numbers))} of them")
    first, step = _numbering(numbers, folder, label_seconds=label_seconds, fps=fps, base=base)
    times = (numbers - first) * step
    spacing = float(np.median(np.diff(times))) if len(times) > 1 else step
    return FrameFolder(folder, tuple(file for _, file in numbered), times, float(times[-1] + spacing))


def _add_files(layout: Layout, folder: Path, names: Iterable[str]) -> None:
    pictures = []
    for name in names:
        path = folder / name
        if label := _LABEL.fullmatch(name):
            _claim(layout.phases if label[2].lower() == "phase" else layout.tools, int(label[1]), path)
        elif path.suffix.lower() in VIDEO_SUFFIXES and (video := _VIDEO.fullmatch(path.stem)):
            _claim(layout.videos, int(video[1]), path)
        elif path.suffix.lower() in _PICTURE_SUFFIXES:
            pictures.append(path)
    # A folder named as a video holds the frames of that video, whatever their names say.
    folder_video = _VIDEO.fullmatch(folder.name)
    for path in pictures:
        if numbered := folder_video or _FLAT_FRAME.fullmatch(path.stem):
            layout.frames.setdefault(int(numbered[1]), []).append(path)


def _claim(files: dict[int, Path], number: int, path: Path) -> None:
    if number in files:
        raise DataError(f"two files for {video_id(number)}", files[number], f"and {path}", "move one of them away")
    files[number] = path


def _number(file: Path) -> int:
    """The last run of digits of a frame's name: 17 of `video01_000017.png`."""
    digits = re.findall(r"\d+", file.stem)
    if not digits:
        raise DataError("a frame without a number", file, "expected names such as video01_000001.png or 00025.jpg")
    return int(digits[-1])


def _numbering(numbers: np.ndarray, folder: Path, *, label_seconds: float, fps: float, base: int) -> tuple[int, float]:
    """The one base and step, seconds = (number - base) * step, by which the frames last as long as the labels."""
    first = int(numbers[0]) if base < 0 else base
    stride = int(np.median(np.diff(numbers))) if len(numbers) > 1 else 1
    # Extracted frames are counted one a second, or keep the numbers that they have in the 25-fps video.
    steps = (
        {f"every number is 1/{fps:g} s": 1 / fps}
        if fps
        else {"one number a second": 1.0, "25-fps numbers": 1 / LABEL_FPS}
    )
    lasts = {name: float(numbers[-1] - first + stride) * step for name, step in steps.items()}
    # Labels and frames may differ by one row of a second or one frame; the rest is rounding.
    tolerance = max(1.0, stride * min(steps.values())) + 1e-6
    fitting = [name for name in steps if abs(lasts[name] - label_seconds) <= tolerance]
    # Any other first number may be a base or a missing beginning: the user has to say which.
    if len(fitting) == 1 and (base >= 0 or first in (0, 1)):
        return first, steps[fitting[0]]
    tried = ", ".join(f"{name} from {first}: {seconds:g} s" for name, seconds in lasts.items())
    counted = f"{len(numbers)} frames, numbers {numbers[0]}..{numbers[-1]}"
    lengths = f"{counted}, the labels last {label_seconds:g} s; {tried}"
    attempt = "--data.frame_fps=1 --data.frame_base=1 (yours)"
    raise DataError("frame numbers do not fit the labels", folder, lengths, attempt)
