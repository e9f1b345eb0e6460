"""What a probe learns from and is chosen on: the windows of labelled videos as vectors, with their labels.

M windows of a video, D width, Q queries, N windows of several videos.
"""

import contextlib
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xclip_module.errors import DataError
from xclip_module.evaluation.frames import labels_at
from xclip_module.features.scoring import window_features
from xclip_module.features.video_pass import Arrays
from xclip_module.interface import Corpus, Query, Video
from xclip_module.probe.corpus import TRAIN
from xclip_module.run.folder import Run
from xclip_module.tasks.encode import Encoding, of_all_videos, stored_videos
from xclip_module.tasks.localisation.windows import WindowEncoder


class Windows(NamedTuple):
    """All windows of one video.

    features: [M, D] float32.  labels, known: [M, Q] bool, known False where nobody has said whether the query holds.
    digest: changes with any of these.
    """

    video: str
    split: str
    times: np.ndarray
    duration: float
    features: Tensor
    labels: Tensor
    known: Tensor
    digest: str


class ProbeData(NamedTuple):
    """skipped: videos that cannot be read or are missing, with the reason."""

    videos: tuple[Windows, ...]
    skipped: dict[str, str]

    def of(self, split: str) -> tuple[Windows, ...]:
        """The videos of one split."""
        return tuple(video for video in self.videos if video.split == split)


def load_windows(corpus: Corpus, encoder: WindowEncoder, encoding: Encoding, *, features: str, run: Run) -> ProbeData:
    """Windows of all labelled videos of every split; encoded by all processes, held by the main one alone."""
    videos = [video for video in corpus.videos if video.id in corpus.moments]
    skipped: dict[str, str] = {}

    def check(video: Video, stored: Arrays) -> None:
        encoder.windows_of(video.id, stored)

    if run.world.size > 1:
        _, skipped = of_all_videos(videos, encoding, lambda video, stored: None, run=run, check=check)
    windows: list[Windows] = []
    if run.world.is_main:
        left = [video for video in videos if video.id not in skipped]
        with contextlib.closing(stored_videos(left, encoding, run=run, skipped=skipped, check=check)) as passing:
            for video, stored in passing:
                times, rows = encoder.windows_of(video.id, stored)
                device, name = run.world.device, video.id
                seen = window_features(stored, encoder.model, rows=rows, kind=features, device=device, video=name)
                windows.append(make_windows(video, corpus, times, float(stored["duration"]), seen))
        if not any(video.split == TRAIN for video in windows):
            train = {video.id for video in corpus.of_split(TRAIN)}
            why = next((why for name, why in skipped.items() if name in train), "")
            raise DataError("no training video could be read", why=why, attempt="mend or replace it")
    # As the corpus lists them: what is stored already comes before what had to be encoded.
    order = {video.id: number for number, video in enumerate(videos)}
    return ProbeData(tuple(sorted(windows, key=lambda video: order[video.video])), skipped)


def make_windows(video: Video, corpus: Corpus, times: np.ndarray, duration: float, features: Tensor) -> Windows:
    """The labels at the middle of each window. A phase is known where any phase is annotated."""
    truth = corpus.moments[video.id]
    labels = np.stack([labels_at(times, truth.get(query.name, ())) for query in corpus.queries], axis=1)
    known = np.zeros_like(labels)
    known[:] = [query.name in truth for query in corpus.queries]
    phases = rows_of(corpus.queries, "phase")
    known[:, phases] &= labels[:, phases].any(axis=1, keepdims=True)
    device = features.device
    held, is_known = torch.from_numpy(labels), torch.from_numpy(known)
    return Windows(
        video=video.id,
        split=video.split,
        times=times,
        duration=duration,
        features=features,
        labels=held.to(device),
        known=is_known.to(device),
        digest=digest_of_tensors(held, is_known, features),
    )


def rows_of(queries: Sequence[Query], kind: str) -> list[int]:
    """Which queries are of a kind."""
    return [row for row, query in enumerate(queries) if query.kind == kind]


def stacked(videos: Sequence[Windows]) -> tuple[Tensor, Tensor, Tensor]:
    """Features [N, D], labels and known [N, Q] of several videos, one after the other."""
    parts: Any = zip(*((video.features, video.labels, video.known) for video in videos), strict=True)
    features, labels, known = (torch.cat(part) for part in parts)
    return features, labels, known


def digest_of(videos: Sequence[Windows]) -> str:
    """Changes with any feature or label of these videos."""
    return hashlib.sha256(" ".join(video.digest for video in videos).encode()).hexdigest()[:24]


def digest_of_tensors(*tensors: Tensor) -> str:
    """Changes with any shape or bit."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(f"{tuple(tensor.shape)}".encode() + tensor.cpu().numpy().tobytes())
    return total.hexdigest()[:24]
