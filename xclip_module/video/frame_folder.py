"""A video that was unpacked into numbered pictures."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from xclip_module.errors import DataError
from xclip_module.interface import FrameFolder
from xclip_module.video.frame_choice import frames_on_show
from xclip_module.video.watchdog import watching


def read(folder: FrameFolder, times: np.ndarray, *, timeout_seconds: float = 120.0) -> Iterator[np.ndarray]:
    """The picture on show at each of `times` (seconds, never falling): uint8 RGB [H, W, 3].

    Raises DataError naming the picture that is missing or broken.
    """
    watch = watching(folder.folder, timeout_seconds)
    previous, picture = -1, np.empty(0)
    for frame in frames_on_show(folder.times, times).tolist():
        if frame != previous:
            with watch:
                previous, picture = frame, _read_picture(folder.files[frame])
        yield picture


def _read_picture(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            # Not asarray: that is a view of Pillow's buffer, which cannot be written and of which torch warns.
            return np.array(image.convert("RGB"))
    except FileNotFoundError:
        raise DataError("cannot read picture", path, "no such file", f"ls {shlex.quote(str(path.parent))}") from None
    # Pillow reports damage by whatever its format plug-in stumbled over.
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = str(error).replace(str(path), "").strip() or type(error).__name__
        raise DataError("cannot read picture", path, reason, f"file {shlex.quote(str(path))}") from error
