"""What every data set becomes: videos, sentences, and when each sentence happens."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from xclip_module.interface.video import FrameFolder

Segment = tuple[float, float]


class Video(NamedTuple):
    """One video to search.

    source: a video file, or extracted frames.
    split: "train", "val", "test", or "all" where there are no splits.
    label_seconds, label_tolerance: its length by its labels, and how far the file may be from that; 0 = no labels.
    last_moment: end in seconds of its last annotated moment, which must lie within the file.
    span: first and last second that retrieval looks at, which may lie beyond the end; None = the whole video.
    """

    id: str
    source: Path | FrameFolder
    split: str
    label_seconds: float = 0.0
    label_tolerance: float = 0.0
    last_moment: float = 0.0
    span: tuple[float, float] | None = None


class Query(NamedTuple):
    """One sentence: a short name for tables, the text itself, and its kind ("phase", "tool", "free")."""

    name: str
    text: str
    kind: str


class Missing(NamedTuple):
    """A video that a split should have and has not, and why."""

    id: str
    split: str
    why: str


class Corpus(NamedTuple):
    """Videos, queries and their truth.

    moments: video id -> query name -> segments in seconds, ascending; an empty tuple = annotated as absent. A pair
        that is not there is not annotated and takes no part in any metric.
    protocol: the split's name and the hash of its ids, for the results.
    missing: videos that the splits to be scored should have and have not.
    orders: names of queries in the orders that a procedure may take them; empty = not known.
    """

    name: str
    videos: tuple[Video, ...]
    queries: tuple[Query, ...]
    moments: Mapping[str, Mapping[str, tuple[Segment, ...]]]
    protocol: str
    missing: tuple[Missing, ...] = ()
    orders: tuple[tuple[str, ...], ...] = ()

    def of_split(self, split: str) -> tuple[Video, ...]:
        """The videos of one split, in order."""
        return tuple(video for video in self.videos if video.split == split)


def split_hash(splits: Mapping[str, tuple[str, ...]]) -> str:
    """Twelve hex digits that change with any id of any split.

    >>> split_hash({"test": ("video01",)}) == split_hash({"val": ("video01",)})
    False
    """
    lines = [f"{split} {video}" for split, videos in sorted(splits.items()) for video in videos]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
