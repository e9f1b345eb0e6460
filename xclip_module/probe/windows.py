"""What a probe learns from and is chosen on: the windows of labelled videos as vectors, with their labels.

M windows of a video, D width, Q queries, N windows of several videos.
"""

import contextlib
import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from xclip_module.config import Config
from xclip_module.datasets.catalogue import load_corpus
from xclip_module.errors import ConfigError, DataError
from xclip_module.evaluation.frames import labels_at
from xclip_module.features.window_features import window_features
from xclip_module.interface import Corpus, Query, Video
from xclip_module.run import distributed
from xclip_module.run.launch import Run
from xclip_module.tasks.localisation import score as assemble
from xclip_module.tasks.localisation.training import with_every_split

TRAIN, VAL = "train", "val"
_NO_VAL = "there is no val video to choose one on"


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


def load_probe_corpus(config: Config) -> Corpus:
    """The data set with every split. Raises ConfigError or DataError for what cannot be learned from."""
    if config.data.video:
        why = "own recordings have no labels to learn from"
        raise ConfigError(f"data.video={config.data.video}", why=why, attempt="--data.name=cholec80 --data.root=FOLDER")
    if config.model.head:
        raise ConfigError("model.head", why="this script trains one", attempt="python run_zeroshot.py --model.head=…")
    for key, value in (("prompt_sets", config.eval.prompt_sets), ("background", config.eval.background)):
        if value:
            raise ConfigError(f"eval.{key}", why="a head knows classes, not sentences", attempt="leave it empty")
    corpus = load_corpus(with_every_split(config.data))
    assemble.check_track(config, corpus, has_temporal=config.probe.temporal != "none")
    labelled = sum(video.id in corpus.moments for video in corpus.of_split(TRAIN))
    if not labelled:
        why = f"{corpus.name} has no labelled video in its train split"
        raise DataError("nothing to learn from", config.data.annotations or config.data.root or corpus.name, why)
    check_shots(config, labelled)
    if not config.probe.penalty:
        _check_choice(config, corpus)
    return corpus


def _check_choice(config: Config, corpus: Corpus) -> None:
    """Raises ConfigError for a kind of query with training examples of which val has none to choose a penalty on."""
    held = {
        split: {
            name
            for video in corpus.of_split(split)
            for name, found in corpus.moments.get(video.id, {}).items()
            if found
        }
        for split in (TRAIN, VAL)
    }
    for kind in dict.fromkeys(query.kind for query in corpus.queries):
        names = {query.name for query in corpus.queries if query.kind == kind}
        if names & held[TRAIN] and not names & held[TRAIN] & held[VAL]:
            raise no_choice(kind, config.probe.monitor, has_val=bool(corpus.of_split(VAL)))


def no_choice(kind: str, monitor: str, *, has_val: bool) -> ConfigError:
    """What to say where there is nothing to choose a penalty on."""
    what = "sentence" if kind == "free" else kind
    happens = "begins or ends" if monitor == "AUROC" else "happens"
    why = f"no {what} of the training videos {happens} in a val video" if has_val else _NO_VAL
    return ConfigError("probe.penalty=0", why=why, attempt="--probe.penalty=100, or a split with val videos")


def check_shots(config: Config, videos: int) -> None:
    """Raises ConfigError for more shots than there are training videos."""
    most = max(config.probe.shots, default=0)
    if most > videos:
        why = f"there are {videos} training videos"
        raise ConfigError(f"probe.shots={most}", why=why, attempt=f"--probe.shots=1,{videos}")


def scored_config(config: Config, corpus: Corpus) -> Config:
    """The configuration without the splits that the head has learned from in its last fit."""
    splits = assemble.scored_splits(config, corpus)
    left = tuple(split for split in splits if split != VAL or config.probe.refit == TRAIN)
    if not left:
        why = "nothing is left to score once val is learned from"
        raise ConfigError(f"probe.refit={config.probe.refit}", why=why, attempt="--data.evaluate=test")
    return dataclasses.replace(config, data=dataclasses.replace(config.data, evaluate=left))


def load_windows(config: Config, setup: assemble.Setup, features: str, run: Run) -> ProbeData:
    """Windows of all labelled videos of every split; encoded by all processes, held by the main one alone."""
    corpus = setup.corpus
    videos = [video for video in corpus.videos if video.id in corpus.moments]
    skipped: dict[str, str] = {}
    if run.world.size > 1:
        mine = distributed.shard(videos, run.world)
        with contextlib.closing(assemble.stored_videos(config, setup, mine, run, skipped)) as passing:
            for _ in passing:
                pass
        skipped = {name: why for share in distributed.gather(skipped, run.world) for name, why in share.items()}
    held: list[Windows] = []
    if run.world.is_main:
        left = [video for video in videos if video.id not in skipped]
        with contextlib.closing(assemble.stored_videos(config, setup, left, run, skipped)) as passing:
            for video, stored in passing:
                times, rows = assemble.windows_of(video.id, stored, setup.sampling)
                seen = window_features(
                    stored, setup.model, rows=rows, kind=features, device=run.world.device, video=video.id
                )
                held.append(make_windows(video, corpus, times, float(stored["duration"]), seen))
        if not any(one.split == TRAIN for one in held):
            why = next((why for name, why in skipped.items() if name in {one.id for one in corpus.of_split(TRAIN)}), "")
            raise DataError("no training video could be read", why=why, attempt="mend or replace it")
    places = {video.id: place for place, video in enumerate(videos)}
    return ProbeData(tuple(sorted(held, key=lambda one: places[one.video])), skipped)


def make_windows(video: Video, corpus: Corpus, times: np.ndarray, duration: float, features: Tensor) -> Windows:
    """The labels at the middle of each window. A phase is known where any phase is annotated."""
    truth = corpus.moments[video.id]
    labels = np.stack([labels_at(times, truth.get(query.name, ())) for query in corpus.queries], axis=1)
    known = np.zeros_like(labels)
    known[:] = [query.name in truth for query in corpus.queries]
    phases = rows_of(corpus.queries, "phase")
    known[:, phases] &= labels[:, phases].any(axis=1, keepdims=True)
    device = features.device
    own = torch.from_numpy(labels), torch.from_numpy(known)
    return Windows(
        video=video.id,
        split=video.split,
        times=times,
        duration=duration,
        features=features,
        labels=own[0].to(device),
        known=own[1].to(device),
        digest=digest_of_tensors(*own, features),
    )


def rows_of(queries: Sequence[Query], kind: str) -> list[int]:
    """Which queries are of a kind."""
    return [row for row, query in enumerate(queries) if query.kind == kind]


def stacked(videos: Sequence[Windows]) -> tuple[Tensor, Tensor, Tensor]:
    """Features [N, D], labels and known [N, Q] of several videos, one after the other."""
    parts: Any = zip(*((one.features, one.labels, one.known) for one in videos), strict=True)
    features, labels, known = (torch.cat(part) for part in parts)
    return features, labels, known


def digest_of(videos: Sequence[Windows]) -> str:
    """Changes with any feature or label of these videos."""
    return hashlib.sha256(" ".join(one.digest for one in videos).encode()).hexdigest()[:24]


def digest_of_tensors(*tensors: Tensor) -> str:
    """Changes with any shape or bit."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(f"{tuple(tensor.shape)}".encode() + tensor.cpu().numpy().tobytes())
    return total.hexdigest()[:24]
