"""What is learned from: the training clips, which sentence holds in which of them, and which nobody has said.

Letters: Q classes (the corpus's queries), S sentences, M items, n segments of one video.
"""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xclip_module.errors import DataError
from xclip_module.interface import Corpus, Query, Segment, Video, curve_times


class Track(NamedTuple):
    """The labels of one video.

    segments: [n, 2] seconds [start, end).  of_class: [n] the class of each.  known: [Q] bool, True where somebody has
    said when the class holds, be it never.  seconds: length of the video by its labels.
    """

    segments: np.ndarray
    of_class: np.ndarray
    known: np.ndarray
    seconds: float


class TrainingSet(NamedTuple):
    """Videos, classes and sentences, and the clips (items) of one epoch.

    sentences: [S] all that a class may be called.  class_of: [S] the class of each.
    item_video: [M] place in `videos`.  item_time: [M] seconds, the middle of the clip.
    """

    videos: tuple[Video, ...]
    classes: tuple[Query, ...]
    sentences: tuple[str, ...]
    class_of: np.ndarray
    tracks: Mapping[str, Track]
    item_video: np.ndarray
    item_time: np.ndarray

    @property
    def digest(self) -> str:
        """Changes with any video's file or length, label, sentence or clip; not with the place of the data."""
        digest = hashlib.sha256(json.dumps([*files_of(self.videos), self.sentences]).encode())
        for track in self.tracks.values():
            digest.update(track.segments.tobytes() + track.of_class.tobytes() + track.known.tobytes())
        digest.update(self.item_video.tobytes() + self.item_time.tobytes())
        return digest.hexdigest()[:16]

    def holds(self, video: str, time: float) -> np.ndarray:
        """[Q] bool: the classes that are known to hold at `time` seconds of the video with this id."""
        track = self.tracks[video]
        inside = (track.segments[:, 0] <= time) & (time < track.segments[:, 1])
        holds = np.zeros(len(self.classes), bool)
        holds[track.of_class[inside]] = True
        return holds

    def phase(self, video: str, time: float) -> int | None:
        """The class of the phase at `time` seconds, None where there is none."""
        held = np.flatnonzero(self.holds(video, time)).tolist()
        return next((number for number in held if self.classes[number].kind == "phase"), None)

    def phase_segments(self, video: str) -> list[tuple[float, float, int]]:
        """Start, end and class of the phases of a video, by time."""
        track = self.tracks[video]
        rows = zip(track.segments.tolist(), track.of_class.tolist(), strict=True)
        return sorted((start, end, number) for (start, end), number in rows if self.classes[number].kind == "phase")

    def without(self, videos: Collection[str]) -> "TrainingSet":
        """The same without some videos, such as those that cannot be read. Raises DataError when no clip is left."""
        left = [number for number, video in enumerate(self.videos) if video.id not in videos]
        kept = np.isin(self.item_video, left)
        if not kept.any():
            raise DataError("nothing to train on", why="no training video is left")
        return self._replace(
            videos=tuple(self.videos[number] for number in left),
            tracks={self.videos[number].id: self.tracks[self.videos[number].id] for number in left},
            item_video=np.searchsorted(left, self.item_video[kept]),
            item_time=self.item_time[kept],
        )


def files_of(videos: Sequence[Video]) -> tuple[list[str], list[int]]:
    """Id and bytes of every video's file, 0 for extracted frames: what tells whether they are still the same."""
    sizes = [video.source.stat().st_size if isinstance(video.source, Path) else 0 for video in videos]
    return [video.id for video in videos], sizes


def training_set(
    corpus: Corpus, *, texts: Mapping[str, Sequence[str]], use_tools: bool, clip_stride_seconds: float
) -> TrainingSet:
    """The labelled videos of split "train", and every clip in which at least one class is known to hold.

    texts: class name -> its sentences: the prompt that is searched for, then paraphrases from other prompt sets.
    use_tools: False leaves the classes of kind "tool" out.
    clip_stride_seconds: seconds between two clips, on the grid of `curve_times`.
    Raises DataError where there is no such video or clip, and for a sentence of two classes.
    """
    classes = tuple(query for query in corpus.queries if use_tools or query.kind != "tool")
    videos = tuple(video for video in corpus.of_split("train") if corpus.moments.get(video.id))
    if not videos:
        splits = ", ".join(sorted({video.split for video in corpus.videos})) or "none"
        why = f"found splits: {splits}; lists of moments and own recordings have no train split"
        raise DataError("no labelled training video", corpus.name, why, "--data.name=cholec80 --data.root=FOLDER")
    tracks = {video.id: _track(video, classes, corpus.moments[video.id]) for video in videos}
    grids = [_labelled_times(tracks[video.id], clip_stride_seconds) for video in videos]
    if not sum(map(len, grids)):
        why = f"no moment of its {len(classes)} sentences is annotated in the {len(videos)} training videos"
        raise DataError(
            "nothing to train on", corpus.name, why, "a smaller --finetune.clip_stride_seconds, or other --data.queries"
        )
    sentences, class_of = _sentence_table(classes, texts)
    return TrainingSet(
        videos=videos,
        classes=classes,
        sentences=sentences,
        class_of=class_of,
        tracks=tracks,
        item_video=np.repeat(np.arange(len(videos)), [len(grid) for grid in grids]),
        item_time=np.concatenate(grids),
    )


def _track(video: Video, classes: Sequence[Query], moments: Mapping[str, tuple[Segment, ...]]) -> Track:
    named = [(number, moments.get(query.name, ())) for number, query in enumerate(classes)]
    rows = [(start, end, number) for number, segments in named for start, end in segments]
    table = np.array(rows, np.float64).reshape(-1, 3)
    return Track(
        segments=table[:, :2],
        of_class=table[:, 2].astype(int),
        known=np.array([query.name in moments for query in classes]),
        seconds=video.label_seconds or float(table[:, 1].max(initial=0.0)),
    )


def _labelled_times(track: Track, stride_seconds: float) -> np.ndarray:
    times = curve_times(track.seconds, stride_seconds)
    starts, ends = track.segments.T
    return times[((starts <= times[:, None]) & (times[:, None] < ends)).any(axis=1)]


def _sentence_table(classes: Sequence[Query], texts: Mapping[str, Sequence[str]]) -> tuple[tuple[str, ...], np.ndarray]:
    owner: dict[str, int] = {}
    for number, query in enumerate(classes):
        for text in dict.fromkeys(texts[query.name]):
            if owner.setdefault(text, number) != number:
                why = f"“{text}” stands for {classes[owner[text]].name} and for {query.name}"
                raise DataError("one sentence for two classes", why=why, attempt="mend the prompts")
    return tuple(owner), np.array(list(owner.values()))
