"""A head of `run_linear_probe.py` in the place of the sentences: whether it fits, and its queries among the run's."""

import dataclasses
from typing import Any

from xclip_module.config import DataConfig
from xclip_module.errors import WeightsError
from xclip_module.features.scoring import TEMPORAL, known_features
from xclip_module.interface import Corpus, Sampling, VideoTextModel
from xclip_module.models.head import Head

# What of `Head.source` must be the same here.
_COMPARED = ("features", "weights", "picture", "crop", "clip_seconds", "frames_per_clip")


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
