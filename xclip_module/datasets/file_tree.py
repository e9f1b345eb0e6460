"""The files below a folder, and which of them are videos by their name."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

VIDEO_SUFFIXES = {".mp4", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".webm", ".wmv"}


def walk(root: Path, on_error: Callable[[OSError], None] | None = None) -> Iterator[tuple[Path, list[str]]]:
    """Each folder from `root` down with the names of its files, links followed, every real folder once.

    on_error: is told of a folder that cannot be listed; None = it is passed over.
    """
    seen: set[Path] = set()
    for folder, below, names in os.walk(root, followlinks=True, onerror=on_error):
        # A link that leads back up would show every file again, under another name each time.
        if (real := Path(folder).resolve()) in seen:
            below.clear()
            continue
        seen.add(real)
        yield Path(folder), names
