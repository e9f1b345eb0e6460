"""A head of `run_linear_probe.py` in the place of the sentences: which one it is, and whether it fits."""

import dataclasses
from pathlib import Path
from typing import Any

from xclip_module.config import DataConfig, EvalConfig, nearest
from xclip_module.datasets.catalogue import load_corpus
from xclip_module.errors import ConfigError, WeightsError
from xclip_module.features.window_features import TEMPORAL, known_features
from xclip_module.interface import Corpus, Query, Sampling, VideoTextModel
from xclip_module.models.head import Head, load_head

# What of `Head.source` must be the same here.
_COMPARED = ("features", "weights", "picture", "crop", "clip_seconds", "frames_per_clip")


def read_head(path: Path, judging: EvalConfig) -> Head:
    """The head in a file. Raises WeightsError, and ConfigError for what goes with sentences only."""
    for key, value in (("prompt_sets", judging.prompt_sets), ("background", judging.background)):
        if value:
            why = "a head knows classes, not their sentences"
            raise ConfigError(f"eval.{key} with model.head", why=why, attempt=f"leave eval.{key} empty")
    return load_head(path)


def load_head_queries(data: DataConfig, head: Head) -> Corpus:
    """The data set with queries of the head: its own where they are left open, all of them for a recording.

    Raises ConfigError for a query that the head does not know.
    """
    if data.video and not data.queries:
        data = dataclasses.replace(data, queries="; ".join(query.name.replace(";", ",") for query in head.queries))
        corpus = load_corpus(data)
        return corpus._replace(queries=tuple(Query(*query) for query in head.queries))
    corpus = load_corpus(data)
    by_word = {word: query for query in head.queries for word in (query.text, query.name)}
    chosen: dict[str, Query] = {}
    for query in corpus.queries:
        learned = by_word.get(query.name) or by_word.get(query.text)
        if learned is None:
            names = [query.name for query in head.queries]
            why, attempt = nearest(query.name, names), f'--data.queries="{names[0]}"'
            raise ConfigError(f"the head does not know “{query.name}”", why=why, attempt=attempt)
        # Once, though it was named and its sentence too.
        chosen.setdefault(learned.name, Query(learned.name, query.text, learned.kind))
    return corpus._replace(queries=tuple(chosen.values()))


def with_sampling(data: DataConfig, head: Head) -> DataConfig:
    """The section with the head's own windows where it leaves them open."""
    made = {name: head.made[name] for name in ("clip_seconds", "frames_per_clip", "stride_seconds")}
    return dataclasses.replace(data, **{name: value for name, value in made.items() if not getattr(data, name)})


def source_of(model: VideoTextModel, sampling: Sampling, *, features: str, crop: str) -> dict[str, Any]:
    """All that a head's features depend on, but the video and the rounding of the precision."""
    # Only the temporal header's output depends on weights beyond those that stored features depend on.
    is_whole = features == TEMPORAL
    return {
        "features": features,
        "weights": model.digest() if is_whole else model.stored_digest(),
        "picture": [model.picture.size, list(model.picture.mean), list(model.picture.std)],
        "crop": crop,
        "clip_seconds": sampling.clip_seconds,
        "frames_per_clip": sampling.frames_per_clip,
    }


def check_fit(head: Head, model: VideoTextModel, sampling: Sampling, *, crop: str, path: str) -> None:
    """Raises WeightsError where the features that the head in `path` was made for are others than this run's."""
    features = head.source["features"]
    made = {name: head.source.get(name) for name in (*_COMPARED, "stride_seconds")}
    here: dict[str, Any] = dict.fromkeys(_COMPARED)
    if features in known_features(model):
        here = source_of(model, sampling, features=features, crop=crop)
    # Only a head with a temporal network is bound to a stride: it has learned how far apart windows are.
    here["stride_seconds"] = sampling.stride_seconds if made["stride_seconds"] else None
    differing = [name for name in made if made[name] != here[name]]
    if differing:
        why = "; ".join(f"{name} {_short(made[name])}, here {_short(here[name])}" for name in differing)
        raise WeightsError("this head is for other features", path, why, str(head.made["flags"]))


def query_rows(head: Head, corpus: Corpus) -> tuple[int, ...]:
    """Which of the head's queries are the corpus's."""
    names = [query.name for query in head.queries]
    return tuple(names.index(query.name) for query in corpus.queries)


def _short(value: Any) -> str:
    return value[:12] if isinstance(value, str) else "none" if value is None else str(value)
