"""A head of `run_linear_probe.py` in the place of the sentences: which one, whether it fits, and its scores.

M windows, F frames of a window, Q queries.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from xclip_module.config import Config, DataConfig, nearest
from xclip_module.datasets.catalogue import load_corpus
from xclip_module.errors import ConfigError, WeightsError
from xclip_module.features.window_features import TEMPORAL, known_features, window_features
from xclip_module.interface import Corpus, Query, Sampling, VideoTextModel
from xclip_module.models.head import Head, load_head
from xclip_module.sections import AUTO


class Probe(NamedTuple):
    """A head and which of its rows are the run's queries.

    features: what of the model's features it sees.
    """

    head: Head
    rows: tuple[int, ...]
    features: str

    @property
    def has_temporal(self) -> bool:
        """Whether `scores` has rows of a temporal network, too."""
        return self.head.temporal is not None

    @property
    def protocol(self) -> str:
        """One line for the results."""
        return str(self.head.made["protocol"])

    def scores(
        self,
        stored: Mapping[str, np.ndarray],
        model: VideoTextModel,
        *,
        rows: np.ndarray,
        device: torch.device,
        video: str,
    ) -> np.ndarray:
        """Scores [Q, M] of one video, with a temporal network [2Q, M]; rows: grid rows [M, F] of its windows."""
        seen = window_features(stored, model, rows=rows, kind=self.features, device=device, video=video)
        found = self.head.scores(seen)
        chosen = [*self.rows, *(row + len(self.head.queries) for row in self.rows if self.has_temporal)]
        return found[chosen].cpu().numpy()


def choose_features(config: Config, model: VideoTextModel) -> str:
    """What is probed. Raises ConfigError for what this model has not."""
    wanted, known = config.probe.features, known_features(model)
    if wanted == AUTO:
        return known[0]
    if wanted not in known:
        why = f"{config.model.weights} ({model.protocol}) has {', '.join(known)}"
        raise ConfigError(f"probe.features={wanted}", why=why, attempt=f"--probe.features={known[0]}")
    return wanted


def source_of(config: Config, model: VideoTextModel, sampling: Sampling, features: str) -> dict[str, Any]:
    """All that a head's features depend on, but the video and the rounding of the precision."""
    whole = features == TEMPORAL
    return {
        "features": features,
        "weights": model.digest() if whole else model.stored_digest(),
        "picture": [model.picture.size, list(model.picture.mean), list(model.picture.std)],
        "crop": config.data.crop,
        "clip_seconds": sampling.clip_seconds,
        "frames_per_clip": sampling.frames_per_clip,
    }


def load_queries(data: DataConfig, head: Head) -> Corpus:
    """The data set with queries of the head: its own where they are left open, all of them for a recording.

    Raises ConfigError for a query that the head does not know.
    """
    if data.video and not data.queries:
        data = dataclasses.replace(data, queries="; ".join(query.name.replace(";", ",") for query in head.queries))
        corpus = load_corpus(data)
        return corpus._replace(queries=tuple(Query(*query) for query in head.queries))
    corpus = load_corpus(data)
    known = {word: query for query in head.queries for word in (query.text, query.name)}
    chosen: dict[str, Query] = {}
    for query in corpus.queries:
        found = known.get(query.name) or known.get(query.text)
        if found is None:
            names = [one.name for one in head.queries]
            why, attempt = nearest(query.name, names), f'--data.queries="{names[0]}"'
            raise ConfigError(f"the head does not know “{query.name}”", why=why, attempt=attempt)
        # Once, though it was named and its sentence too.
        chosen.setdefault(found.name, Query(found.name, query.text, found.kind))
    return corpus._replace(queries=tuple(chosen.values()))


def with_sampling(config: Config, head: Head) -> Config:
    """The configuration with the head's own windows where it leaves them open."""
    own = {name: head.made[name] for name in ("clip_seconds", "frames_per_clip", "stride_seconds")}
    left_open = {name: value for name, value in own.items() if not getattr(config.data, name)}
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **left_open))


def read_head(config: Config) -> Head | None:
    """The configured head, if any. Raises WeightsError, and ConfigError for what goes with sentences only."""
    if not config.model.head:
        return None
    for key, value in (("prompt_sets", config.eval.prompt_sets), ("background", config.eval.background)):
        if value:
            why = "a head knows classes, not their sentences"
            raise ConfigError(f"eval.{key} with model.head", why=why, attempt=f"leave eval.{key} empty")
    return load_head(Path(config.model.head))


def fit_to(config: Config, corpus: Corpus, model: VideoTextModel, sampling: Sampling, head: Head) -> Probe:
    """The head for these queries. Raises WeightsError where its features are others than this run's."""
    features = head.source["features"]
    found = {name: head.source.get(name) for name in (*_WANTED, "stride_seconds")}
    here: dict[str, Any] = dict.fromkeys(_WANTED)
    if features in known_features(model):
        here = source_of(config, model, sampling, features)
    here["stride_seconds"] = sampling.stride_seconds if found["stride_seconds"] else None
    differing = [name for name in found if found[name] != here[name]]
    if differing:
        made = "; ".join(f"{name} {_short(found[name])}, here {_short(here[name])}" for name in differing)
        raise WeightsError("this head is for other features", config.model.head, made, str(head.made["flags"]))
    names = [query.name for query in head.queries]
    return Probe(head, tuple(names.index(query.name) for query in corpus.queries), features)


_WANTED = ("features", "weights", "picture", "crop", "clip_seconds", "frames_per_clip")


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else "none" if value is None else str(value)
